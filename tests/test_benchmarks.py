"""The benchmark scripts, which no test runs, use only names that exist."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_imports_names_that_exist(script: Path) -> None:
    imports = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("siftune", "tests")
    ]
    assert imports
    for node in imports:
        try:
            module = importlib.import_module(node.module)
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] in ("siftune", "tests"):
                raise
            pytest.skip(f"needs {error.name}")
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")
