"""The laws of the design, on generated data, for every stage that the recipe lists."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from curation import corpus
from curation.pipeline import curate
from curation.runfolder import RunFolder
from tests.worlds import jaccard, kept_rows, many, rows, write_recipe, write_source

DEDUPLICATING = ("exact", "near", "answers", "conflicts")
#: A whole run for each example: few of them, and none spent on making a failure smaller.
LAW = settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
SPLIT = {"splits": {"test": 5, "near": 0.6}, "keys": {"leaks": "prompt"}}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A new folder for each generated example."""
    return lambda: tmp_path_factory.mktemp("law")


def texts(run: RunFolder) -> dict[str, tuple[str, str]]:
    frame = pl.read_parquet(run.texts)
    return {row["id"]: (row["prompt"], row["answer"]) for row in frame.iter_rows(named=True)}


@LAW
@given(data=rows())
def test_conservation_every_row_has_one_fate(folder: Any, data: list[dict[str, Any]]) -> None:
    here = folder()
    write_source(data, here / "s.jsonl")
    run = curate(write_recipe(here, "s.jsonl"))
    fates = run.rows()
    assert sorted(fates["id"]) == sorted(f"s:{row}" for row in range(len(data)))
    lost = {f"s:{row}" for row, each in enumerate(data) if each["output"] is None}
    assert set(fates.filter(pl.col("fate") == "quarantined")["id"]) == lost
    assert (
        pl.read_parquet(run.path / "curated" / "train.parquet")["id"].to_list()
        == fates.filter(fate="kept")["id"].to_list()
    )
    for before, after in zip(run.manifest["stages"], run.manifest["stages"][1:], strict=False):
        assert before["kept"] == after["rows"] or after["stage"] == "write"


@LAW
@given(data=rows())
def test_witness_every_duplicate_names_a_kept_row_that_is_similar_enough(
    folder: Any, data: list[dict[str, Any]]
) -> None:
    here = folder()
    write_source(data, here / "s.jsonl")
    run = curate(write_recipe(here, "s.jsonl"))
    spoken = texts(run)
    ledger = run.ledger()
    for stage in DEDUPLICATING:
        drops = ledger.filter(pl.col("stage") == stage, pl.col("action") == "drop")
        gone = set(
            ledger.filter(pl.col("action") == "drop", pl.col("step") <= drops["step"].max() if drops.height else False)[
                "id"
            ]
        )
        for drop in drops.iter_rows(named=True):
            assert drop["witness"] not in gone
            assert drop["score"] >= drop["threshold"]
            assert drop["score"] == pytest.approx(
                similarity(stage, spoken[drop["id"]], spoken[drop["witness"]]), abs=1e-12
            )


def similarity(stage: str, one: tuple[str, str], two: tuple[str, str]) -> float:
    if stage == "near":
        return jaccard("\n".join(one), "\n".join(two), 2)
    if stage == "answers":
        return jaccard(one[1], two[1], 2)
    a, b = ("\n".join(each).split() if stage == "exact" else each[0].split() for each in (one, two))
    return float(a == b)


@LAW
@given(data=rows())
def test_idempotence_nothing_is_dropped_from_what_was_kept(folder: Any, data: list[dict[str, Any]]) -> None:
    here = folder()
    write_source(data, here / "s.jsonl")
    once = curate(write_recipe(here, "s.jsonl"))
    write_source(kept_rows(once.path), here / "again" / "s.jsonl")
    again = curate(write_recipe(here / "again", "s.jsonl"))
    assert again.ledger().filter(pl.col("action") == "drop").height == 0


@LAW
@given(data=rows(), size=st.integers(1, 7))
def test_determinism_batches_do_not_matter(folder: Any, data: list[dict[str, Any]], size: int) -> None:
    here = folder()
    write_source(data, here / "s.jsonl")
    whole = curate(write_recipe(here, "s.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "BATCH", size)
        cut = curate(write_recipe(here, "s.jsonl", run="cut"))
    for file in ("ledger.parquet", "rows.parquet"):
        assert (whole.path / file).read_bytes() == (cut.path / file).read_bytes()


def test_determinism_threads_do_not_matter(tmp_path: Path) -> None:
    data = many(400)
    write_source(data, tmp_path / "s.jsonl")
    ledgers = []
    for threads in ("1", "2"):
        recipe = write_recipe(tmp_path, "s.jsonl", run=f"run{threads}", **SPLIT)
        environment = os.environ | {
            "NUMBA_NUM_THREADS": threads,
            "POLARS_MAX_THREADS": threads,
            "PYTHONHASHSEED": threads,
        }
        subprocess.run(
            [sys.executable, "-m", "app", "curate", str(recipe)], check=True, env=environment, capture_output=True
        )
        ledgers.append((tmp_path / f"run{threads}" / "ledger.parquet").read_bytes())
    assert ledgers[0] == ledgers[1]


@LAW
@given(data=rows(most=40))
def test_no_leak_no_pair_across_splits_reaches_the_threshold(folder: Any, data: list[dict[str, Any]]) -> None:
    here = folder()
    write_source(data, here / "s.jsonl")
    if len({row["instruction"] for row in data if row["output"]}) < 12:
        return
    run = curate(
        write_recipe(here, "s.jsonl", splits={"test": 1, "near": 0.6}, keys={"leaks": "prompt", "template_rows": 1000})
    )
    held = pl.read_parquet(run.path / "heldout" / "test.parquet")
    trained = pl.concat(
        [pl.read_parquet(path).select("id") for path in sorted((run.path / "arms").glob("*.parquet"))]
    ).unique()
    spoken = texts(run)
    assert held.height == 1
    assert run.manifest["certificate"]["passed"]
    for one in held["id"]:
        for other in trained["id"]:
            assert jaccard(spoken[one][0], spoken[other][0], 2) < 0.6


@pytest.mark.slow
def test_resume_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    data = many(20_000)
    write_source(data, tmp_path / "s.jsonl")
    whole = curate(write_recipe(tmp_path, "s.jsonl", run="whole", **SPLIT))
    killed = 0
    for moment in range(1, 11):
        recipe = write_recipe(tmp_path, "s.jsonl", run=f"killed{moment}", **SPLIT)
        command = [sys.executable, "-m", "app", "curate", str(recipe)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(0.4 * moment)
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
        subprocess.run(command, check=True, capture_output=True)
        for file in ("ledger.parquet", "rows.parquet"):
            assert (tmp_path / f"killed{moment}" / file).read_bytes() == (whole.path / file).read_bytes()
    assert killed >= 3, "the machine was too fast to be killed in the middle; use more rows"
