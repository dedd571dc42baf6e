"""A tiny model and a tiny run for the tests of training."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny tensors: a second thread costs more than it brings, above all when the machine has other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer Llama with the SmolLM2 template; made once for all tests, so never written to."""
    from tests.training.worlds import write_tiny_llama

    return write_tiny_llama(tmp_path_factory.mktemp("tiny-llama"), template="smollm2")


@pytest.fixture
def tiny_run(tmp_path: Path, tiny_model: Path) -> Path:
    """A run folder of toy rows, with three arms and a held-out set, that trains the tiny model in seconds."""
    from tests.training.worlds import write_tiny_run

    return write_tiny_run(tmp_path / "run", model=tiny_model)
