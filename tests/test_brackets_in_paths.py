"""Folders with brackets in their names: polars takes a path for a glob unless it is told not to."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from siftune.curation.pipeline import curate

ROOT = Path(__file__).parents[1]
FILES = [path for room in ("curation", "training", "app", "data") for path in sorted((ROOT / room).rglob("*.py"))]


def _readers(path: Path) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) in ("pl.read_parquet", "pl.scan_parquet")]


def test_no_path_of_a_run_is_read_as_a_glob() -> None:
    assert not [path for path in FILES if "pl.read_parquet_schema" in path.read_text("utf-8")], "it takes no glob=False"
    calls = [(path, call) for path in FILES for call in _readers(path)]
    assert len(calls) > 20
    globs = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in calls
        if not any(keyword.arg == "glob" and ast.unparse(keyword.value) == "False" for keyword in call.keywords)
    ]
    assert not globs, f"write glob=False: {globs}"


@pytest.mark.parametrize("name", ["data [v1]", "a*b?"])
def test_a_run_beside_its_data_in_such_a_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    rows = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": "q"}]))
    (folder / "recipe.yaml").write_text("sources: [{path: .}]\nencoder: null\n")
    counts = [curate(folder / "recipe.yaml").manifest.finished_counts() for _ in range(2)]
    assert [count.input for count in counts] == [5, 5]
