"""The law of imports, checked on the code as it is written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
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
    "llama_cpp": ("training/inference/llamacpp_engine",),
    "streamlit": ("app/",),
    "altair": ("app/", "curation/review/charts"),
    "ray": (),
    "datasets": ("training/",),
}


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Dotted names that a file imports: at module level only, or anywhere (`from a import b` gives a and a.b)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_path(path: Path) -> str:
    """The path of a file from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def test_all_rooms_have_files() -> None:
    assert {module_path(path).split("/")[0] for path in FILES} == set(ROOMS)


def own(path: Path) -> set[str]:
    """The modules and folders of siftune that a file imports, as paths from the root without the ending."""
    names = (name.removeprefix("siftune.").replace(".", "/") for name in imports(path, everywhere=True))
    return {name for name in names if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()} - {"siftune"}


def folder(name: str) -> str:
    """The node of the import graph: a folder of modules, or a single module where it stands beside folders."""
    parent = name if (ROOT / name).is_dir() else name.rsplit("/", 1)[0]
    stands_beside_folders = any(path.is_dir() and (path / "__init__.py").exists() for path in (ROOT / parent).iterdir())
    return name if stands_beside_folders else parent


@pytest.mark.parametrize("path", FILES, ids=module_path)
def test_rooms_import_downwards_only(path: Path) -> None:
    assert {name.split("/")[0] for name in own(path)} <= ALLOWED[module_path(path).split("/")[0]]


@pytest.mark.parametrize("path", FILES, ids=module_path)
def test_imports_name_the_package_and_not_the_folders_of_the_checkout(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, everywhere=True)} & {*ROOMS, "tests"}


def test_no_two_folders_import_each_other() -> None:
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        start = folder(module_path(path).removesuffix(".py").removesuffix("/__init__"))
        arrows.setdefault(start, set()).update(folder(name) for name in own(path) if name not in ROOMS)
        arrows[start].discard(start)
    assert sum(map(len, arrows.values())) > 100
    cycle = TopologicalSorter(arrows)
    cycle.prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("path", FILES, ids=module_path)
def test_heavy_packages_are_imported_at_module_level_only_where_they_belong(path: Path) -> None:
    for name in imports(path, everywhere=False):
        homes = HEAVY.get(name.split(".")[0])
        assert homes is None or any(module_path(path).startswith(home) for home in homes), name


def test_schema_imports_nothing_of_ours() -> None:
    assert not own(ROOT / "curation" / "schema.py")


def test_formats_do_not_know_one_another() -> None:
    names = ("alpaca", "messages", "preference", "prompt_completion", "question_answer", "sharegpt", "text")
    formats = {f"curation/formats/{name}" for name in names}
    for name in formats:
        assert not own(ROOT / f"{name}.py") & formats, name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, siftune.app.cli.commands as commands\n"
        "try: commands.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
    assert "click" in loaded
    assert not loaded & {*HEAVY, "polars", "numpy", "pyarrow", "numba", "pydantic", "rich", "pandas", "scipy"}


def test_a_class_name_has_one_meaning() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module_path(path))
    assert len(homes) > 100
    assert not {name: files for name, files in homes.items() if len(files) > 1}


@pytest.mark.parametrize("path", FILES, ids=module_path)
def test_public_functions_with_four_or_more_arguments_document_each(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if re.fullmatch(r"app/cli/\w*commands\.py", module_path(path)) or node.name == "on_log":
            continue  # the help of a command documents its options; the trainer's callbacks have a given interface
        arguments = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        named = [name for name in arguments if name not in ("self", "cls")]
        lines = re.findall(r"^ +(\w+(?:, \w+)*): ", ast.get_docstring(node) or "", re.MULTILINE)
        documented = {name for line in lines for name in line.split(", ")}
        if len(named) >= 4:
            assert not [name for name in named if name not in documented], f"{module_path(path)}: {node.name}"


@pytest.mark.parametrize(
    ("pattern", "home"),
    [
        (r"hashlib\.file_digest", "curation/file_hash.py"),
        (r"\bbetaincinv\(", "curation/exact_interval.py"),
        (r"SIFTUNE_CACHE\b", "curation/cache_folder.py"),
        (r"---:", "curation/markdown.py"),
        (r"\brng\.integers\(groups", "training/evaluation/statistics.py"),
        (r"[\"'](?:dev|valid)[\"']", "curation/split_names.py"),
        (r"[\"']done\.json[\"']", "training/result.py"),
        (r"[\"']seed-", "curation/run/paths.py"),
    ],
)
def test_a_shared_function_exists_once(pattern: str, home: str) -> None:
    files = [module_path(path) for path in FILES if re.search(pattern, path.read_text(encoding="utf-8"))]
    assert files == [home]


#: Names that do not say what the value is: a match, a position, a count, a message ...
VAGUE = {"found", "told", "place", "said", "even", "deciding", "slack", "gone", "thing", "stuff", "likeness"}


@pytest.mark.parametrize("path", FILES, ids=module_path)
def test_a_name_says_what_the_value_is(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name.lower())
    assert not names & VAGUE
