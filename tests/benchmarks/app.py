# ruff: noqa: E402 - the path comes first
"""The app on a run of a million rows: first paint, filters, page changes, memory.

    python tests/benchmarks/app.py [ROWS [FOLDER]]

FOLDER can be a run that curation made, such as one of `tests/benchmarks/million.py`.
Drives the real server with a real browser. Every page is opened, from the click until it is drawn and its script has
ended; sliders of Thresholds and the map are moved. "Filter" is from the key press to the new list on the screen; the
time that the library needs for it is printed beside it, and the CPU time of the server, which other work on the machine
changes less. Targets: first paint and map 2 s, a filter 0.5 s, a page
change 1 s, memory below 1 GiB. Without FOLDER the run is made in a temporary folder and deleted.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

logging.disable(logging.WARNING)  # the pages are imported without a server, for their names

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from siftune.app.web.pages import PAGES
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.search import TextIndex
from siftune.curation.run.folder import RunFolder
from tests.app.serving import FLAGS, answering, chromium, free_port, serving
from tests.app.world import add_map, synthetic_run
from tests.stopwatch import timed

FIRST_PAINT, PAGE_CHANGE, FILTER = 2.0, 1.0, 0.5  # targets in seconds
MEMORY = 1024  # MiB
TIMEOUT = 60_000  # milliseconds that the browser waits for a page
CHART = '[data-testid="stVegaLiteChart"] :is(canvas, svg)'
ENDED = '.stApp[data-test-script-state="notRunning"]'
RUNNING = '.stApp:not([data-test-script-state="notRunning"])'
#: What is on the screen when a page is drawn, besides the sentence that says what it is for.
DRAWN = {
    "Overview": ".st-key-funnel",
    "Browse": ".st-key-browse_page-on",
    "Map": "canvas[data-drawings]",
    "Decisions": ".sf.decision",
    "Thresholds": CHART,
}
#: The pages in the order of the walk; what is made once, for the first visit, is timed with it.
WALK = (*(title for title in PAGES if title != "Overview"), "Overview", "Browse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("folder", type=Path, nargs="?")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="siftune-app-"))
    try:
        if not (folder / "manifest.json").is_file():
            seconds = timed(lambda: add_map(synthetic_run(folder, rows=options.rows))).wall
            print(f"made a run of {options.rows:,} rows in {seconds:.0f} s")
        library(folder)
        through_the_browser(folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def library(folder: Path) -> None:
    """What the library takes, without server and browser."""
    catalogue = Catalogue.load(RunFolder.open(folder))
    print(f"{len(catalogue):,} rows")
    if TextIndex.open(catalogue.run) is None:
        print(f"search index, made once: {timed(lambda: TextIndex.build(catalogue)).wall:.1f} s")
    index = TextIndex.open(catalogue.run)
    assert index is not None
    queries = {
        "one fate of one source": Query(source=("beta",), fate=("dropped",)),
        "one arm, longest answers first": Query(arm=("curated",), order="answer_words", descending=True),
        "a range of lengths": Query(prompt_words=(5, 40)),
        "one reason": Query(reason=("near_duplicate",)),
    }
    print(f"\n{'library':42}{'seconds':>9}{'rows':>12}")
    for name, query in queries.items():
        search = timed(lambda query=query: catalogue.find(query))
        print(f"{name:42}{search.wall:>9.3f}{len(search.result):>12,}")
    for text in searches(catalogue, index):
        search = timed(lambda text=text: catalogue.find(Query(text=text, fate=("kept",)), index.search(text)))
        print(f"{'search ' + text:42}{search.wall:>9.3f}{len(index.search(text)):>12,}")


def searches(catalogue: Catalogue, index: TextIndex) -> list[str]:
    """Searches of every kind, made of words of a row in the middle of the run."""
    preview, _ = index.previews([len(catalogue) // 2])[len(catalogue) // 2]
    first, second, third, *_ = [*re.findall(r"[^\W\d_]{3,}", preview), "the", "what", "name"]
    return [
        first,
        f"{first} {second}",
        f'"{preview.split()[0]} {preview.split()[1]}"',
        f"{third} -{first}",
        f"{third[:3]}*",
    ]


def filters(catalogue: Catalogue) -> list[tuple[str, str]]:
    """Filters, one added to the other, that each leave some rows out: a label of Browse and a value."""
    fewest = min(catalogue.values("source"), key=lambda name: len(catalogue.find(Query(source=(name,)))))
    source = [("Source", fewest)] if len(catalogue.values("source")) > 1 else []
    return [("Fate", "kept"), *source, ("Arm", "curated")]


def through_the_browser(folder: Path) -> None:
    """What a user waits for, and what an empty page of Streamlit takes in a browser that has just been started."""
    print(f"\nan empty page of Streamlit, cold: {empty_page():.2f} s")
    with serving(folder) as (address, server_pid), sync_playwright() as playwright:
        browser = started_browser(playwright, address)
        catalogue = Catalogue.load(RunFolder.open(folder))
        index = TextIndex.open(catalogue.run)
        assert index is not None
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        server = psutil.Process(server_pid)
        stopwatch = Stopwatch(server)
        walk(page, address, filters(catalogue), searches(catalogue, index), stopwatch)
        print(f"\n{'in the browser':42}{'seconds':>9}{'target':>9}{'CPU of the server':>20}")
        for step in stopwatch.steps:
            missed = "" if step.seconds <= step.target else "   missed"
            print(f"{step.name:42}{step.seconds:>9.2f}{step.target:>9.1f}{step.cpu:>20.2f}{missed}")
        memory = server.memory_info().rss / 2**20
        print(f"\nserver memory: {memory:,.0f} MiB of {MEMORY:,}{'' if memory < MEMORY else '   missed'}")
        browser.close()


def empty_page() -> float:
    """Seconds until a page with one line of text is drawn by a server and a browser that were just started."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "empty.py"
        script.write_text("import streamlit\nstreamlit.text('drawn')\n", encoding="utf-8")
        options = ["--server.address=127.0.0.1", "--server.headless=true", "--server.fileWatcherType=none"]
        options.append("--browser.gatherUsageStats=false")
        port = free_port()
        command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", *options]
        with answering(command, port=port) as (address, _), sync_playwright() as playwright:
            browser = started_browser(playwright, address)
            page = browser.new_page(viewport={"width": 1280, "height": 900})

            def paint() -> None:
                page.goto(address)
                page.wait_for_selector("text=drawn", timeout=TIMEOUT)

            seconds = timed(paint).wall
            browser.close()
    return seconds


def started_browser(playwright: Any, address: str) -> Any:
    """A browser that has seen the server, and none of its pages."""
    browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
    page = browser.new_page()
    page.goto(f"{address}/_stcore/health")
    page.close()
    return browser


@dataclass(frozen=True)
class Step:
    """What a user waited for: seconds by the clock, their target, and the server's CPU seconds, of all its threads."""

    name: str
    seconds: float
    target: float
    cpu: float


@dataclass
class Stopwatch:
    """Times steps in the browser, and what the server does for them."""

    server: psutil.Process
    steps: list[Step] = field(default_factory=list)

    def step(self, page: Any, name: str, target: float, work: Callable[[], object]) -> None:
        """Do `work` and time it; what the server goes on doing until the page is settled counts as its CPU time."""
        before = self._cpu()
        seconds = timed(work).wall
        settle(page)
        self.steps.append(Step(name, seconds, target, self._cpu() - before))

    def _cpu(self) -> float:
        times = self.server.cpu_times()
        return float(times.user + times.system)


def walk(
    page: Any, address: str, filters: Sequence[tuple[str, str]], texts: Sequence[str], stopwatch: Stopwatch
) -> None:
    """Walk through the app and time each step.

    Args:
        page: a browser page.
        address: of the server.
        filters: those that are set in Browse, one after the other.
        texts: what is searched for.
        stopwatch: times the steps.
    """

    def step(name: str, target: float, work: Callable[[], object], *drawn: str) -> None:
        """Do `work` and wait for what it draws, and until the script has ended."""

        def act() -> None:
            work()
            for selector in (*drawn, ENDED):
                page.wait_for_selector(selector, timeout=TIMEOUT)

        stopwatch.step(page, name, target, act)

    step("first paint (Overview), cold server", FIRST_PAINT, lambda: page.goto(address), ".sf.big")
    step("first paint, a second tab", FIRST_PAINT, lambda: page.reload(), ".sf.big")
    for name in WALK:
        link = page.get_by_role("link", name=name, exact=True)
        purpose = f"text={sys.modules[PAGES[name].__module__].PURPOSE}"
        target = FIRST_PAINT if name == "Map" else PAGE_CHANGE
        step(f"page change: {name}", target, lambda link=link: link.click(), purpose, DRAWN.get(name, purpose))
    slide(page, step)
    look_at_the_map(page, step)

    page.get_by_role("link", name="Browse", exact=True).click()
    page.wait_for_selector(DRAWN["Browse"], timeout=TIMEOUT)
    settle(page)
    page.get_by_text("Filters", exact=True).click()
    settle(page)
    for label, value in filters:
        page.get_by_role("combobox", name=label).click()
        option = page.get_by_role("option", name=value, exact=True)
        stopwatch.step(page, f"filter: {label} {value}", FILTER, until_it_changes(page, option.click))
        page.keyboard.press("Escape")
    page.goto(f"{address}/browse")
    page.wait_for_selector(DRAWN["Browse"], timeout=TIMEOUT)
    settle(page)
    for text in texts:
        box = page.get_by_role("textbox", name="Search")
        box.fill(text)
        enter = until_it_changes(page, lambda box=box: box.press("Enter"))
        stopwatch.step(page, f"filter: search {text}", FILTER, enter)
    page.get_by_role("textbox", name="Search").fill("")
    page.keyboard.press("Enter")
    settle(page)
    next_page = page.locator(".st-key-browse_page-on button").first
    stopwatch.step(page, "next page of results", FILTER, until_it_changes(page, next_page.click))


def slide(page: Any, step: Callable[..., None]) -> None:
    """Move the slider of each stage on Thresholds, one step up and then down to its floor."""
    page.get_by_role("link", name="Thresholds", exact=True).click()
    page.wait_for_selector(DRAWN["Thresholds"], timeout=TIMEOUT)
    settle(page)
    stages = page.locator('[data-testid="stButtonGroup"]').first.locator("button")
    for number in range(stages.count()):
        name = stages.nth(number).inner_text()
        if number:
            step(f"thresholds: {name}", PAGE_CHANGE, stages.nth(number).click, RUNNING)
        for key in ("ArrowRight", "ArrowRight", "Home"):
            slider = page.get_by_role("slider")
            step(f"slider: {name}, {key}", PAGE_CHANGE, lambda key=key, slider=slider: slider.press(key), RUNNING)


def look_at_the_map(page: Any, step: Callable[..., None]) -> None:
    """Colour the map, filter it, and list the rows of outlines; nothing where the run has none."""
    page.get_by_role("link", name="Map", exact=True).click()
    settle(page)
    if not page.locator(DRAWN["Map"]).count():
        return

    def until_it_is_drawn(work: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            before = drawings()
            work()
            while drawings() == before:
                page.wait_for_timeout(5)

        return act

    def drawings() -> str:
        return str(page.locator(DRAWN["Map"]).get_attribute("data-drawings"))

    for label, value in (("Colour by", "topic"), ("Fate", "dropped"), ("Fate", "kept")):
        page.get_by_role("combobox", name=label).click()
        option = page.get_by_role("option", name=value, exact=True)
        step(f"map: {label} {value}", FILTER, until_it_is_drawn(option.click))
        page.keyboard.press("Escape")
        settle(page)
    area = page.locator(DRAWN["Map"]).bounding_box()
    assert area is not None
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    for name, size in (("a small outline", 40), ("an outline of most rows", 240)):
        page.mouse.move(x + size, y)
        page.mouse.down()
        for angle in np.linspace(0, 2 * np.pi, 120):
            page.mouse.move(x + size * np.cos(angle), y + size * np.sin(angle))
        step(f"map: rows of {name}", PAGE_CHANGE, until_it_is_drawn(page.mouse.up))
        settle(page)


def until_it_changes(page: Any, work: Callable[[], object]) -> Callable[[], None]:
    """`work`, and to wait until the line of counts or the number of the page has changed."""

    def act() -> None:
        before, start = counts_line(page), time.perf_counter()
        work()
        while counts_line(page) == before and time.perf_counter() - start < 30:
            page.wait_for_timeout(10)

    return act


def counts_line(page: Any) -> str:
    lines = page.locator(".sf").all_inner_texts()
    return " | ".join(line for line in lines if " rows" in line or ", page " in line)


def settle(page: Any) -> None:
    """Wait until the script of the page has run to its end."""
    page.wait_for_timeout(100)
    page.wait_for_selector(ENDED, timeout=TIMEOUT)
    page.wait_for_timeout(300)


if __name__ == "__main__":
    main()
