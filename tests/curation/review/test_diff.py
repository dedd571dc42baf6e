"""Two runs of the same rows: which changed fate."""

from __future__ import annotations

from pathlib import Path

import pytest

from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review.diff import diff, summary
from tests.worlds import many, write_recipe, write_source


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff")
    write_source(many(60), folder / "s.jsonl")
    return folder


def test_rows_that_changed_fate_are_those_of_the_two_ledgers(world: Path) -> None:
    strict = curate(write_recipe(world, "s.jsonl", run="strict"))
    loose = curate(write_recipe(world, "s.jsonl", run="loose", duplicates={"near": None, "answers": None}))
    changed = diff(strict, loose)
    gone = {run.path.name: set(run.rows().filter(fate="dropped")["id"]) for run in (strict, loose)}
    assert set(changed["id"]) == gone["strict"] ^ gone["loose"]
    assert set(changed["id"]), "the two runs do not differ"
    assert set(changed.rows_by_key("id", named=True, unique=True)) == set(changed["id"])
    assert summary(changed)["rows"].sum() == changed.height
    assert diff(strict, strict).is_empty()
    backwards = diff(loose, strict)
    assert set(backwards["id"]) == set(changed["id"])
    assert backwards.sort("id")["fate"].to_list() == changed.sort("id")["fate_after"].to_list()


def test_a_row_that_one_run_has_not_is_absent(world: Path) -> None:
    whole = curate(write_recipe(world, "s.jsonl", run="whole"))
    source = {"path": "s.jsonl", "name": "s", "format": "alpaca", "limit": 50}
    less = curate(write_recipe(world, "s.jsonl", run="less", sources=[source]))
    changed = diff(whole, less).filter(fate_after="absent")
    assert set(changed["id"]) == {f"s:{row}" for row in range(50, 60)}
    assert set(changed["source"]) == {"s"}


def test_runs_of_different_sources_are_refused(world: Path) -> None:
    first_run = curate(write_recipe(world, "s.jsonl", run="one"))
    second_run = curate(
        write_recipe(world, "s.jsonl", run="other", sources=[{"path": "s.jsonl", "name": "t", "format": "alpaca"}])
    )
    with pytest.raises(UserError, match="share no row id"):
        diff(first_run, second_run)
