"""Worlds and a browser for the tests of the app."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.app.serving import FLAGS, chromium, serving
from tests.app.tab import Tab
from tests.app.world import synthetic_run, tiny_model, trained_run


@pytest.fixture(scope="session")
def plain_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated run that nobody trained on. Shared: who writes copies it."""
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


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    with ExitStack() as stack:
        yield lambda run: stack.enter_context(serving(run))[0]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no browser test: pip install playwright")
    executable = chromium()
    if executable is None:
        pytest.skip("no browser test: there is no Chromium on this machine (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any, serve: Callable[[Path], str]):
    tabs: list[Tab] = []

    def opened(run: Path) -> Tab:
        tabs.append(Tab(browser, serve(run)))
        return tabs[-1]

    yield opened
    for open_tab in tabs:
        open_tab.context.close()
