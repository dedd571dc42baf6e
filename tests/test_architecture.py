"""The law of imports, checked on the code as it is written."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("curation", "training", "app", "data")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
ALLOWED = {
    "curation": {"curation"},
    "training": {"training", "curation"},
    "app": {"app", "training", "curation"},
    "data": {"data", "curation"},
}

#: Heavy packages, and the modules that are about them: nowhere else may they be imported at module level.
HEAVY = {
    "torch": ("training/",),
    "transformers": ("training/",),
    "sentence_transformers": (),
    "faiss": (),
    "trl": ("training/",),
    "peft": ("training/",),
    "bitsandbytes": (),
    "llama_cpp": ("training/inference/gguf",),
    "streamlit": ("app/",),
    "altair": ("app/", "curation/review/charts"),
    "ray": (),
    "datasets": ("training/",),
}


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Names that a file imports: at module level only, or wherever they stand. Type-checking blocks do not run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_files_to_judge() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=place)
def test_rooms_import_downwards_only(path: Path) -> None:
    room = place(path).split("/")[0]
    ours = {name.split(".")[0] for name in imports(path, everywhere=True)} & set(ROOMS)
    assert ours <= ALLOWED[room]


@pytest.mark.parametrize("path", FILES, ids=place)
def test_heavy_packages_are_imported_at_module_level_only_where_they_belong(path: Path) -> None:
    for name in imports(path, everywhere=False):
        homes = HEAVY.get(name.split(".")[0])
        assert homes is None or any(place(path).startswith(home) for home in homes), name


def test_schema_imports_nothing_of_ours() -> None:
    found = set(imports(ROOT / "curation" / "schema.py", everywhere=True))
    assert not [name for name in found if name.split(".")[0] in ROOMS]


@pytest.mark.parametrize("room", ["measures", "formats"])
def test_measures_and_formats_do_not_know_one_another(room: str) -> None:
    files = [path for path in (ROOT / "curation" / room).glob("*.py") if path.name != "__init__.py"]
    assert files
    for path in files:
        siblings = [name for name in imports(path, everywhere=True) if name.startswith(f"curation.{room}.")]
        assert not siblings, place(path)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, app.cli\n"
        "try: app.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
    assert "click" in loaded
    assert not loaded & {*HEAVY, "polars", "numpy", "pyarrow", "numba", "pydantic", "rich", "pandas", "scipy"}
