"""The public face: its examples run, its names are few, and importing it is light."""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import siftune
from tests.training.worlds import write_tiny_llama, write_tiny_run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe over the labelled sample, without an encoder."""
    shutil.copy(ROOT / "data" / "sample.jsonl", tmp_path / "sample.jsonl")
    path = tmp_path / "mine.yaml"
    near = "duplicates: {near: {threshold: 0.8, floor: 0.6}}"
    path.write_text(f"sources: [{{path: sample.jsonl}}]\nencoder: null\n{near}\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_examples_run(recipe: Path, tmp_path: Path) -> None:
    model = write_tiny_llama(tmp_path / "model", template="smollm2")
    trained = siftune.Run(write_tiny_run(tmp_path / "run", model=model))
    trained.train(arms=["raw", "curated"], seeds=[0])
    trained.compare()
    names = {"siftune": siftune, "recipe": recipe, "run": siftune.curate(recipe), "trained_run": trained}
    outcome = doctest.testmod(siftune, extraglobs=names, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert outcome.attempted > 12
    assert outcome.failed == 0


def test_frames_are_polars_frames_and_pairs_are_verified(recipe: Path) -> None:
    run = siftune.curate(str(recipe))
    assert all(isinstance(frame, pl.DataFrame) for frame in (run.rows(), run.ledger(), run.pairs("near")))
    assert run.rows().height == 65
    assert run.pairs("near").height > 0
    assert run.pairs("near")["score"].min() >= 0.6


def test_faults_are_user_errors(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(siftune.UserError, match="no recipe at"):
        siftune.curate(tmp_path / "missing.yaml")
    run = siftune.curate(recipe)
    with pytest.raises(siftune.UserError, match="no row"):
        run.explain("sample:999")
    assert run.verdict() is None


def test_importing_siftune_is_light() -> None:
    code = "import sys, siftune; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"polars", "numpy", "torch", "transformers", "pydantic"} & set(loaded.split())


def test_the_readme_shows_names_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert set(re.findall(r"siftune\.(\w+)", block)) <= set(siftune.__all__)
    methods = set(re.findall(r"run\.(\w+)\(", block))
    assert len(methods) >= 6
    assert methods <= set(dir(siftune.Run))
    assert len(block.strip().splitlines()) <= 12
