"""Chat in a real browser, with two real tiny adapters and a small server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from siftune.curation.text.hidden_characters import visible
from siftune.training.inference.engine import PROBE
from tests.app.tab import Tab
from tests.app.world import HOSTILE

pytestmark = pytest.mark.browser


class ModelServer(ThreadingHTTPServer):
    """Streams `MODEL said 0 1 2 …` or an answer of its own, a word a token, and keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.sent: list[int] = []
        self.pause = 0.0
        self.answers: dict[str, list[str]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        probe = body["messages"][-1]["content"] == PROBE
        words = self.server.answers.get(body["model"]) or [
            body["model"],
            "said",
            *map(str, range(body["max_tokens"] - 2)),
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if not probe:
            self.server.requests.append(body)
            self.server.sent.append(0)
        for word in words[:3] if probe else words:
            time.sleep(0.0 if probe else self.server.pause)
            try:
                self._event({"choices": [{"delta": {"content": f"{word} "}}]})
            except OSError:
                return
            if not probe:
                self.server.sent[-1] += 1
        self._event({"choices": [{"delta": {}, "finish_reason": "length"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def served() -> Iterator[ModelServer]:
    server = ModelServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def live(opened: Tab, run: Path) -> dict[str, dict[str, Any]]:
    """The answers of the last turn that stand in the tab's conversation, by arm."""
    with sqlite3.connect(run / "votes.sqlite") as db:
        turns = db.execute(
            "SELECT turn, arm, prompt, answer, facts FROM turns WHERE live AND conversation = ?",
            (opened.conversation(),),
        ).fetchall()
    last = max(turn for turn, *_ in turns)
    return {
        arm: {"prompt": prompt, "answer": answer, **json.loads(facts)}
        for turn, arm, prompt, answer, facts in turns
        if turn == last
    }


def wait_for_answers(opened: Tab, turns: int) -> None:
    """Until this many turns stand on the page, each answer with its costs, and nothing runs."""
    done = """turns => {
        const count = selector => document.querySelectorAll(selector).length;
        const answers = count('.sf.turn.assistant');
        return count('.sf.turn.user') === turns && answers >= turns && answers === count('.sf.facts')
            && !document.body.innerText.includes('▍');
    }"""
    opened.page.wait_for_function(done, arg=turns, timeout=90_000)
    opened.page.get_by_role("button", name="Stop", exact=True).wait_for(state="detached", timeout=30_000)
    opened.settle()


def choose(opened: Tab, *arms: str) -> None:
    """Make these the arms of the next prompt."""
    box = opened.page.locator(".st-key-chat_arms input")
    for _ in range(4):
        box.press("Backspace")
        opened.settle()
    for arm in arms:
        box.fill(arm)
        box.press("Enter")
        opened.settle()
    box.press("Escape")
    opened.settle()


def set_up(opened: Tab, **boxes: str) -> None:
    """Fill text and number boxes of the settings by their session keys; answers are shown as they are."""
    opened.page.get_by_text("Plain text", exact=True).click()
    opened.settle()
    opened.click("Settings")
    for key, text in boxes.items():
        box = opened.page.locator(f".st-key-chat_{key}").locator("input, textarea").first
        box.fill(text)
        box.press("Tab")
        opened.settle()
    opened.page.keyboard.press("Escape")
    opened.settle()


def columns(opened: Tab) -> list[tuple[str, str]]:
    """Label and answer of every answer on the page."""
    answers = opened.page.locator(".sf.turn.assistant")
    return [
        (answer.locator(".who").inner_text(), squeezed(answer.locator(":scope > :not(.who)").all_inner_texts()))
        for answer in answers.all()
    ]


def squeezed(texts: list[str]) -> str:
    """Texts as the page shows them, without white space."""
    return "".join(visible("".join(texts)).split())


def test_settings_reach_the_arms_and_the_server(tab, trained_server, served: ModelServer) -> None:
    opened = tab(trained_server)
    opened.open("chat")
    set_up(opened, system="Be brief.", tokens="7", seed="5", url=served.url, model="curated, other")
    opened.click("Settings")
    opened.page.locator(".st-key-chat_temperature").get_by_role("slider").press("ArrowRight")
    opened.settle()
    opened.page.locator(".st-key-chat_top_p").get_by_role("slider").press("ArrowLeft")
    opened.settle()
    opened.page.keyboard.press("Escape")
    host = served.url.removeprefix("http://").removesuffix("/v1")
    choose(opened, "raw", f"curated at {host}", f"other at {host}")
    opened.send_prompt("Who are you?")
    wait_for_answers(opened, 1)
    answers = live(opened, trained_server.run)
    assert set(answers) == {"raw", f"curated at {host}", f"other at {host}"}
    for answer in answers.values():
        assert answer["system"] == "Be brief."
        expected = {"temperature": 0.1, "top_p": 0.95, "max_new_tokens": 7, "seed": 5}
        assert answer["sampling"] == pytest.approx(expected)
        assert answer["tokens"] <= 7
    assert {body["model"] for body in served.requests} == {"curated", "other"}
    for body in served.requests:
        sent = {name: body[name] for name in ("temperature", "top_p", "max_tokens", "seed")}
        assert sent == pytest.approx({"temperature": 0.1, "top_p": 0.95, "max_tokens": 7, "seed": 5})
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
    opened.send_prompt("And now?")
    wait_for_answers(opened, 2)
    messages = next(body["messages"] for body in served.requests[2:] if body["model"] == "other")
    assert messages[2] == {"role": "assistant", "content": "other said 0 1 2 3 4 "}
    opened.assert_clean()


def test_regenerate_and_edit_replace_the_last_turn(tab, trained_server, served: ModelServer) -> None:
    opened = tab(trained_server)
    opened.open("chat")
    set_up(opened, url=served.url, model="far", tokens="6")
    choose(opened, "raw", "far")
    opened.send_prompt("One?")
    wait_for_answers(opened, 1)
    seed = live(opened, trained_server.run)["raw"]["sampling"]["seed"]
    opened.click("Regenerate")
    wait_for_answers(opened, 1)
    again = live(opened, trained_server.run)
    assert [body["seed"] for body in served.requests] == [seed, seed + 1]
    assert all(answer["sampling"]["seed"] == seed + 1 for answer in again.values())
    assert len(again) == 2
    opened.click("Edit prompt")
    box = opened.page.locator('[data-testid="stPopoverBody"] textarea').last
    box.fill("Two?")
    box.press("Tab")
    opened.settle()
    opened.click("Send edited prompt")
    wait_for_answers(opened, 1)
    assert {answer["prompt"] for answer in live(opened, trained_server.run).values()} == {"Two?"}
    assert [message["content"] for message in served.requests[-1]["messages"]] == ["Two?"]
    with sqlite3.connect(trained_server.run / "votes.sqlite") as db:
        count = db.execute("SELECT count(*) FROM turns WHERE conversation = ?", (opened.conversation(),)).fetchone()
    assert count == (6,)  # nothing was lost
    opened.assert_clean()


def test_stop_ends_all_arms_early_and_keeps_their_answers(
    tab, trained_server, served: ModelServer, record_property
) -> None:
    served.pause = 0.05
    opened = tab(trained_server)
    opened.open("chat")
    set_up(opened, url=served.url, model="far", tokens="2000")
    choose(opened, "far", "raw")
    opened.send_prompt("Tell me everything")
    opened.wait_for_text("said 0 1 2")
    start = time.perf_counter()
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    opened.page.get_by_text("by you").first.wait_for(timeout=60_000)
    record_property("seconds from the click to the stored and shown answer", round(time.perf_counter() - start, 2))
    wait_for_answers(opened, 1)
    answers = live(opened, trained_server.run)
    far = next(answer for arm, answer in answers.items() if arm.startswith("far"))
    assert far["stopped"] == "cancelled"
    assert 3 < far["tokens"] < 1000
    assert far["answer"].startswith("far said 0 1 2")
    assert served.sent[0] < 1000
    assert squeezed([far["answer"]]) in columns(opened)[0][1]
    opened.assert_clean()


def test_no_label_ever_stands_over_another_arms_answer(tab, trained_server, served: ModelServer) -> None:
    served.pause = 0.02
    opened = tab(trained_server)
    opened.open("chat")
    set_up(opened, url=served.url, model="far", tokens="60")
    choose(opened, "curated", "raw", "far")
    opened.send_prompt("Door 1?")
    opened.wait_for_text("said 0 1")
    choose(opened, "base", "curated")  # while the others still answer
    wait_for_answers(opened, 1)
    first = live(opened, trained_server.run)
    opened.send_prompt("Door 2?")
    wait_for_answers(opened, 2)
    second = live(opened, trained_server.run)
    assert [sorted(first), sorted(second)] == [
        sorted(["curated", "raw", next(arm for arm in first if arm.startswith("far"))]),
        ["base", "curated"],
    ]
    assert len({answer["fingerprint"] for answer in {**first, **second}.values()}) == 4
    answers = columns(opened)
    order = [sorted(turn, key=lambda arm: turn[arm]["position"]) for turn in (first, second)]
    assert [label for label, _ in answers] == [*order[0], *order[1]]
    assert order[0][:2] == ["curated", "raw"]
    expected = [
        squeezed([turn[arm]["answer"]]) for turn, arms in zip((first, second), order, strict=True) for arm in arms
    ]
    assert [text.removesuffix("(empty)") for _, text in answers] == expected
    assert first["curated"]["fingerprint"] == second["curated"]["fingerprint"]
    prints = [turn[arm]["fingerprint"] for turn, arms in zip((first, second), order, strict=True) for arm in arms]
    timings = opened.page.locator(".sf.facts", has_text="tokens/s").all_inner_texts()
    assert all(print_ in text for print_, text in zip(prints, timings, strict=True))
    opened.assert_clean()


def test_answers_are_markdown_that_loads_nothing_and_one_can_be_continued(tab, trained_server, served) -> None:
    hostile = " ".join(HOSTILE.values())
    served.answers = {
        "one": ["# Head\n\n- **bold**\n\n```python\nx = 1\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |\n\n", hostile],
        "two": ["alpha", "beta", "gamma"],
        "three": ["alpha", "delta", "gamma"],
    }
    opened = tab(trained_server)
    opened.open("chat")
    set_up(opened, url=served.url, model="one, two, three, four", tokens="3")
    opened.page.get_by_text("Plain text", exact=True).click()
    choose(opened, *(f"{name} at" for name in ("one", "two", "three", "four")))
    opened.send_prompt("Hello?")
    wait_for_answers(opened, 1)
    first = opened.page.locator(".sf.turn.assistant").first
    for tag in ("strong", "pre", "td", "li"):
        assert first.locator(tag).count() > 0, tag
    assert opened.page.locator(".sf :is(a, img, script, iframe, svg, style, link, object)").count() == 0
    opened.assert_clean()

    # Words that differ from the first answer are marked; of the second and third these differ in one word.
    opened.page.get_by_text("Differences", exact=True).click()
    opened.settle()
    assert "delta" in opened.page.locator(".sf.turn.assistant").nth(2).locator("mark").all_inner_texts()
    opened.page.get_by_text("Differences", exact=True).click()
    opened.settle()

    # Four answers stand two by two, and on a narrow screen one below the other over its whole width.
    widths = [box["width"] for box in boxes_of_answers(opened)]
    opened.page.set_viewport_size({"width": 800, "height": 900})
    opened.settle()
    assert len(widths) == 4
    assert min(box["width"] for box in boxes_of_answers(opened)) > max(widths)
    assert len({box["x"] for box in boxes_of_answers(opened)}) == 1

    # From now on every arm has the second answer in its history.
    opened.click("Continue with this answer", index=1)
    opened.wait_for_text("All arms continue with the answer of two at")
    opened.send_prompt("And?")
    wait_for_answers(opened, 2)
    assert [body["messages"][1]["content"] for body in served.requests[-4:]] == ["alpha beta gamma "] * 4
    opened.assert_clean()


def boxes_of_answers(opened: Tab) -> list[dict[str, float]]:
    """Where the answers stand."""
    return [answer.bounding_box() for answer in opened.page.locator(".sf.turn.assistant").all()]
