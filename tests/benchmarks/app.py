"""The app on a run of a million rows: first paint, filters, page changes, memory: `app.py [ROWS [FOLDER]]`

Drives the real server with a real browser. "Filter" is from the key press to the new list on the screen; the time that
the library needs for it is told beside it. Targets: first paint 2 s, a filter 0.5 s, a page change 1 s, memory < 1 GiB.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from siftune.curation.review.catalogue import Catalogue, Query  # noqa: E402
from siftune.curation.review.search import TextIndex  # noqa: E402
from siftune.curation.run.folder import RunFolder  # noqa: E402
from tests.app.serving import FLAGS, chromium, serving  # noqa: E402
from tests.app.world import synthetic_run  # noqa: E402

SEARCHES = ["mo1", "ka0 ti1", '"mo0 ka0"', "explain -mo0", "mo59*"]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    given = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    folder = given or Path(tempfile.mkdtemp(prefix="siftune-app-"))
    try:
        if not (folder / "manifest.json").is_file():
            print(f"making a run of {rows:,} rows … {timed(lambda: synthetic_run(folder, rows=rows)):.0f} s")
        library(folder)
        through_the_browser(folder)
    finally:
        if given is None:
            shutil.rmtree(folder)


def library(folder: Path) -> None:
    """What the library takes, without server and browser."""
    found = Catalogue.load(RunFolder.open(folder))
    print(f"{len(found):,} rows")
    if TextIndex.open(found.run) is None:
        print(f"search index, made once: {timed(lambda: TextIndex.build(found)):.1f} s")
    index = TextIndex.open(found.run)
    assert index is not None
    queries = {
        "one fate of one source": Query(source=("beta",), fate=("dropped",)),
        "one arm, longest answers first": Query(arm=("curated",), order="answer_words", descending=True),
        "a range of lengths": Query(prompt_words=(5, 40)),
        "one reason": Query(reason=("near_duplicate",)),
    }
    print(f"\n{'library':42}{'seconds':>9}{'rows':>12}")
    for name, query in queries.items():
        seconds = timed(lambda query=query: found.find(query))
        print(f"{name:42}{seconds:>9.3f}{len(found.find(query)):>12,}")
    for text in SEARCHES:
        seconds = timed(lambda text=text: found.find(Query(text=text, fate=("kept",)), index.search(text)))
        print(f"{'search ' + text:42}{seconds:>9.3f}{len(index.search(text)):>12,}")


def through_the_browser(folder: Path) -> None:
    """What a user waits for."""
    with serving(folder) as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        _warm(browser, address)
        _walk(browser.new_page(viewport={"width": 1280, "height": 900}), address, process)
        browser.close()


def _warm(browser: Any, address: str) -> None:
    """Chromium compiles scripts when it first sees a host; that is not the app's time."""
    page = browser.new_page()
    page.goto(f"{address}/_stcore/health")
    page.close()


def _walk(page: Any, address: str, server_pid: int) -> None:
    told: list[tuple[str, float, float]] = []

    def step(name: str, target: float, work: Callable[[], object], *, sign: str) -> None:
        told.append((name, timed(lambda: (work(), page.wait_for_selector(sign, timeout=60_000))), target))
        _settle(page)

    step("first paint (Overview), cold server", 2.0, lambda: page.goto(address), sign=".sf.big")
    step("first paint, a second tab", 2.0, lambda: page.reload(), sign=".sf.big")
    for name in ("Browse", "Decisions", "Overview", "Browse"):
        signs = {"Browse": ".st-key-browse_page-on", "Decisions": ".sf.said", "Overview": "h1.sf"}
        link = page.get_by_role("link", name=name)
        step(f"page change: {name}", 1.0, lambda link=link: link.click(), sign=signs[name])
    page.get_by_text("Filters", exact=True).click()
    _settle(page)
    for label, value in (("Fate", "kept"), ("Source", "beta"), ("Arm", "raw")):
        box = page.get_by_role("combobox", name=label)
        box.click()
        option = page.get_by_role("option", name=value, exact=True)
        told.append((f"filter: {label} {value}", _changed(page, option.click), 0.5))
        page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(".st-key-browse_page-on", timeout=60_000)
    _settle(page)
    for text in SEARCHES:
        box = page.get_by_role("textbox", name="Search")
        box.fill(text)
        told.append((f"filter: search {text}", _changed(page, lambda box=box: box.press("Enter")), 0.5))
    turn = page.locator(".st-key-browse_page-on button").first
    told.append(("next page of results", _changed(page, turn.click), 0.5))
    print(f"\n{'in the browser':42}{'seconds':>9}{'target':>9}")
    for name, seconds, target in told:
        print(f"{name:42}{seconds:>9.2f}{target:>9.1f}{'' if seconds <= target else '   missed'}")
    memory = psutil.Process(server_pid).memory_info().rss / 2**20
    print(f"\nserver memory: {memory:,.0f} MiB of 1,024{'' if memory < 1024 else '   missed'}")


def _changed(page: Any, work: Callable[[], object]) -> float:
    """Seconds until the line of counts or the number of the page says something else."""
    before = _line(page)
    start = time.perf_counter()
    work()
    while _line(page) == before and time.perf_counter() - start < 30:
        page.wait_for_timeout(10)
    seconds = time.perf_counter() - start
    _settle(page)
    return seconds


def _line(page: Any) -> str:
    lines = page.locator(".sf").all_inner_texts()
    return " | ".join(line for line in lines if " rows" in line or line.startswith("page "))


def _settle(page: Any) -> None:
    page.wait_for_timeout(100)
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=60_000)
    page.wait_for_timeout(300)


if __name__ == "__main__":
    main()
