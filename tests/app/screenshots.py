"""Screenshots of every page of a run, for the README: `python tests/app/screenshots.py RUN [FOLDER] [THEME-WIDTH …]`

Chat is shown with an answer when arms are trained: the script asks one prompt, which stays in the run's votes.sqlite.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playwright.sync_api import sync_playwright

from siftune.app.web.pages import PAGES
from tests.app.serving import FLAGS, chromium, serving

PLAIN = "light-1280"
#: The addresses of the pages; that of the first is not used.
NAMES = [draw_page.__name__ for draw_page in PAGES.values()]
PROMPT = "What does itertools.groupby do?"


def main() -> None:
    run = Path(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("docs/screenshots")
    photograph(run, folder, sys.argv[3:] or [PLAIN])


def photograph(run: Path, folder: Path, variants: Sequence[str] = (PLAIN,)) -> dict[str, str]:
    """A picture of every page in each variant (`light-1280`, `dark-800`); returns the text that each page showed."""
    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, str] = {}
    with serving(run) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for variant in variants:
            theme, width = variant.split("-")
            context = browser.new_context(viewport={"width": int(width), "height": 900}, color_scheme=theme)
            page = context.new_page()
            for name in NAMES:
                _open(page, f"{address}/{'' if name == NAMES[0] else name}")
                if name == "chat":
                    _ask(page)
                shown[name] = page.get_by_test_id("stMainBlockContainer").inner_text()
                _shoot(page, int(width), folder / f"{name}{'' if list(variants) == [PLAIN] else f'-{variant}'}.png")
            context.close()
        browser.close()
    return shown


def _open(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector('[data-testid="stMainBlockContainer"] .sf', timeout=60_000)
    _settle(page)


def _settle(page: Any) -> None:
    page.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=180_000)
    page.wait_for_timeout(1_200)


def _ask(page: Any) -> None:
    box = page.get_by_test_id("stChatInputTextArea")
    if box.count():
        box.fill(PROMPT)
        box.press("Enter")
        page.get_by_text("tokens/s").nth(1).wait_for(timeout=240_000)
        _settle(page)


def _shoot(page: Any, width: int, path: Path) -> None:
    """The whole page, up to a length that still reads as a picture."""
    # A page with an input at its foot scrolls another element.
    height = page.evaluate("document.querySelector('[data-testid=stMain]')?.scrollHeight ?? 1100")
    page.set_viewport_size({"width": width, "height": min(1_900, max(700, height + 20))})
    page.wait_for_timeout(700)
    page.screenshot(path=path)
    page.set_viewport_size({"width": width, "height": 900})


if __name__ == "__main__":
    main()
