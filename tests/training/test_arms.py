"""Which arms are trained: those of the recipe, but for an arm by stage that would only repeat curated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import ArmRecord, RowCounts
from siftune.training import arms
from tests.training.worlds import write_tiny_run

BY_STAGE = [{"name": "no-checks", "without": ["checks"]}, {"name": "no-near", "without": ["near"]}]


def record(rows: int, *left_out: str, same_as: tuple[str, ...] = ()) -> ArmRecord:
    counts = {"rows": rows, "kept": rows, "prompt_words": 0, "answer_words": 0}
    return ArmRecord(**counts, same_as=list(same_as), left_out=list(left_out))


def run_with_stages(folder: Path, model: Path, *names: str, **training: Any) -> RunFolder:
    """A run whose arm no-checks holds the same rows as curated."""
    run = RunFolder(write_tiny_run(folder, model=model, arms=[*names, *BY_STAGE], **training))
    curated = pl.read_parquet(run.arm("curated"))
    curated.write_parquet(run.arm("no-checks"))
    pl.concat([curated, pl.read_parquet(run.arm("raw"))[1:2]]).write_parquet(run.arm("no-near"))
    records = {
        "curated": record(12, same_as=("no-checks",)),
        "no-checks": record(12, "checks", same_as=("curated",)),
        "no-near": record(13, "near"),
    }
    manifest = run.manifest
    manifest.counts = RowCounts(
        input=24, kept=12, dropped=12, quarantined=0, train=12, test=9, validation=0, arms=records
    )
    manifest.write(run.manifest_path)
    return RunFolder(folder)


def test_an_arm_by_stage_with_the_rows_of_curated_is_not_trained(tmp_path: Path, tiny_model: Path) -> None:
    run = run_with_stages(tmp_path / "run", tiny_model, "raw", "curated")
    assert [job.arm for job in arms.plan_jobs(run, seeds=[0])] == ["raw", "curated", "no-near"]
    # Asked for by name it is trained, but not beside curated.
    assert [job.arm for job in arms.plan_jobs(run, arms=["no-checks"], seeds=[0])] == ["no-checks"]
    with pytest.raises(UserError, match="'curated' and 'no-checks' hold the same rows"):
        arms.plan_jobs(run, arms=["curated", "no-checks"])


def test_of_two_arms_by_stage_with_the_same_rows_one_is_trained(tmp_path: Path, tiny_model: Path) -> None:
    run = run_with_stages(tmp_path / "run", tiny_model, "raw", "curated")
    manifest = run.manifest
    assert manifest.counts is not None
    manifest.counts.arms["no-near"].same_as = ["raw"]
    manifest.write(run.manifest_path)
    assert [job.arm for job in arms.plan_jobs(run, seeds=[0])] == ["raw", "curated"]


def test_it_is_trained_where_curated_is_not(tmp_path: Path, tiny_model: Path) -> None:
    run = run_with_stages(tmp_path / "run", tiny_model, "raw")
    assert [job.arm for job in arms.plan_jobs(run, seeds=[0])] == ["raw", "no-checks", "no-near"]


def test_controls_of_arms_of_one_size_are_trained_once(tmp_path: Path, tiny_model: Path) -> None:
    select = {"by": "score", "column": "stars", "rows": 6}
    named = [{"name": name, "select": select, "controls": ["random"]} for name in ("best", "other")]
    run = RunFolder(write_tiny_run(tmp_path / "run", model=tiny_model, arms=["curated", *named]))
    raw = pl.read_parquet(run.arm("raw"))
    for name, rows in (("best", raw[:6]), ("other", raw[2:8]), ("best-random", raw[4:10]), ("other-random", raw[4:10])):
        rows.write_parquet(run.arm(name))
    records = {name: record(6) for name in ("best", "other", "best-random", "other-random")}
    for name, twin in (("best-random", "other-random"), ("other-random", "best-random")):
        records[name] = record(6, same_as=(twin,)).model_copy(update={"selection": "drawn from the curated rows"})
    manifest = run.manifest
    manifest.counts = RowCounts(
        input=24, kept=12, dropped=12, quarantined=0, train=12, test=9, validation=0, arms=records
    )
    manifest.write(run.manifest_path)
    trained = [job.arm for job in arms.plan_jobs(RunFolder(run.path), seeds=[0])]
    assert trained == ["curated", "best", "best-random", "other"]


@pytest.mark.slow
def test_arms_that_train_on_the_same_rows_are_named(tmp_path: Path, tiny_model: Path) -> None:
    """One step of one row: the rows come in one order for both arms, and they share the first one."""
    run = run_with_stages(tmp_path / "run", tiny_model, "curated", budget={"steps": 1}, batch_rows=1, micro_rows=1)
    notes: list[str] = []
    results = arms.train(run, arms=["curated", "no-near"], seeds=[0, 1], warn=notes.append)
    equal = [one.adapter_hash == two.adapter_hash for one, two in zip(results[::2], results[1::2], strict=True)]
    expected = [f"curated and no-near have the same adapter with seed {seed}" for seed in (0, 1) if equal[seed]]
    assert any(equal)
    assert [note.partition(":")[0] for note in notes if "same adapter" in note] == expected
