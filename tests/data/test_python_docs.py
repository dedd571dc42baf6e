"""The embedded default: built the same in every process, rebuilt only when versions change, never by accident."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import load_recipe
from siftune.data import python_docs, python_objects, rows

ROOT = Path(__file__).parents[2]


def command(*arguments: str, seed: str = "0", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "siftune.data.python_docs", *arguments],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def hostile_folder(path: Path) -> Path:
    """A user's folder with modules of the same names as ours, the standard library's and the libraries'."""
    for name in ("json.py", "datasets.py", "training.py", "app.py", "questions.py", "data/__init__.py"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(f"raise SystemExit('{name} of the present folder was imported')\n", encoding="utf-8")
    return path


def test_modules_of_the_present_folder_are_not_imported(tmp_path: Path) -> None:
    result = command(folder=hostile_folder(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("Arguments found: none. Usage:")


def test_one_package_walked_twice_is_the_same_and_holds_what_users_call() -> None:
    first, second = python_objects.walk("click"), python_objects.walk("click")
    assert first == second
    paths = [item.path for item in first]
    assert paths == sorted(set(paths))
    assert {"click", "click.echo", "click.Option", "click.Context.invoke"} <= set(paths)
    assert not any(part.startswith("_") for path in paths for part in path.split("."))


def test_inherited_docstrings_are_met_once_for_each_class() -> None:
    doc = "Exception.add_note(note) -- add a note"
    notes = [item for item in python_objects.walk("click") if item.path.endswith(".add_note")]
    assert len(notes) > 5
    assert all(item.doc.startswith(doc[:18]) for item in notes)


class Shelf:
    """Holds <object at 0x7f1234567890> books of many kinds."""

    def label(self) -> None:
        """Written at /nowhere."""


def test_texts_of_this_run_or_this_home_are_left_out() -> None:
    assert [item.path for item in python_objects.documented_members("t", "t.Shelf", Shelf)] == ["t.Shelf.label"]
    Shelf.label.__doc__ = f"Written at {Path.home()}/cache."
    assert list(python_objects.documented_members("t", "t.Shelf", Shelf)) == []


@pytest.mark.parametrize("arguments", [(), ("a.jsonl", "b.jsonl"), ("--help",), ("out.csv",)])
def test_a_bad_argument_costs_one_line_and_exit_code_two(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert python_docs.main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Usage: python -m siftune.data.python_docs OUT.jsonl" in said.err


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        python_docs.build(tmp_path / "file" / "out.jsonl")


class TwoRows:
    """Writes two rows in place of the whole documentation, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, out: Path) -> None:
        self.calls += 1
        out.write_text('{"output": "a"}\n{"output": "a"}\n', encoding="utf-8")


def test_a_second_call_does_nothing(tmp_path: Path) -> None:
    out, write = tmp_path / "deep" / "docs.jsonl", TwoRows()
    first, second = python_docs.build(out, write=write), python_docs.build(out, write=write)
    assert (first.fresh, second.fresh, write.calls) == (True, False, 1)
    assert (second.rows, second.answers, second.versions) == (2, 1, first.versions)


def test_another_version_or_a_damaged_file_or_sidecar_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "docs.jsonl", TwoRows()
    python_docs.build(out, write=write)
    out.write_text("cut", encoding="utf-8")
    assert python_docs.build(out, write=write).rows == 2
    sidecar = tmp_path / "docs.jsonl.json"
    for damage in ("", "[]", "{}", '{"key":'):
        sidecar.write_text(damage, encoding="utf-8")
        assert python_docs.build(out, write=write).fresh
    monkeypatch.setattr(python_docs, "versions", lambda: {"python": "4.0"})
    assert python_docs.build(out, write=write).fresh
    assert not python_docs.build(out, write=write).fresh


def test_every_package_has_a_weight_and_a_version() -> None:
    assert set(rows.WEIGHTS) == {"python", *python_objects.PACKAGES}
    assert list(python_objects.PACKAGES) == sorted(python_objects.PACKAGES)
    assert {"python", "numpy", "polars"} <= set(python_docs.versions())


@pytest.mark.parametrize("path", sorted([ROOT / "data" / "demo.yaml", *(ROOT / "data" / "recipes").glob("*.yaml")]))
def test_shipped_recipes_are_accepted(path: Path) -> None:
    found = load_recipe(path)
    assert found.name == path.stem
    local = [source.path for source in found.sources if not source.path.startswith("hf://")]
    assert all(not Path(source).is_absolute() for source in local)


def test_the_demo_reads_what_the_builder_writes_and_git_ignores() -> None:
    found = load_recipe(ROOT / "data" / "demo.yaml")
    assert [source.path for source in found.sources] == ["built/python_docs.jsonl"]
    assert "/data/built/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split("\n")
    assert found.contamination is not None
    assert all((ROOT / "data" / reference.path).is_file() for reference in found.contamination.references)


def test_the_sample_is_labelled_consistently() -> None:
    rows = [json.loads(line) for line in (ROOT / "data" / "sample.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) >= 60
    kinds = Counter(row["defect"] for row in rows)
    assert {"exact_copy", "near_copy", "number_differs", "negation_differs", "conflicting_answer"} <= set(kinds)
    for row in rows:
        copied = row["of"]
        assert copied is None or copied in ids or row["defect"] == "benchmark_item"
        assert row["defect"] is not None or copied is None
    assert all(row["of"] for row in rows if row["defect"] in ("exact_copy", "near_copy", "repeated_answer"))


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Of some packages only: all of them are built below, and take twenty seconds."""
    few = ("click", "jinja2", "numpy", "requests")
    code = (
        "import sys; from pathlib import Path; from siftune.data import python_objects, rows\n"
        f"python_objects.PACKAGES = {{name: python_objects.PACKAGES[name] for name in {few}}}\n"
        "rows.write(Path(sys.argv[1]))"
    )
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True, capture_output=True)
    assert paths[0].read_bytes() == paths[1].read_bytes() != b""


@pytest.mark.slow
def test_the_whole_documentation_is_built_from_any_folder(tmp_path: Path) -> None:
    done = command(str(tmp_path / "a.jsonl"), seed="2", folder=hostile_folder(tmp_path / "elsewhere"))
    assert done.returncode == 0, done.stderr
    built = (tmp_path / "a.jsonl").read_bytes()
    built_rows = [json.loads(line) for line in built.split(b"\n")[:-1]]
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{len(built_rows):,} rows, ")
    assert 15_000 <= len(built_rows) <= 25_000
    assert set(built_rows[0]) == {"instruction", "input", "output", "package", "object", "kind"}
    assert all(row["instruction"].strip() and row["output"].strip() for row in built_rows)
    assert len({row["output"] for row in built_rows}) < 0.8 * len(built_rows), "natural duplicates are kept"
    assert len({row["kind"] for row in built_rows}) >= 12
    # The text of help topics is fixed, and quotes 0xdeadbeef.
    about_objects = [row for row in built_rows if not row["kind"].startswith("topic")]
    assert not any(re.search("0x[0-9a-fA-F]{6,}", row["output"] + row["input"]) for row in about_objects)
    assert str(ROOT) not in built.decode()
    lengths = sorted(len(f"{row['instruction']} {row['input']}".split()) for row in built_rows)
    assert lengths[0] <= 3
    assert lengths[len(lengths) * 95 // 100] >= 20
    assert any(row["object"] == "yield" for row in built_rows)
    assert list(tmp_path.glob(".*")) == []
