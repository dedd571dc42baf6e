"""The app in a real browser: all pages of a trained run, and hostile rows that must stay text."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.app.tab import Tab
from tests.app.world import HOSTILE

pytestmark = pytest.mark.browser


def test_hostile_rows_are_text_and_nothing_else(tab, plain_run: Path) -> None:
    found = tab(plain_run)
    found.open("browse")
    for name, text in HOSTILE.items():
        found.type("Search", f'"attack {name}"')
        start = re.sub(r"[\x00-\x1f\u200b-\u206f].*", "", text)[:40]
        found.holds(start.strip())
        found.holds("1 of 600 rows")
        assert found.page.locator(".sf script, .sf img, .sf iframe, .sf svg, .sf a, .sf style, .sf .katex").count() == 0
        found.clean()
    endless = {"long word": "980,000 more characters", "many turns": "440 more turns"}
    for name, holds in {**endless, "by role": "<script>window.pwned = 5"}.items():
        found.type("Search", f'"attack {name}"')
        found.holds(holds)
    found.clean()
    for name in ("decisions", "thresholds", "overview"):
        found.open(name)
        found.clean()


def test_every_page_of_a_trained_run_in_a_browser(tab, done_run: Path) -> None:
    found = tab(done_run)
    _look_at_the_data(found, done_run)
    _chat(found, done_run)
    _vote_blind(found, done_run)
    found.open("training")
    found.page.locator('[data-testid="stVegaLiteChart"]').nth(3).wait_for()
    found.open("prompts")
    with found.page.expect_download() as download:
        found.page.get_by_role("button", name="CSV", exact=True).click()
    assert Path(download.value.path()).read_text().startswith("prompt,")
    found.open("verdict")
    found.holds("Curated is better than raw")
    found.holds("curated against raw")
    found.clean()


def _look_at_the_data(found: Tab, run: Path) -> None:
    found.open("overview")
    found.page.locator(".st-key-funnel-near button").first.click()
    found.page.wait_for_url("**/browse")
    found.settle()
    near = json.loads((run / "manifest.json").read_text())["stages"][2]
    found.holds(f"{near['rows'] - near['kept']} of 400 rows")
    found.open("decisions")
    assert found.page.locator("mark").count() > 2
    found.click("Restore")
    assert '"action": "restore"' in (run / "overrides.jsonl").read_text()
    found.open("thresholds")
    before = found.text()
    found.page.get_by_role("slider").press("ArrowRight")
    found.holds("Against the run's own threshold")
    assert found.text() != before
    found.click("Same")
    assert '"same": true' in (run / "labels.jsonl").read_text()
    found.clean()


def _chat(found: Tab, run: Path) -> None:
    found.open("chat")
    found.say("What colour has door 3?")
    answers = found.page.locator(".sf.turn.assistant")
    answers.nth(1).wait_for(timeout=60_000)
    found.page.get_by_text("tokens/s").nth(1).wait_for(timeout=60_000)
    found.settle()
    with sqlite3.connect(run / "votes.sqlite") as db:
        stored = dict(db.execute("SELECT arm, answer FROM turns WHERE live").fetchall())
        prints = {arm: json.loads(facts)["fingerprint"] for arm, facts in db.execute("SELECT arm, facts FROM turns")}
    assert prints["raw"] != prints["curated"]
    columns = found.page.locator('[data-testid="stColumn"]')
    for arm in ("raw", "curated"):
        column = columns.filter(has=found.page.locator(f".sf.turn.{arm}")).last
        said = re.sub(r"\s+", "", column.inner_text())
        assert re.sub(r"\s+", "", stored[arm])[:20] in said
        assert prints[arm] in said
    found.click("Where does this come from?")
    found.page.get_by_role("dialog").wait_for()
    found.page.keyboard.press("Escape")
    found.reload()
    found.page.get_by_text("tokens/s").nth(1).wait_for(timeout=60_000)
    found.click("More")
    with found.page.expect_download() as download:
        found.page.get_by_role("button", name="Export JSONL", exact=True).click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert {json.loads(line)["arm"]: json.loads(line)["messages"][-1]["content"] for line in lines} == stored
    found.clean()


def _vote_blind(found: Tab, run: Path) -> None:
    found.open("chat")
    found.page.get_by_text("Blind", exact=True).click()
    found.settle()
    found.say("And door 4?")
    found.page.get_by_role("button", name="Left is better").wait_for(timeout=60_000)
    found.settle()
    last = found.page.locator(".sf.turn.assistant .who")
    assert last.all_inner_texts()[-2:] == ["Left", "Right"]
    costs = found.page.get_by_text("tokens/s").count()
    found.click("Left is better")
    assert found.page.get_by_text("tokens/s").count() == costs + 2
    shown = [text.split(": ")[1] for text in last.all_inner_texts()[-2:]]
    with sqlite3.connect(run / "votes.sqlite") as db:
        assert db.execute("SELECT left_arm, right_arm, choice FROM votes").fetchall() == [(*shown, "left")]
    found.clean()


def test_both_themes_fit_a_narrow_window(tab, trained_world: Path, browser: Any) -> None:
    address = tab(trained_world).address
    colours = {}
    for theme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 800, "height": 900}, color_scheme=theme)
        page = context.new_page()
        page.goto(f"{address}/verdict")
        page.wait_for_selector(".sf.big", timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        colours[theme] = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        context.close()
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}
