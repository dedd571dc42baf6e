"""What a filter shows as a file: every row, whatever its text, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.review.annotations import Annotation
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.row_export import EXPORTED, export_rows, without_formulas
from siftune.curation.run.folder import RunFolder

NOTES = {"alpha:1": Annotation(("a", "check again"), "=HYPERLINK(1)"), "gamma:0": Annotation((), 'a\n"b",c')}


@pytest.fixture(scope="module")
def catalogue(plain_world: Path) -> Catalogue:
    return Catalogue.load(RunFolder.open(plain_world))


def exported(catalogue: Catalogue, positions: np.ndarray, path: Path) -> Path:
    file_format = path.suffix.removeprefix(".")
    export_rows(catalogue, positions, path, file_format=file_format, annotations=NOTES)  # type: ignore[arg-type]
    return path


def expected_rows(catalogue: Catalogue, positions: np.ndarray) -> list[dict]:
    """The rows by the plain way: one after the other."""
    rows = []
    examples = catalogue.examples(sorted(positions.tolist()))
    for position in sorted(positions.tolist()):
        row, example = catalogue.frame.row(position, named=True), examples.get(position, {})
        given_ = NOTES.get(row["id"], Annotation())
        own = {name: row[name] for name in ("id", "source", "fate", "stage", "reason", "split")}
        texts = {"messages": example.get("messages"), "meta": example.get("meta")}
        rows.append({**own, "tags": list(given_.tags), "note": given_.note or None, **texts})
    return rows


@pytest.mark.parametrize("query", [Query(), Query(fate=("quarantined",)), Query(order="answer_words"), Query(group=-1)])
def test_parquet_and_json_lines_hold_every_row_in_the_order_of_the_run(
    catalogue: Catalogue, tmp_path: Path, query: Query
) -> None:
    positions = catalogue.find(query)
    rows = expected_rows(catalogue, positions)
    frame = pl.read_parquet(exported(catalogue, positions, tmp_path / "rows.parquet"))
    assert frame.schema == EXPORTED
    assert frame.to_dicts() == rows
    lines = exported(catalogue, positions, tmp_path / "rows.jsonl").read_text().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == rows


def test_csv_reads_back_and_no_cell_is_a_formula(catalogue: Catalogue, tmp_path: Path) -> None:
    positions = catalogue.find(Query())
    csv.field_size_limit(10_000_000)
    with exported(catalogue, positions, tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    rows = expected_rows(catalogue, positions)
    assert [row["id"] for row in cells] == [row["id"] for row in rows]
    assert not [cell for row in cells for cell in row.values() if cell[:1] in tuple("=+-@\t\r\n")]
    noted = {row["id"]: row for row in cells if row["note"]}
    assert noted["alpha:1"]["note"] == "'=HYPERLINK(1)"
    assert noted["alpha:1"]["tags"] == "a; check again"
    assert noted["gamma:0"]["note"] == NOTES["gamma:0"].note
    for row, cell in zip(rows, cells, strict=True):
        assert (json.loads(cell["messages"]) if cell["messages"] else None) == row["messages"]
        answers = [turn["content"] for turn in row["messages"] or [] if turn["role"] == "assistant"]
        assert cell["answer"].removeprefix("'") == "\n".join(answers).removeprefix("'")


@given(st.text(alphabet=st.sampled_from("=+-@\t\r\n＝＋－＠ab'"), max_size=6))
def test_a_guarded_cell_begins_with_nothing_that_a_spreadsheet_runs(text: str) -> None:
    (cell,) = without_formulas(pl.DataFrame({"cell": [text]}))["cell"]
    assert cell in (text, f"'{text}")
    assert not cell.startswith(tuple("=+-@\t\r\n＝＋－＠"))
