"""What the user does by hand is kept, whatever two browser tabs do at once."""

from __future__ import annotations

import threading
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.review.labels import precision, propose, read_labels, write_label
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, read_overrides, remove_override, write_override
from siftune.training.evaluation.votes import (
    StoredTurn,
    read_choice,
    read_turns,
    replace_turns,
    store_turn,
    store_vote,
    votes_by_pair,
)


def together(*works) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_overrides_of_two_tabs_are_all_kept(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)

    def tab(name: str):
        return lambda: [write_override(run, Override(f"{name}:{n}", "restore", "a\nnote ☃")) for n in range(20)]

    together(tab("one"), tab("two"), tab("three"))
    assert len(read_overrides(run.overrides_path)) == 60
    write_override(run, Override("one:3", "drop"))
    remove_override(run, "two:4")
    overrides = read_overrides(run.overrides_path)
    assert overrides["one:3"].action == "drop"
    assert overrides["one:4"].note == "a\nnote ☃"
    assert "two:4" not in overrides


def test_a_line_that_is_no_override_is_named(plain_run: Path) -> None:
    path = RunFolder.open(plain_run).overrides_path
    path.write_text('{"id": "a", "action": "restore"}\n{"id": "b", "action": "explode"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"overrides.jsonl:2.*explode.*restore, drop"):
        read_overrides(path)


def test_labels_of_two_tabs_are_all_kept_and_the_last_one_counts(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    together(
        *[
            lambda tab=tab: [write_label(run, a=f"{tab}", b=f"{n}", measure="near", same=True) for n in range(30)]
            for tab in "xyz"
        ]
    )
    write_label(run, a="x", b="3", measure="near", same=False)
    write_label(run, a="x", b="3", measure="semantic", same=True)
    labels = read_labels(run, "near")
    assert labels.height == 90
    assert labels.filter(~pl.col("same")).select("a", "b").rows() == [("x", "3")]
    run.labels_path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(UserError, match="not a label"):
        read_labels(run, "near")


def test_a_threshold_is_proposed_where_the_labels_support_it() -> None:
    scored = pl.DataFrame({"score": [0.8 + 0.002 * n for n in range(80)], "same": [n >= 30 for n in range(80)]})
    proposed = propose(scored, target=0.9)
    assert proposed is not None
    assert precision(scored, proposed).low >= 0.9
    lower = [score for score in scored["score"] if score < proposed]
    assert all(precision(scored, score).low < 0.9 for score in lower)
    assert propose(scored.tail(35), target=0.9) is None
    assert propose(scored.tail(36), target=0.9) is not None


def turn(number: int, arm: str, round_: str = "r", answer: str = "a") -> StoredTurn:
    return StoredTurn(f"{round_}{number}", arm, "c", number, f"prompt {number}", answer, {"tokens": 3})


def test_a_round_is_voted_on_once_whatever_the_tabs_do(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    counted: list[bool] = []
    work = [
        lambda n=n: counted.append(store_vote(run, round_=f"r{n % 5}", left="raw", right="curated", choice="left"))
        for n in range(20)
    ]
    together(*work)
    assert sorted(counted) == [False] * 15 + [True] * 5
    assert read_choice(run, "r3") == "left"
    assert read_choice(run, "never") is None


def test_votes_are_counted_for_the_arm_and_not_for_the_side(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    store_vote(run, round_="1", left="raw", right="curated", choice="right")
    store_vote(run, round_="2", left="curated", right="raw", choice="left")
    store_vote(run, round_="3", left="curated", right="raw", choice="right")
    store_vote(run, round_="4", left="curated", right="raw", choice="tie")
    store_vote(run, round_="5", left="curated", right="raw", choice="both bad")
    (tally,) = votes_by_pair(run)
    assert (tally.first, tally.second, tally.both_bad) == ("curated", "raw", 1)
    assert (tally.result.wins, tally.result.losses, tally.result.ties) == (2, 1, 2)


def test_turns_that_were_replaced_leave_the_conversation_and_keep_their_votes(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    for number in range(3):
        store_turn(run, turn(number, "raw"))
        store_turn(run, turn(number, "curated"))
    store_vote(run, round_="r1", left="raw", right="curated", choice="tie")
    replace_turns(run, "c", since=1)
    assert {(turn.turn, turn.arm) for turn in read_turns(run, "c")} == {(0, "raw"), (0, "curated")}
    store_turn(run, turn(1, "raw", round_="again", answer="new"))
    assert [turn.answer for turn in read_turns(run, "c") if turn.turn == 1] == ["new"]
    assert votes_by_pair(run)[0].result.ties == 1
