"""The invariants on real data, straight from disk."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from filelock import FileLock

from siftune.curation.child_process import module_command, module_environment
from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from siftune.curation.text import words as text
from tests.curation.splits.brute_force import leaks

pytestmark = pytest.mark.slow
FILES = (
    "rasbt_alpaca.json",
    "glaive_sharegpt.json",
    "gpteacher_toolformer.json.gz",
    "gsm8k_train.jsonl.gz",
    "hh_chosen_rejected.jsonl.gz",
    "self_instruct_5k.jsonl",
    "t0_prompt_completion.jsonl.gz",
    "mix.jsonl.gz",
)
DUPLICATES = ("exact", "near", "answers")
#: Drops of a set that are compared word by word.
CHECKED_DROPS = 3000


@pytest.fixture(scope="session")
def curated(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunFolder]:
    """The run of one file with the default recipe, but for the encoder; all processes of a test run share it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "real_sets"
    shared.mkdir(exist_ok=True)

    def make(name: str) -> RunFolder:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not (folder / "finished").exists():
                folder.mkdir(exist_ok=True)
                source = {"path": str(shared_data / "instructions" / name), "name": "s"}
                curate(write_recipe(folder, source, "run"))
                (folder / "finished").touch()
        return RunFolder.open(folder / "run")

    return make


def write_recipe(folder: Path, source: dict[str, str], run: str, **sections: Any) -> Path:
    """The default recipe, but for the encoder."""
    path = folder / f"{run}.yaml"
    document = {"sources": [source], "encoder": None, "run": run, **sections}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def rows_on_disk(path: Path) -> int:
    """Counted without our readers."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".jsonl" in path.name:
        return sum(bool(line.strip()) for line in raw.split(b"\n"))
    document = json.loads(raw)
    return len(document)


def words_of(run: RunFolder, ids: set[str]) -> dict[str, tuple[list[str], list[str]]]:
    """The words of the compared prompt and answer of some rows."""
    frame = pl.scan_parquet(run.texts).filter(pl.col("id").is_in(sorted(ids)))
    tokens = frame.select("id", text.words(pl.col("core")).alias("core"), text.words(pl.col("answer")).alias("answer"))
    return {row[0]: (row[1], row[2]) for row in tokens.collect().iter_rows()}


def jaccard(one: list[str], two: list[str], size: int = 3) -> float:
    a, b = ({tuple(words[at : at + size]) for at in range(max(1, len(words) - size + 1))} for words in (one, two))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_lost_and_every_duplicate_resembles_a_row_that_stays(
    shared_data: Path, curated: Any, name: str
) -> None:
    run = curated(name)
    rows, ledger = run.rows(), run.ledger()
    assert rows.height == rows["id"].n_unique() == rows_on_disk(shared_data / "instructions" / name)
    removals = ledger.filter(pl.col("action").is_in(["drop", "quarantine"]))
    assert sorted(removals["id"]) == sorted(rows.filter(pl.col("fate") != "kept")["id"])
    written = pl.read_parquet(run.path / "curated" / "train.parquet", columns=["id"])
    assert written["id"].to_list() == rows.filter(fate="kept")["id"].to_list()
    drops = ledger.filter(pl.col("action") == "drop", pl.col("stage").is_in(DUPLICATES))
    drops = drops.sample(min(CHECKED_DROPS, drops.height), seed=0)
    texts = words_of(run, {*drops["id"], *drops["witness"]})
    steps = dict(ledger.filter(action="drop").select("id", "step").iter_rows())
    for drop in drops.iter_rows(named=True):
        dropped_words, witness_words = texts[drop["id"]], texts[drop["witness"]]
        assert steps.get(drop["witness"], 10**6) > drop["step"], "the witness did not outlive the stage"
        if drop["stage"] == "exact":
            assert dropped_words == witness_words
            continue
        prompts, answers = (jaccard(dropped_words[side], witness_words[side]) for side in (0, 1))
        score = answers if drop["stage"] == "answers" else min(prompts, answers)
        assert drop["score"] == pytest.approx(score, abs=1e-12)
        assert drop["score"] >= drop["threshold"]


@pytest.mark.parametrize("name", FILES)
def test_the_near_stage_leaves_no_pair_that_it_would_drop(curated: Any, name: str) -> None:
    run = curated(name)
    removals = run.ledger().filter(pl.col("action").is_in(["drop", "quarantine"]))
    gone = removals.filter(~pl.col("stage").is_in(["answers", "conflicts"]))["id"].implode()
    stored_pairs = run.pairs("near").filter(~pl.col("a").is_in(gone), ~pl.col("b").is_in(gone))
    assert stored_pairs.filter(pl.col("score") >= 0.8, ~pl.col("guarded")).is_empty()


#: T0 takes longest by far; `tests/benchmarks/second_pass.py` curates it again too.
@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("t0")])
def test_a_second_pass_drops_nothing(curated: Any, tmp_path: Path, name: str) -> None:
    source = {"path": str(curated(name).path / "curated" / "train.parquet"), "name": "s"}
    again = curate(write_recipe(tmp_path, source, "again"))
    assert again.ledger().filter(action="drop").is_empty()


@pytest.mark.parametrize("name", ["glaive_sharegpt.json"])
def test_threads_and_a_kill_change_nothing_and_nothing_leaks(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = {"path": str(shared_data / "instructions" / name), "name": "s"}
    recipe = write_recipe(tmp_path, source, "killed", splits={"test": 50})
    command = module_command("siftune", "curate", str(recipe))
    variables = ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "PYTHONHASHSEED")
    alone: dict[str, Any] = {"env": module_environment() | dict.fromkeys(variables, "1"), "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **alone) as process:
        while process.poll() is None and not (tmp_path / "killed" / "manifest.json").is_file():
            time.sleep(0.02)
        process.kill()
    subprocess.run(command, check=True, stderr=subprocess.PIPE, **alone)
    whole = curate(write_recipe(tmp_path, source, "whole", splits={"test": 50})).path
    for file in ("ledger.parquet", "rows.parquet"):
        assert (tmp_path / "killed" / file).read_bytes() == (whole / file).read_bytes()
    assert leaks(whole) == []


def test_templates_do_not_make_duplicates(shared_data: Path, curated: Any) -> None:
    """T0 asks the same items under 283 templates. The same item under another template is a duplicate (two fifths of
    the rows are); another item under the same template is none.
    """
    run = curated("t0_prompt_completion.jsonl.gz")
    with gzip.open(shared_data / "instructions" / "t0_prompt_completion.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines if line.strip()]
    near = run.ledger().filter(stage="near", action="drop").select("id", "witness").iter_rows()
    pairs = [(raw[int(one.split(":")[1])], raw[int(two.split(":")[1])]) for one, two in near]
    assert len(pairs) > 1000
    assert sum(one["template"] == two["template"] for one, two in pairs) < 0.05 * len(pairs)
    assert sum(one["completion"] == two["completion"] for one, two in pairs) > 0.9 * len(pairs)
    kept = [raw[int(row.split(":")[1])] for row in run.rows().filter(fate="kept")["id"]]
    assert len({row["completion"] for row in kept}) > 0.95 * len({row["completion"] for row in raw})
    assert len(kept) > 0.5 * len(raw)


def test_questions_under_one_instruction_stay(shared_data: Path, curated: Any) -> None:
    """ChatDoctor asks every question under one shared instruction; the question is in `input`."""
    run = curated("mix.jsonl.gz")
    with gzip.open(shared_data / "instructions" / "mix.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines if line.strip()]
    questions = {f"s:{number}": row["input"] for number, row in enumerate(raw) if row["source"] == "chatdoctor5k"}
    assert len(questions) > 5000
    kept = run.rows().filter(fate="kept")["id"].to_list()
    assert {questions[row] for row in kept if row in questions} == set(questions.values())


def test_another_number_is_another_question(tmp_path: Path, shared_data: Path) -> None:
    """Among real rows, two in which only a number differs: both stay, and the ledger says why."""
    with gzip.open(shared_data / "instructions" / "mix.jsonl.gz", "rt", encoding="utf-8") as lines:
        real = [json.loads(next(lines)) for _ in range(300)]
    question = (
        "How much energy does a photon need at least to make an electron and a positron near a nucleus? Is it {}?"
    )
    answer = "It must have the rest energy of both, and what it has besides that becomes kinetic energy of the two."
    pair = [{"instruction": question.format(value), "output": answer} for value in ("1.022 MeV", "1.032 MeV")]
    rows = [*({name: row[name] for name in ("instruction", "input", "output")} for row in real), *pair]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "r.yaml").write_text("sources: [{path: s.jsonl}]\nencoder: null\nrun: run\n", encoding="utf-8")
    run = curate(tmp_path / "r.yaml")
    fates = dict(run.rows().select("id", "fate").iter_rows())
    assert fates["s:300"] == fates["s:301"] == "kept"
    (guarded,) = run.ledger().filter(pl.col("id").is_in(["s:300", "s:301"]), pl.col("action") == "guard").to_dicts()
    assert guarded["score"] >= guarded["threshold"]
    assert guarded["detail"].endswith(("; 1.032 ≠ 1.022", "; 1.022 ≠ 1.032"))
