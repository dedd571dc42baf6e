"""The invariants of the design, on generated data, for every stage that `stages()` lists."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from siftune.curation import corpus, pipeline
from siftune.curation.child_process import module_command, module_environment
from siftune.curation.pipeline import curate
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import STAGES, stages
from tests.worlds import bag_encoder, cosine, jaccard, kept_rows, many, rows, write_recipe, write_source

#: Whole runs for each example: few of them, and none spent on making a failure smaller.
EXAMPLES = settings(max_examples=7, phases=[Phase.explicit, Phase.generate])
SPLIT = {"splits": {"test": 5, "near": 0.6}, "keys": {"leaks": "prompt"}}
DUPLICATES: dict[str, Any] = {
    "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
    "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
    "conflicts": "drop",
}
#: A recipe with every stage there is.
EVERY_STAGE: dict[str, Any] = {
    "encoder": "bag",
    "duplicates": {**DUPLICATES, "semantic": {"threshold": 0.95, "floor": 0.9}},
    "contamination": {"references": [{"path": "reference.jsonl", "name": "exam", "format": "alpaca"}]},
}
ALL_STAGES = stages(Recipe.model_validate({"sources": [{"path": "s.jsonl"}], **EVERY_STAGE}), base=Path())
#: The threshold of each stage that compares rows with one another; stages without one drop equal texts.
THRESHOLDS = {
    stage.name: stage.similarity.threshold if stage.similarity else 1.0 for stage in ALL_STAGES if stage.compares
}


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report decides nothing and has tests of its own; drawing it for every example takes most of the time."""
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A new folder for each generated example; encoders are tiny."""
    with bag_encoder(tmp_path_factory.mktemp("cache")):
        yield lambda: tmp_path_factory.mktemp("invariants")


def prompts_and_answers(run: RunFolder) -> dict[str, tuple[str, str]]:
    frame = pl.read_parquet(run.texts)
    return {row["id"]: (row["prompt"], row["answer"]) for row in frame.iter_rows(named=True)}


def write_world(data: list[dict[str, Any]], folder: Path, reference: list[dict[str, Any]], **sections: Any) -> Path:
    write_source(data, folder / "s.jsonl")
    write_source(reference, folder / "reference.jsonl")
    return write_recipe(folder, "s.jsonl", **sections)


@EXAMPLES
@given(data=rows(), size=st.integers(1, 7))
def test_invariants_hold_for_every_stage(folder: Any, data: list[dict[str, Any]], size: int) -> None:
    world = folder()
    reference = [row for row in data if row["output"]][:1]
    run = curate(write_world(data, world, reference, **EVERY_STAGE))
    every_row_has_one_fate(run, data)
    every_duplicate_names_a_kept_row_that_is_similar_enough(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "BATCH", size)
        in_small_batches = curate(write_world(data, world, reference, run="cut", **EVERY_STAGE))
    for file in ("ledger.parquet", "rows.parquet"):
        assert (run.path / file).read_bytes() == (in_small_batches.path / file).read_bytes()
    again = curate(write_world(kept_rows(run.path), world / "again", reference, **EVERY_STAGE))
    dropped = again.ledger().filter(pl.col("action") == "drop")
    assert dropped.filter(pl.col("stage").is_in(list(THRESHOLDS))).is_empty()


def every_row_has_one_fate(run: RunFolder, data: list[dict[str, Any]]) -> None:
    fates = run.rows()
    assert sorted(fates["id"]) == sorted(f"s:{row}" for row in range(len(data)))
    unreadable = {f"s:{number}" for number, row in enumerate(data) if row["output"] is None}
    assert set(fates.filter(pl.col("fate") == "quarantined")["id"]) == unreadable
    written = pl.read_parquet(run.path / "curated" / "train.parquet")["id"].to_list()
    assert written == fates.filter(fate="kept")["id"].to_list()
    for before, after in pairwise(run.manifest.stages):
        assert before.kept == after.rows or after.stage == "write"


def every_duplicate_names_a_kept_row_that_is_similar_enough(run: RunFolder) -> None:
    texts, ledger = prompts_and_answers(run), run.ledger()
    for stage, threshold in THRESHOLDS.items():
        drops = ledger.filter(pl.col("stage") == stage, pl.col("action") == "drop")
        step = drops["step"].max() if drops.height else -1
        dropped_ids = set(ledger.filter(pl.col("action") == "drop", pl.col("step") <= step)["id"])
        for drop in drops.iter_rows(named=True):
            assert drop["witness"] in texts
            assert drop["witness"] not in dropped_ids
            assert drop["score"] >= drop["threshold"] == threshold
            score = SIMILARITIES[stage](texts[drop["id"]], texts[drop["witness"]])
            assert drop["score"] == pytest.approx(score, abs=1e-9)
    for match in ledger.filter(stage="contamination", action="drop").iter_rows(named=True):
        assert match["witness"] in run.matches().filter(id=match["id"])["reference"].to_list()


Texts = tuple[str, str]


def equal_words(one: str, two: str) -> float:
    return float(one.split() == two.split())


def cosine_of_sides(one: str, two: str) -> float:
    """Generated texts are one sentence each, which the tests' encoder reads to its end."""
    return 1.0 if one.split() == two.split() == [] else cosine(one, two)


def opens(one: str, two: str) -> bool:
    """Whether the lines of `one` are the first lines of `two`; generated turns are of one line."""
    return two.split("\n")[: one.count("\n") + 1] == one.split("\n")


#: Oracles: the score of two rows (prompt, answer) by each stage.
SIMILARITIES: dict[str, Callable[[Texts, Texts], float]] = {
    "exact": lambda one, two: min(equal_words(one[0], two[0]), equal_words(one[1], two[1])),
    "near": lambda one, two: min(jaccard(one[0], two[0], 2), jaccard(one[1], two[1], 2)),
    "prefixes": lambda one, two: float(all(map(opens, one, two))),
    "answers": lambda one, two: jaccard(one[1], two[1], 2),
    "conflicts": lambda one, two: equal_words(one[0], two[0]),
    "semantic": lambda one, two: min(cosine_of_sides(*sides) for sides in zip(one, two, strict=True)),
}


def test_the_invariants_are_tested_over_all_stages() -> None:
    assert [stage.name for stage in ALL_STAGES] == [stage.name for stage in STAGES]
    assert SIMILARITIES.keys() == THRESHOLDS.keys(), "a stage has no oracle"


def test_every_stage_drops_something_in_such_a_world(folder: Any) -> None:
    tail = "and then some more words so that it is no short answer"
    words = ["river stone garden window", "silver bread winter castle", "forest mirror candle harbour", "orange pepper"]
    first, second, third, fourth = ({"instruction": text, "output": f"{text} walnut yellow " + tail} for text in words)
    shared = "this answer has words enough to be one that is counted when it repeats"
    data = [
        *[first, second, third, fourth, first],  # exact
        {**second, "output": second["output"] + " velvet"},  # near
        {**third, "output": "thunder"},  # conflict
        {"instruction": "window garden stone river", "output": " ".join(reversed(first["output"].split()))},  # semantic
        *[{"instruction": f"{text} {text} {text} is asked here", "output": shared} for text in words[:3]],  # answers
        {"instruction": "thunder", "output": "..."},  # checks
        {"instruction": "mirror castle", "output": "velvet"},  # prefixes
        {"instruction": "saddle", "output": "pepper", "history": [["mirror castle", "velvet"]]},
    ]
    world = folder()
    run = curate(write_world(data, world, [fourth], **EVERY_STAGE))
    dropped = run.ledger().filter(action="drop")
    assert set(dropped["stage"]) == {stage.name for stage in STAGES}


def test_determinism_threads_do_not_matter(tmp_path: Path) -> None:
    write_source(many(300), tmp_path / "s.jsonl")
    ledgers = []
    for threads in ("1", "2"):
        path = write_recipe(tmp_path, "s.jsonl", run=f"run{threads}", **SPLIT)
        variables = ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "PYTHONHASHSEED")
        environment = module_environment() | dict.fromkeys(variables, threads)
        command = module_command("siftune", "curate", str(path))
        subprocess.run(command, check=True, env=environment, capture_output=True)
        ledgers.append((tmp_path / f"run{threads}" / "ledger.parquet").read_bytes())
    assert ledgers[0] == ledgers[1]


@EXAMPLES
@given(data=rows(most=40))
def test_no_pair_across_splits_reaches_the_threshold(folder: Any, data: list[dict[str, Any]]) -> None:
    if len({row["instruction"] for row in data if row["output"]}) < 12:
        return
    world = folder()
    write_source(data, world / "s.jsonl")
    sections = {"splits": {"test": 1, "near": 0.6}, "keys": {"leaks": "prompt", "template_rows": 1000}}
    run = curate(write_recipe(world, "s.jsonl", **sections))
    held_out = pl.read_parquet(run.path / "heldout" / "test.parquet")
    arms = [pl.read_parquet(path).select("id") for path in sorted((run.path / "arms").glob("*.parquet"))]
    assert len(arms) == 5
    texts = prompts_and_answers(run)
    assert held_out.height == 1
    assert run.manifest.certificate.passed
    for held_out_id in held_out["id"]:
        for training_id in pl.concat(arms)["id"].unique():
            assert jaccard(texts[held_out_id][0], texts[training_id][0], 2) < 0.6


@pytest.mark.slow
def test_resume_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    write_source(many(3_000), tmp_path / "s.jsonl")

    def command(name: str) -> list[str]:
        (tmp_path / name).mkdir(exist_ok=True)
        recipe_file = write_recipe(tmp_path / name, str(tmp_path / "s.jsonl"), **SPLIT)
        return module_command("siftune", "curate", str(recipe_file))

    def begun(name: str) -> subprocess.Popen[bytes]:
        """The process of a run that has begun to write."""
        process = subprocess.Popen(command(name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (tmp_path / name / "run" / "manifest.json").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        return process

    subprocess.run(command("warm"), check=True, capture_output=True)  # compiled kernels are cached from here on
    with begun("whole") as process:
        started = time.monotonic()
        assert process.wait() == 0
        unbroken = time.monotonic() - started

    def killed_and_resumed(moment: int) -> bool:
        """Whether the kill came midway."""
        name = f"killed{moment}"
        run = tmp_path / name / "run"
        with begun(name) as process:
            time.sleep(unbroken * moment / 3)
            midway = process.poll() is None
            process.send_signal(signal.SIGKILL)
        subprocess.run(command(name), check=True, capture_output=True)
        for file in ("ledger.parquet", "rows.parquet"):
            assert (run / file).read_bytes() == (tmp_path / "whole" / "run" / file).read_bytes()
        return midway

    with ThreadPoolExecutor(2) as pool:
        midway = sum(pool.map(killed_and_resumed, (1, 2)))
    assert midway, "hardly any run was killed in the middle"
