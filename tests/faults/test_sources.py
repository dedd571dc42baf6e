"""Sources that change before, between and during runs, and damaged ones: nothing stale is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from tests.faults.world import curated_or_refused, damage, result, write_world
from tests.worlds import many

Same = Callable[[Path], None]


def edit(source: Path) -> None:
    """Another answer of the same length, as if it had been written years ago: size and time say nothing."""
    content = source.read_text(encoding="utf-8")
    word = many(1)[0]["output"].split()[0]
    source.write_text(content.replace(word, word[::-1], 1), encoding="utf-8")
    os.utime(source, (1, 1))


@pytest.mark.parametrize("name", ["s.jsonl", "reference.jsonl"])
def test_a_source_that_changes_between_runs_is_read_again(world: Path, tmp_path: Path, name: str) -> None:
    if name == "s.jsonl":
        edit(world / name)
    else:
        (world / name).write_text((world / "s.jsonl").read_text().split("\n")[20] + "\n")
        os.utime(world / name, (1, 1))
    curate(world / "tiny.yaml")
    fresh = tmp_path / "fresh"
    recipe = write_world(fresh, encoder="bag")
    for file in ("s.jsonl", "reference.jsonl"):
        (fresh / file).write_bytes((world / file).read_bytes())
    curate(recipe)
    expected, found = result(fresh / "run"), result(world / "run")
    assert {file: found[file] for file in expected} == expected  # the first source's measures may stay beside these


def test_a_source_that_changes_while_it_is_read_is_refused(world: Path, same: Same) -> None:
    source = world / "s.jsonl"
    intact = source.read_bytes()
    edit(source)
    changed = source.read_bytes()

    def change(label: str, done: int, total: int) -> None:
        if label.startswith("reading"):
            source.write_bytes(intact)

    with pytest.raises(UserError, match="changed while it was read"):
        curate(world / "tiny.yaml", progress=change)
    assert source.read_bytes() != changed
    curate(world / "tiny.yaml")
    same(world / "run")


def test_a_clock_that_goes_backwards_changes_nothing(world: Path, same: Same, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for path in world.rglob("*"):
        os.utime(path, (now + 10**8, now + 10**8))
    seconds = iter(range(10**9, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
    for path in (world / "run" / "measures").glob("near-*"):
        path.unlink()
    curate(world / "tiny.yaml")
    same(world / "run")


def test_a_truncated_or_damaged_parquet_source_is_one_sentence(tmp_path: Path) -> None:
    table = tmp_path / "s.parquet"
    pl.DataFrame(many(300)).write_parquet(table)
    whole = table.read_bytes()
    recipe = write_world(tmp_path, duplicates={}, contamination=None, splits=None, balance=None, training=None)
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("s.jsonl", "s.parquet"), encoding="utf-8")
    for length in (0, 3, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        table.write_bytes(whole[:length])
        fault = curated_or_refused(recipe)
        assert fault is not None, length
        assert "s.parquet" in str(fault)
    refused = 0
    for seed in range(12):
        table.write_bytes(whole)
        damage(table, seed=seed)
        refused += curated_or_refused(recipe) is not None
    assert refused
