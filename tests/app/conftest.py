"""Worlds and a browser for the tests of the app."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.app.serving import FLAGS, chromium, serving
from tests.app.tab import Tab
from tests.app.world import add_map, contaminate, synthetic_run, tiny_model, trained_run


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


@dataclass(frozen=True)
class Served:
    """A run that the app's server shows."""

    run: Path
    address: str


@pytest.fixture(scope="session")
def trained_server(trained_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server on a copy of the trained run for all tests that look at it: its models are loaded once."""
    run = Path(shutil.copytree(trained_world, tmp_path_factory.mktemp("served") / "run"))
    with serving(run) as (address, _):
        yield Served(run, address)


@pytest.fixture(scope="session")
def hostile_server(plain_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server on hostile rows, started in a folder of files that have names of modules and must not be imported."""
    folder = tmp_path_factory.mktemp("hostile")
    run = add_map(contaminate(Path(shutil.copytree(plain_world, folder / "run"))))
    for name in ("app", "training", "curation", "state", "queries", "charts", "pages", "streamlit", "polars", "json"):
        (folder / f"{name}.py").write_text(f"raise ImportError('the user's {name}.py was imported')")
    (folder / "data").mkdir()
    (folder / "data" / "__init__.py").write_text("raise ImportError('the user's data was imported')")
    with serving(run, started_in=folder) as (address, _):
        yield Served(run, address)


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
def tab(browser: Any) -> Iterator[Callable[[Served], Tab]]:
    """Opens a new browser tab, with a session and a conversation of its own, on a server."""
    tabs: list[Tab] = []

    def opened(served: Served) -> Tab:
        tabs.append(Tab(browser, served.address))
        return tabs[-1]

    yield opened
    for open_tab in tabs:
        open_tab.context.close()
