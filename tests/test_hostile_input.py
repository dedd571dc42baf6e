"""Hostile files, rows, recipes and archives: every row is read or quarantined, every refusal says why."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from siftune.app.cli.commands import main
from siftune.curation.errors import UserError
from siftune.curation.formats.faults import REASONS
from siftune.curation.ingest import decompression
from siftune.curation.ingest.sources import read_sources
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import Source
from tests.hostile_files import RECIPES, TEXTS, Case, bomb, cases, rows_with
from tests.worlds import write_recipe, write_source


def rows_read(case: Case, out: Path) -> int | None:
    """Rows read and quarantined; None when the file was refused."""
    examples, faults = out / "out.parquet", out / "faults.jsonl"
    try:
        report = read_sources([Source(path=str(case.path))], base=out, out=examples, quarantine=faults)
    except UserError:
        assert not examples.exists(), case
        return None
    quarantine = [json.loads(line) for line in faults.read_bytes().split(b"\n") if line]
    frame = pl.read_parquet(examples)
    assert all(line["reason"] in REASONS for line in quarantine), case
    assert report.rows == frame.height + len(quarantine), case
    positions = sorted(
        int(row_id.rpartition(":")[2]) for row_id in [*frame["id"], *(line["id"] for line in quarantine)]
    )
    assert positions == list(range(report.rows)), case
    examples.unlink()
    faults.unlink()
    return report.rows


def test_every_row_of_every_hostile_file_is_read_or_quarantined(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "out").mkdir()
    tried, refused, rows = 0, 0, 0
    wrong = []
    for case in cases(tmp_path / "files"):
        read = rows_read(case, tmp_path / "out")
        tried += 1
        refused += read is None
        rows += read or 0
        if case.rows is not None and read != case.rows:
            wrong.append((case.name, case.rows, read))
    sys.stdout.write(f"\n{tried} hostile files, {refused} refused, {rows} rows accounted for\n")
    assert wrong == []
    assert tried > 500


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("name", ["s.jsonl", "s.parquet"])
def test_a_bomb_stops_at_the_stated_limit(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "LEAST_REFUSED", 1 << 24)
    path = tmp_path / f"{name}.{kind}"
    path.write_bytes(bomb(kind, inflated=1 << 25))
    with pytest.raises(UserError, match="grows to more than 500 times its size"):
        read_sources([Source(path=path.name)], base=tmp_path, out=tmp_path / "o.parquet", quarantine=tmp_path / "q")
    assert not (tmp_path / "o.parquet").exists()


def test_a_file_that_compresses_well_is_read(tmp_path: Path) -> None:
    rows = [{"instruction": "q", "output": "the same answer"}] * 20_000
    write_source(rows, tmp_path / "s.jsonl")
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress((tmp_path / "s.jsonl").read_bytes()))
    report = read_sources([Source(path="s.jsonl.gz")], base=tmp_path, out=tmp_path / "o", quarantine=tmp_path / "q")
    assert report.examples == 20_000


def test_hostile_recipes_are_refused_in_a_message(tmp_path: Path) -> None:
    refused = 0
    for recipe in RECIPES:
        path = tmp_path / "r.yaml"
        path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode(errors="surrogatepass"))
        done = CliRunner().invoke(main, ["curate", str(path)])
        assert done.exit_code == 2, (recipe[:80], done.exit_code, done.exception)
        assert done.output.startswith("siftune: "), recipe[:80]
        assert len(done.output) < 20_000, recipe[:80]
        refused += 1
    sys.stdout.write(f"\n{refused} hostile recipes refused\n")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["r.yaml"]


def test_a_whole_run_over_hostile_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through every stage without an encoder, the report, and the commands that show rows."""
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, f"secret-{name}")
    rows = [row for text in TEXTS.values() for row in rows_with(text[:3_000])]
    write_source(rows, tmp_path / "s.jsonl")
    settings = {"near": {}, "answers": {}, "conflicts": "report"}
    recipe = write_recipe(tmp_path, "s.jsonl", duplicates=settings, splits={"test": 4}, balance={})
    done = CliRunner().invoke(main, ["curate", str(recipe)])
    assert done.exit_code == 0, done.output
    counts = curate(recipe).manifest.finished_counts()
    assert counts.input == len(rows) == counts.kept + counts.dropped + counts.quarantined
    for row in range(0, len(rows), 31):
        told = CliRunner().invoke(main, ["explain", str(tmp_path / "run"), f"s:{row}"])
        assert told.exit_code == 0, (rows[row], told.exception)
        assert "\x1b[2J" not in told.output
    printed = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in printed
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file() and b"secret-" in path.read_bytes()]
