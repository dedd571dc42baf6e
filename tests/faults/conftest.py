"""One finished run for all tests of faults; its report, which decides nothing, is drawn in no test here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from siftune.curation import pipeline
from siftune.curation.pipeline import curate
from tests.faults.world import result, write_world
from tests.worlds import bag_encoder


@contextmanager
def small_runs(cache: Path) -> Iterator[None]:
    """Tiny encoders, and no report; left again before other tests of the process run."""
    with bag_encoder(cache), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.report, "write", lambda run: None)
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_small_runs(cache: Path) -> Iterator[None]:
    with small_runs(cache):
        yield


@pytest.fixture(scope="session")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that was curated without any fault."""
    folder = tmp_path_factory.mktemp("finished")
    with small_runs(cache):
        curate(write_world(folder, encoder="bag"))
    return folder


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, for the test to damage."""
    return shutil.copytree(finished, tmp_path / "world")


@pytest.fixture(scope="session")
def expected(finished: Path) -> dict[str, bytes]:
    return result(finished / "run")


@pytest.fixture
def same(expected: dict[str, bytes]) -> Callable[[Path], None]:
    """Asserts that a run is the expected one, byte by byte."""

    def check(run: Path) -> None:
        files = result(run)
        assert files.keys() == expected.keys()
        assert [name for name in files if files[name] != expected[name]] == []

    return check
