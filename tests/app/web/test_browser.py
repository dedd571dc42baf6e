"""The app in a real browser: all pages of a trained run, and hostile rows that must stay text."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.app.tab import Tab
from tests.app.world import HOSTILE

pytestmark = pytest.mark.browser


def test_hostile_rows_are_text_and_nothing_else(tab, hostile_server) -> None:
    opened = tab(hostile_server)
    opened.open("browse")  # the first visit of this server: Streamlit must not take our modules for its own pages
    assert opened.page.locator('[data-testid="stSidebar"]').count() == 0
    for name, text in HOSTILE.items():
        opened.type("Search", f'"attack {name}"')
        start = re.sub(r"[\x00-\x1f\u200b-\u206f].*", "", text)[:40]
        opened.wait_for_text(start.strip())
        opened.wait_for_text("1 of 600 rows")
        assert (
            opened.page.locator(".sf script, .sf img, .sf iframe, .sf svg, .sf a, .sf style, .sf .katex").count() == 0
        )
        opened.assert_clean()
    endless = {"long word": "980,000 more characters", "many turns": "440 more turns"}
    for name, holds in {**endless, "by role": "<script>window.pwned = 5"}.items():
        opened.type("Search", f'"attack {name}"')
        opened.wait_for_text(holds)
    opened.assert_clean()
    for name in ("decisions", "overview", "thresholds"):
        opened.open(name)
        opened.assert_clean()
    opened.page.get_by_text("Contamination", exact=True).first.click()
    opened.settle()
    opened.wait_for_text("Is the row this item?")
    opened.assert_clean()
    _choose_on_the_map(opened, hostile_server.run)
    opened.assert_clean()


def _choose_on_the_map(opened: Tab, run: Path) -> None:
    """Draw a line around the leftmost of four groups of rows, a box around all of them, and click on a point."""
    opened.open("row_map")
    area = opened.page.locator("canvas[data-drawings]").bounding_box()
    mouse, keys = opened.page.mouse, opened.page.keyboard

    def drag(*corners: tuple[float, float]) -> None:
        for number, (across, down) in enumerate(corners):
            mouse.move(area["x"] + across * area["width"], area["y"] + down * area["height"])
            if number == 0:
                mouse.down()
        mouse.up()
        opened.settle()

    topics = pl.read_parquet(run / "rows.parquet").filter(pl.col("fate") != "quarantined")["topic"]
    drag((0.005, 0.01), (0.25, 0.01), (0.25, 0.99), (0.005, 0.99))
    opened.wait_for_text(f"{(topics == 'river, stone').sum()} rows selected")
    keys.down("Shift")
    drag((0.005, 0.01), (0.995, 0.99))
    keys.up("Shift")
    opened.wait_for_text(f"{len(topics)} rows selected")
    drag((0.095, 0.5))
    opened.wait_for_text("History")
    assert "rows selected" not in opened.text()


def test_every_page_of_a_trained_run_in_a_browser(tab, trained_server) -> None:
    opened, run = tab(trained_server), trained_server.run
    _look_at_the_data(opened, run)
    _follow_links(opened)
    _chat(opened, run)
    _vote_blind(opened, run)
    opened.open("training")
    opened.page.locator('[data-testid="stVegaLiteChart"]').nth(3).wait_for()
    opened.open("prompts")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Download CSV", exact=True).click()
    assert Path(download.value.path()).read_bytes() == (run / "prompts" / "prompts.csv").read_bytes()
    opened.open("verdict")
    opened.wait_for_text("No verdict from one training run of")
    opened.wait_for_text("curated against raw")
    opened.assert_clean()


def _look_at_the_data(opened: Tab, run: Path) -> None:
    opened.open("overview")
    _click_a_bar(opened)
    near = json.loads((run / "manifest.json").read_text())["stages"][2]
    opened.wait_for_text(f"{near['rows'] - near['kept']} of 400 rows")
    opened.open("decisions")
    opened.page.locator("mark").first.wait_for()
    opened.press("n")
    opened.wait_for_text("decision 2 of")
    opened.press("k")
    opened.wait_for_text("decision 3 of")
    assert json.loads((run / "overrides.jsonl").read_text())["action"] == "restore"
    opened.open("thresholds")
    opened.page.get_by_role("slider").press("ArrowRight")
    opened.wait_for_text("Compared with the run's own threshold, 0.80")
    opened.press("s")
    assert json.loads((run / "labels.jsonl").read_text())["same"] is True
    opened.wait_for_text("Pair 2 of")
    opened.press("p")
    opened.wait_for_text("Pair 1 of")
    opened.assert_clean()


def _click_a_bar(opened: Tab) -> None:
    """Click the bar of the near stage in the funnel, the second of three; each has a part for what it removed."""
    opened.page.locator(".st-key-funnel path[aria-roledescription=bar]").nth(2).click()
    opened.page.wait_for_url("**/browse?*stage=near*")
    opened.settle()


def _follow_links(opened: Tab) -> None:
    """An address shows its rows and its row; one that makes no sense is answered in words."""
    opened.open("browse?fate=dropped&stage=near&order=answer_words&down=1&row=nothing:1")
    opened.wait_for_text("This run has no row 'nothing:1'.")
    opened.press("n")
    opened.wait_for_text("row 2 of")
    address = opened.page.url
    row = opened.page.locator(".sf b").first.inner_text()
    opened.open("browse?source=nowhere&<script>=1")
    opened.wait_for_text("400 of 400 rows")
    opened.wait_for_text("this run has alpha, beta, gamma")
    opened.page.goto(address)
    opened.settle()
    opened.wait_for_text("row 2 of")
    assert opened.page.locator(".sf b").first.inner_text() == row
    opened.page.get_by_role("link", name="Overview").click()
    opened.settle()
    opened.page.get_by_role("link", name="Longest answers →").click()
    opened.page.wait_for_url("**/browse?*fate=kept*")
    opened.settle()
    opened.assert_clean()


def _chat(opened: Tab, run: Path) -> None:
    opened.open("chat")
    opened.page.get_by_text("Plain text", exact=True).click()
    opened.settle()
    opened.send_prompt("What colour has door 3?")
    answers = opened.page.locator(".sf.turn.assistant")
    answers.nth(1).wait_for(timeout=60_000)
    opened.page.get_by_text("tokens/s").nth(1).wait_for(timeout=60_000)
    opened.settle()
    with sqlite3.connect(run / "votes.sqlite") as db:
        turns = db.execute("SELECT arm, answer, facts FROM turns WHERE conversation = ?", (opened.conversation(),))
        answers_of = {arm: (answer, json.loads(facts)["fingerprint"]) for arm, answer, facts in turns}
    stored = {arm: answer for arm, (answer, _) in answers_of.items()}
    prints = {arm: print_ for arm, (_, print_) in answers_of.items()}
    assert prints["raw"] != prints["curated"]
    columns = opened.page.locator('[data-testid="stColumn"]')
    for arm in ("raw", "curated"):
        column = columns.filter(has=opened.page.locator(f".sf.turn.{arm}")).last
        text = re.sub(r"\s+", "", column.inner_text())
        assert re.sub(r"\s+", "", stored[arm])[:20] in text
        assert prints[arm] in text
    opened.click("Similar rows")
    opened.page.get_by_role("dialog").wait_for()
    opened.page.keyboard.press("Escape")
    opened.reload()
    opened.page.get_by_text("tokens/s").nth(1).wait_for(timeout=60_000)
    opened.click("More")
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Export JSONL", exact=True).click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert {json.loads(line)["arm"]: json.loads(line)["messages"][-1]["content"] for line in lines} == stored
    opened.assert_clean()


def _vote_blind(opened: Tab, run: Path) -> None:
    opened.open("chat")
    opened.page.get_by_text("Blind", exact=True).click()
    opened.settle()
    opened.send_prompt("And door 4?")
    opened.page.get_by_role("button", name="Left is better").wait_for(timeout=60_000)
    opened.settle()
    last = opened.page.locator(".sf.turn.assistant .who")
    assert last.all_inner_texts()[-2:] == ["Left", "Right"]
    costs = opened.page.get_by_text("tokens/s").count()
    opened.press("ArrowLeft")  # the key of "Left is better"
    assert opened.page.get_by_text("tokens/s").count() == costs + 2
    arms = [text.split(": ")[1] for text in last.all_inner_texts()[-2:]]
    with sqlite3.connect(run / "votes.sqlite") as db:
        assert db.execute("SELECT left_arm, right_arm, choice FROM votes").fetchall() == [(*arms, "left")]
    opened.assert_clean()


def test_both_themes_fit_a_narrow_window(trained_server, browser: Any) -> None:
    address = trained_server.address
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
