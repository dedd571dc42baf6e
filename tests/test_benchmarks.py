"""The benchmark scripts, which no test runs, import only names that exist. Nothing is imported to find that out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))


def names_of(module: str) -> set[str]:
    """The names at the top level of a module of this project, and the modules of a package."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = {entry.stem for entry in path.iterdir()} if path.is_dir() else set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else ():
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_imports_names_that_exist(script: Path) -> None:
    imports = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("siftune", "tests")
    ]
    assert imports
    for node in imports:
        missing = {alias.name for alias in node.names} - names_of(node.module)
        assert not missing, f"{script.name} imports {', '.join(sorted(missing))} from {node.module}"
