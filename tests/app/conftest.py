"""Worlds and a browser for the tests of the app."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import synthetic_run, tiny_model, trained_run

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
CHROMIUM += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def plain_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated run that nobody trained on. Shared: tests that write copy it."""
    return synthetic_run(tmp_path_factory.mktemp("plain") / "run", rows=600, hostile=True)


@pytest.fixture(scope="session")
def trained_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two trained arms of a tiny Llama, a verdict and an answered suite. Shared: who writes copies it."""
    folder = tmp_path_factory.mktemp("trained")
    return trained_run(folder / "run", tiny_model(folder / "model"))


@pytest.fixture
def plain_run(plain_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain_world, tmp_path / "run"))


@pytest.fixture
def done_run(trained_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_world, tmp_path / "run"))


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """The app on a free port of this machine; yields its address."""
    from app.launch import server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = server(run, port=port, headless=True)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.25)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    with ExitStack() as stack:
        yield lambda run: stack.enter_context(serving(run))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no browser test: pip install playwright")
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no browser test: there is no Chromium on this machine (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=CHROMIUM)
        yield opened
        opened.close()
