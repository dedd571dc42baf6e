"""Commands as a user types them: what they print, and one clear message with exit code 2 for what is wrong."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import polars as pl
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from siftune.app.cli.commands import main
from siftune.app.cli.run_output import curation_report
from siftune.curation.balance import stage
from siftune.curation.review.funnel import warnings
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, write_override
from siftune.curation.text.lengths import length_counter
from tests.worlds import many, write_recipe, write_source

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated run with a hostile row."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [*many(40), {"instruction": "\x1b[31mred \u202e evil <script>", "output": "an answer of some words."}]
    write_source(rows, folder / "s.jsonl")
    assert CliRunner().invoke(main, ["curate", str(write_recipe(folder, "s.jsonl"))]).exit_code == 0
    return folder / "run"


def refused(result: Result) -> str:
    """The one message of a command that the user called wrongly."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("siftune: ")
    return result.stderr


BAD_RECIPES = {
    "typo": ("sources: [{path: s.jsonl}]\nduplictes: {}\n", "line 2", "Did you mean 'duplicates'"),
    "no sources": ("encoder: null\n", "sources", "is missing"),
    "missing source": ("sources: [{path: nothing.jsonl}]\n", "nothing.jsonl"),
    "missing folder": ("sources: [{path: no/where/}]\n", "no/where"),
    "not yaml": ("sources: [{path: s.jsonl\n", "is not YAML"),
    "a list": ("- a\n", "a recipe is a mapping"),
    "empty file": ("", "found nothing"),
    "floor": ("sources: [{path: s.jsonl}]\nduplicates: {near: {threshold: 0.4}}\n", "floor", "above threshold"),
    "threshold": ("sources: [{path: s.jsonl}]\nduplicates: {near: {threshold: 1.5}}\n", "threshold", "1.5"),
    "type": ("sources: [{path: s.jsonl}]\nseed: many\n", "seed", "many"),
    "reference": (
        "encoder: null\nsources: [{path: s.jsonl}]\ncontamination: {references: [{path: gone.jsonl}]}\n",
        "gone.jsonl",
    ),
    "balance": (
        "encoder: null\nsources: [{path: s.jsonl}]\nbalance: {target: reference, reference: gone.jsonl}\n",
        "gone.jsonl",
    ),
    "encoder": (
        "encoder: ./gone\nsources: [{path: s.jsonl}]\nduplicates: {semantic: {}}\n",
        "There is no folder",
        "gone to take the encoder from",
    ),
    "splits": ("encoder: null\nsources: [{path: s.jsonl}]\nsplits: {test: 500}\n", "test split needs 500"),
    "foreign run": (
        "encoder: null\nrun: .\nsources: [{path: s.jsonl}]\n",
        "not made by siftune",
        "nothing was written",
    ),
    "run is a file": ("encoder: null\nrun: s.jsonl\nsources: [{path: s.jsonl}]\n", "is a file"),
    "no list": ("sources: s.jsonl\n", "Must be a list: entries on lines of their own that begin with `- `"),
    "no section": ("sources: [{path: s.jsonl}]\nduplicates: {near: strict}\n", "Must be a section: keys with values"),
    "not YAML": ("sources: [{path: s.jsonl}\n", "is not YAML", "at line 2"),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_recipe_that_cannot_work_is_refused_in_words(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, *fragments = BAD_RECIPES[name]
    monkeypatch.setattr(stage, "length_counter", lambda model, revision: length_counter(None))
    write_source(many(12), tmp_path / "s.jsonl")
    (tmp_path / "r.yaml").write_text(text)
    before = set(tmp_path.iterdir())
    message = refused(call("curate", "r.yaml"))
    assert all(fragment in message for fragment in fragments), message
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "runs"}
    assert not (name.startswith("missing") and (tmp_path / "runs").exists()), "a missing source leaves a folder behind"


def test_a_recipe_that_cannot_be_read_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for command in ("curate", "run"):
        assert "siftune recipe new" in refused(call(command, "missing.yaml"))
        assert "directory" in refused(call(command, "folder.yaml"))
        assert "cannot be read" in refused(call(command, "binary.yaml"))


def test_a_task_that_is_missing_is_a_fault_before_anything_is_curated(call: Call, tmp_path: Path) -> None:
    write_source(many(6), tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl", compare={"tasks": [{"path": "gone.jsonl"}]})
    done = call("run", recipe)
    assert done.exit_code == 2
    assert "There is no task at gone.jsonl" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(call: Call, tmp_path: Path) -> None:
    for name in ("r.yaml", "s.jsonl"):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(0)
    assert "ermission" in refused(call("curate", "r.yaml"))
    assert "ermission" in refused(call("inspect", "s.jsonl"))


BAD_CALLS = {
    "explain RUN t:1": "Sources: s",
    "explain RUN s:99": "rows 0 to 40",
    "what-if RUN near=0.1": "floor",
    "what-if RUN nea=0.7": "Did you mean 'near'",
    "what-if RUN near": "NAME=NUMBER",
    "what-if RUN near=much": "NAME=NUMBER",
    "what-if RUN semantic=0.95": "no semantic stage",
    "what-if RUN max_per_answer=0": "whole number",
    "inspect gone.jsonl": "no source at gone.jsonl",
    "inspect s.jsonl t.jsonl": "siftune curate s.jsonl t.jsonl",
    "inspect s.jsonl --format sharegpt": "conversations",
    "inspect s.jsonl --format sharegtp": "Did you mean 'sharegpt'",
    "train RUN": "training",
    "train RUN --dry-run": "training",
    "compare RUN": "training",
    "mask RUN s:0": "training",
    "prompts RUN": "siftune train",
    "export RUN --to merged": "siftune train",
    "sweep RUN gone.yaml": "gone.yaml",
}


@pytest.mark.parametrize("line", BAD_CALLS)
def test_a_wrong_call_is_answered_with_what_to_do(call: Call, tmp_path: Path, run: Path, line: str) -> None:
    write_source(many(3), tmp_path / "s.jsonl")
    assert BAD_CALLS[line] in refused(call(*[run if word == "RUN" else word for word in line.split()]))


def commands_on_a_run() -> list[list[str]]:
    """Every command whose first argument is a run folder, with what else it needs."""
    needs = {
        "explain": ["s:0"],
        "what-if": ["near=0.7"],
        "mask": ["s:0"],
        "sweep": ["plan.yaml"],
        "export": ["--to", "merged"],
        "diff": ["x"],
        "map": ["map.parquet"],
        "index": ["redis://127.0.0.1:1/0"],
        "push": ["hf://me/notes"],
    }
    calls = []
    for name, command in main.commands.items():
        first = command.params[0] if command.params else None
        if isinstance(first, click.Argument) and first.name in ("run", "before"):
            calls.append([name, *needs.get(name, [])])
    assert len(calls) >= 9
    return calls


@pytest.mark.parametrize("words", commands_on_a_run(), ids=" ".join)
def test_a_folder_that_is_no_run_is_refused_by_every_command(call: Call, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "precious.txt").write_text("kept")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    name, *rest = words
    for folder, message in (("gone", "no run folder"), ("foreign", "not a run folder"), ("damaged", "damaged")):
        assert message in refused(call(name, folder, *rest))
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["precious.txt"]


WORLDS = {
    "no rows": [],
    "only quarantined rows": [{"instruction": "a", "output": None}, {"instruction": "b", "output": ""}],
    "only dropped rows": [{"instruction": "a", "output": "..."}, {"instruction": "b", "output": "!!"}],
    "one row": [{"instruction": "what is a?", "output": "A letter."}],
}


@pytest.mark.parametrize("name", WORLDS)
def test_hardly_any_rows_go_through_all_stages(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(
        stage, "length_counter", lambda model, revision: length_counter(None)
    )  # words: no tokenizer to load
    write_source(WORLDS[name], tmp_path / "s.jsonl")
    done = call("curate", write_recipe(tmp_path, "s.jsonl", balance={}, contamination={"references": []}))
    usable = name in ("only dropped rows", "one row")
    assert done.exit_code == (0 if usable else 2), done.output
    assert f" of {len(WORLDS[name])} rows kept" in (tmp_path / "run" / "report.html").read_text()
    for words in (["what-if", "run", "near=0.6"], ["diff", "run", "run"]):
        assert call(*words).exit_code == 0, words
    assert call("inspect", "s.jsonl").exit_code == (0 if usable else 2)
    if WORLDS[name]:
        assert call("explain", "run", "s:0").exit_code == 0


def test_no_rows_with_splits_hold_nothing_out(call: Call, tmp_path: Path) -> None:
    write_source([], tmp_path / "s.jsonl")
    done = call("curate", write_recipe(tmp_path, "s.jsonl", splits={}))
    assert done.exit_code == 2
    assert "s.jsonl: there are no rows." in done.stderr


def test_data_without_rows_leave_no_run_behind(call: Call, tmp_path: Path) -> None:
    write_source([], tmp_path / "s.jsonl")
    done = call("curate", "s.jsonl")
    assert done.exit_code == 2
    assert done.stderr == "siftune: s.jsonl: there are no rows.\n"
    assert "rows kept" not in done.stdout
    write_source(many(3), tmp_path / "s.jsonl")
    assert call("curate", "s.jsonl").exit_code == 0


def test_a_run_folder_that_cannot_be_made_is_refused(call: Call, tmp_path: Path) -> None:
    write_source(many(3), tmp_path / "s.jsonl")
    done = call("curate", "s.jsonl", "--run", "/proc/nothing")
    assert done.exit_code == 2
    assert done.stderr.startswith("siftune: The run folder /proc/nothing cannot be made: ")


def test_what_if_counts_rows_that_only_a_guard_keeps(call: Call, tmp_path: Path) -> None:
    text = "How many of the {} apples that lie in the basket beside the door are still green after one week?"
    rows = [{"instruction": text.format(count), "output": "About half of them are."} for count in (20, 30)]
    write_source(rows, tmp_path / "s.jsonl")
    assert call("curate", write_recipe(tmp_path, "s.jsonl", duplicates={"near": {"threshold": 0.95}})).exit_code == 0
    shown = call("what-if", "run", "near=0.5").stdout
    line = next(line for line in shown.splitlines() if line.startswith("near "))
    assert line.split() == ["near", "0", "0", "1"]
    assert "Nothing would change: every row keeps the fate that it has in the run." in shown
    assert "Guarded rows stay" in shown
    assert "near: the answers must be alike as well" in shown


def test_what_is_decided_by_hand_is_told_before_and_after_the_next_curation(call: Call, tmp_path: Path) -> None:
    write_source([*many(3), many(1)[0]], tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl")
    assert "By hand" not in call("curate", recipe).stdout
    write_override(RunFolder.open(tmp_path / "run"), Override("s:3", "restore", "a twin that I want"))
    sentence = "By hand: keep it (a twin that I want). `siftune curate` obeys it the next time."
    assert sentence in " ".join(call("explain", "run", "s:3").stdout.split())
    assert "By hand: 1 kept." in call("curate", recipe).stdout
    assert sentence not in " ".join(call("explain", "run", "s:3").stdout.split())


def test_the_threshold_to_try_is_that_of_the_next_stored_pair(call: Call, run: Path, tmp_path: Path) -> None:
    shown = call("curate", run.parent / "tiny.yaml").stdout
    tried = next(line.split() for line in shown.splitlines() if " what-if " in line)
    near = RunFolder.open(run).recipe.duplicates.near
    assert near is not None
    scores = pl.read_parquet(RunFolder.open(run).file("near"))["score"]
    threshold = float(tried[-1].removeprefix("near="))
    assert near.floor <= threshold < near.threshold
    assert scores.filter((scores >= threshold) & (scores < near.threshold)).len() > 0


def test_a_broken_line_costs_one_row_and_is_named(call: Call, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in many(3)]
    (tmp_path / "s.jsonl").write_text("\n".join([lines[0], '{"instruction": "broken', *lines[1:]]) + "\n")
    done = call("curate", write_recipe(tmp_path, "s.jsonl"))
    assert done.exit_code == 0
    assert "quarantine.jsonl: 1 bad json" in " ".join(done.stdout.split())
    (lost,) = map(json.loads, (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines())
    assert (lost["file"], lost["row"]) == ("s.jsonl", 1)


def test_a_folder_that_is_being_written_is_left_alone(call: Call, tmp_path: Path, run: Path) -> None:
    with (run / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "Another process is writing" in refused(call("curate", run.parent / "tiny.yaml"))


def test_what_is_shown_steers_no_terminal(call: Call, run: Path) -> None:
    for words in (["explain", run, "s:40"], ["inspect", run.parent / "s.jsonl"]):
        done = call(*words)
        assert done.exit_code == 0
        assert "⟨U+001B⟩" in done.stdout
        assert "⟨U+202E⟩" in done.stdout
        assert not set(done.stdout) & {"\x1b", "\u202e"}


def test_curate_shows_the_funnel_and_removals_beside_their_witnesses(call: Call, run: Path) -> None:
    done = call("curate", run.parent / "tiny.yaml")
    assert done.exit_code == 0
    for word in (
        "rows in",
        "near",
        "cached",
        "rows kept",
        "removed: s:",
        "kept: s:",
        "[changed]",
        "report.html",
    ):
        assert word in done.stdout, word
    assert done.stderr == ""


def test_curate_counts_the_rows_that_match_each_benchmark(call: Call, tmp_path: Path) -> None:
    write_source(many(40), tmp_path / "s.jsonl")
    items = [{"question": row["instruction"], "answer": row["output"]} for row in many(3)]
    write_source(items, tmp_path / "bench.jsonl")
    write_source([{"question": "Which planet has the largest rings?", "answer": "Saturn"}], tmp_path / "other.jsonl")
    shown = {}
    for name in ("bench", "other"):
        sections = {"contamination": {"references": [{"path": f"{name}.jsonl"}], "rules": ["tulu3-8gram"]}}
        shown[name] = call("curate", write_recipe(tmp_path, "s.jsonl", run=name, **sections)).stdout
    rows = RunFolder.open(tmp_path / "bench").matches()["id"].n_unique()
    line = next(line for line in shown["bench"].splitlines() if line.startswith("bench "))
    assert line.split()[1:] == [str(rows), "0", *["no", "row", "in", "other", "words"]]
    assert "No row matches an item of the benchmarks." in shown["other"]


def test_curate_notes_a_search_that_may_miss_pairs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder.open(shutil.copytree(run, tmp_path / "copy"))
    manifest = folder.manifest
    manifest.notes = {"semantic": {"search": "faiss IVF64, nprobe 8", "recall": "0.9931", "sampled": "2000"}}
    manifest.write(folder.manifest_path)
    Console(width=500).print(curation_report(folder))
    assert f"Note: {warnings(folder)[-1]}" in capsys.readouterr().out


def test_machines_get_json_and_nothing_else(call: Call, run: Path) -> None:
    def document(*words: str | Path) -> object:
        done = call(*words, "--json")
        assert done.exit_code == 0
        return json.loads(done.stdout)

    assert document("inspect", run.parent / "s.jsonl")["source"]["rows"] == 41
    assert document("curate", run.parent / "tiny.yaml")["counts"]["input"] == 41
    assert document("explain", run, "s:0")["row"]["id"] == "s:0"
    assert {"left", "unmeasured", "dropped"} == set(document("what-if", run, "near=0.6"))
    assert document("diff", run, run) == []


def test_a_new_recipe_is_a_recipe(call: Call, tmp_path: Path) -> None:
    write_source(many(6), tmp_path / "data.jsonl")
    (tmp_path / "new.yaml").write_text(call("recipe", "new").stdout.replace("encoder: auto", "encoder: null"))
    done = call("curate", "new.yaml")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("group", [[], ["recipe"]], ids=["siftune", "siftune recipe"])
def test_help_lists_every_command_with_a_whole_sentence_in_80_columns(group: list[str]) -> None:
    listing = CliRunner().invoke(main, [*group, "--help"], terminal_width=80).output.split("Commands:\n")[1]
    for line in listing.splitlines():
        assert len(line) <= 80
        assert line.endswith("."), line
        assert not line.endswith(("…", "..."))


def test_exit_codes_of_the_real_command(tmp_path: Path) -> None:
    def siftune(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "siftune", *words]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert siftune("--help").returncode == 0
    wrong = siftune("curate", "missing.yaml")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    unknown = siftune("curat", "x")
    assert unknown.returncode == 2
    assert "No such command" in unknown.stderr
