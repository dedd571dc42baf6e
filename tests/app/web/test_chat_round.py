"""Two real tiny adapters answer through the threads, the queue and the store that the chat page uses."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from siftune.app.web import state
from siftune.app.web.chat_round import ArmAnswer, ChatRound, arm_order
from siftune.app.web.transcript import as_jsonl, as_markdown, history
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.votes import read_turns
from siftune.training.inference.engine import Chunk, Engine, Message, Request, Sampling
from siftune.training.inference.factory import open_engine


@pytest.fixture(scope="module")
def engine(trained_world: Path) -> Engine:
    run = RunFolder.open(trained_world)
    return open_engine(run.path, run.recipe)


def wait(chat_round: ChatRound) -> None:
    for _ in range(3000):
        chat_round.drain()
        if chat_round.finished:
            return
        time.sleep(0.01)
    raise AssertionError("no end")


def ask(run: Path, engine: Engine, arms: Sequence[str], *, tokens: int = 12, **more: object) -> ChatRound:
    chat_round = ChatRound(RunFolder.open(run), "c", 0, "What colour has door 3?", **more)
    sampling = Sampling(max_new_tokens=tokens)
    chat_round.submit(engine, [Request(arm, (Message("user", chat_round.prompt),), sampling) for arm in arms])
    return chat_round


def test_an_answer_stands_under_the_arm_whose_weights_gave_it(done_run: Path, engine: Engine) -> None:
    alone = {}
    for arm in ("raw", "curated"):
        request = Request(arm, (Message("user", "What colour has door 3?"),), Sampling(max_new_tokens=12))
        alone[arm] = "".join(chunk.text for chunk in engine.stream([request]))
    assert alone["raw"] != alone["curated"]
    for arms in (("raw", "curated"), ("curated", "raw"), ("curated", "base", "raw")):
        chat_round = ask(done_run, engine, arms)
        wait(chat_round)
        stored = {
            turn.arm: turn for turn in read_turns(RunFolder.open(done_run), "c") if turn.round == chat_round.round
        }
        for arm in ("raw", "curated"):
            weights = RunFolder.open(done_run).adapter(arm, 0) / "adapter_model.safetensors"
            assert stored[arm].answer == chat_round.answers[arm].text == alone[arm]
            assert stored[arm].facts["weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert stored["raw"].facts["tokens"] == 12


def test_both_arms_stream_at_the_same_time(done_run: Path, engine: Engine) -> None:
    requests = [Request(arm, (Message("user", "Tell me"),), Sampling(max_new_tokens=20)) for arm in ("raw", "curated")]
    order = [chunk.request for chunk in engine.stream(requests)]
    assert order.index(1) < 3
    assert len(order) - order[::-1].index(0) > len(order) - 4


def test_stop_keeps_the_text_so_far(done_run: Path, engine: Engine) -> None:
    gate = _Gate(engine)
    chat_round = ask(done_run, gate, ("raw", "curated"), tokens=300)
    assert gate.begun.wait(30)
    chat_round.stop()
    gate.go.set()
    wait(chat_round)
    turns = read_turns(RunFolder.open(done_run), "c")
    assert {turn.arm for turn in turns} == {"raw", "curated"}
    for turn in turns:
        assert turn.facts["stopped"] == "cancelled"
        assert 0 < turn.facts["tokens"] <= 6
        assert turn.answer == chat_round.answers[turn.arm].text


class _Gate:
    """A real engine that waits after its third chunk until it is let go."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.kind, self.arms, self.fingerprint, self.close = engine.kind, engine.arms, engine.fingerprint, engine.close
        self.begun, self.go = threading.Event(), threading.Event()

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        for number, chunk in enumerate(self._engine.stream(requests, stop=stop)):
            if number == 3:
                self.begun.set()
                assert self.go.wait(60)
            yield chunk


def test_an_answer_is_stored_although_nobody_looks(done_run: Path, engine: Engine) -> None:
    """The tab was closed: nothing drains the queue, and the finished answer is there when it is opened again."""
    gate = _Gate(engine)
    ask(done_run, gate, ("raw", "curated"))
    gate.go.set()
    for _ in range(3000):
        if len(read_turns(RunFolder.open(done_run), "c")) == 2:
            break
        time.sleep(0.01)
    assert {turn.arm for turn in read_turns(RunFolder.open(done_run), "c")} == {"raw", "curated"}


def test_a_fault_of_the_engine_ends_the_wait_and_is_reported(done_run: Path, engine: Engine) -> None:
    chat_round = ask(done_run, engine, ("raw",), tokens=100_000)
    wait(chat_round)
    assert "Shorten the conversation" in (chat_round.answers["raw"].fault or "")
    assert read_turns(RunFolder.open(done_run), "c") == []


def test_blind_sides_are_shuffled_by_round_and_stay_where_they_are() -> None:
    orders = [arm_order(f"round {number}", ["raw", "curated"], blind=True) for number in range(200)]
    assert 70 < sum(order == ["raw", "curated"] for order in orders) < 130
    assert orders == [arm_order(f"round {number}", ["curated", "raw"], blind=True) for number in range(200)]
    assert arm_order("x", ["raw", "curated"], blind=False) == ["raw", "curated"]


def test_the_pace_of_blind_mode_does_not_tell_the_faster_side(plain_run: Path) -> None:
    chat_round = ChatRound(RunFolder.open(plain_run), "c", 0, "p", blind=True)
    fast, slow = ArmAnswer("raw"), ArmAnswer("curated")
    chat_round.answers = {"raw": fast, "curated": slow}
    seen = []
    for tick in range(60):
        fast.text = "f" * min(400, 60 * tick)
        slow.text = "s" * min(120, 4 * tick)
        fast.finished, slow.finished = len(fast.text) == 400, len(slow.text) == 120
        length = chat_round.reveal(18)
        seen.append((len(fast.text[:length]), len(slow.text[:length])))
        if not slow.finished:
            assert seen[-1][0] == seen[-1][1]
    steps = [two[0] - one[0] for one, two in itertools.pairwise(seen)]
    assert max(steps) <= 18
    assert chat_round.fully_revealed
    assert seen[-1] == (400, 120)


def test_a_conversation_is_exported_as_training_data_and_as_text(done_run: Path, engine: Engine) -> None:
    wait(ask(done_run, engine, ("raw", "curated"), system="Be brief."))
    turns = read_turns(RunFolder.open(done_run), "c")
    lines = [json.loads(line) for line in as_jsonl(turns).splitlines()]
    assert [line["arm"] for line in lines] == [turn.arm for turn in turns]
    for line, turn in zip(lines, turns, strict=True):
        assert [message["role"] for message in line["messages"]] == ["system", "user", "assistant"]
        assert line["messages"][-1]["content"] == turn.answer
        assert line["fingerprints"] == [str(engine.fingerprint(turn.arm))]
    assert history(turns, "raw", system="")[-1]["content"] == next(t.answer for t in turns if t.arm == "raw")
    assert all(turn.answer.split("\n")[0] in as_markdown(turns) for turn in turns)


def test_the_same_weights_under_two_names_are_refused(done_run: Path) -> None:
    run = RunFolder.open(done_run)
    shutil.copytree(run.adapter("raw", 0), run.adapter("curated", 0), dirs_exist_ok=True)
    with pytest.raises(UserError, match="same weights"):
        open_engine(run.path, run.recipe)


def test_a_loaded_engine_leaves_the_collector_little_to_look_at_after_each_run_of_a_page(done_run: Path) -> None:
    try:
        state.engine(RunFolder.open(done_run))
        assert gc.get_freeze_count() > 20 * len(gc.get_objects())
    finally:
        gc.unfreeze()
