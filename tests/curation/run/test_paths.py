"""The layout of a run folder is spelled in one module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from siftune.curation.run import paths
from siftune.curation.run.paths import RunPaths, parse_training_name, training_name

ROOT = Path(__file__).parents[3]


def test_no_other_module_spells_the_name_of_a_file_of_a_run() -> None:
    run = RunPaths(Path("run"))
    names = {
        value.name
        for value in (getattr(run, name) for name, kind in vars(RunPaths).items() if isinstance(kind, property))
        if value.suffix
    }
    assert {"manifest.json", "ledger.parquet", "verdict.json", "votes.sqlite"} <= names
    modules = [path for room in ("curation", "training", "app") for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(modules) > 100
    for module in modules:
        if module == Path(paths.__file__).resolve():
            continue
        tree = ast.parse(module.read_text(encoding="utf-8"))
        strings = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & names, module


def test_no_other_module_spells_the_folder_of_a_training_run() -> None:
    spelled = re.compile(r"seed-[{\d*(]|-seed-|[\"']seed-")
    code = {
        path.relative_to(ROOT).as_posix(): ast.unparse(without_docstrings(ast.parse(path.read_text(encoding="utf-8"))))
        for room in ("curation", "training", "app")
        for path in sorted((ROOT / room).rglob("*.py"))
    }
    assert [name for name, text in code.items() if spelled.search(text)] == ["curation/run/paths.py"]


def without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[:1] = [ast.Pass()]
    return tree


def test_the_name_of_a_training_run_is_read_back() -> None:
    assert parse_training_name(training_name("a-seed-1", 20)) == ("a-seed-1", 20)
    assert parse_training_name("base") is None


def test_training_runs_are_found_by_arm_then_seed(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    trainings = [("curated", 0), ("raw", 2), ("raw", 10)]
    for arm, seed in reversed(trainings):
        run.adapter(arm, seed).mkdir(parents=True)
    (tmp_path / "training" / "raw" / "seed-x").mkdir()
    (tmp_path / "training" / "notes").mkdir()
    assert run.trainings() == [
        (arm, seed, run.training(arm, seed)) for arm, seed in (("curated", 0), ("raw", 2), ("raw", 10))
    ]
