"""Repeated text against brute force."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.training.evaluation import memorization
from siftune.training.evaluation.memorization import repeated

WORDS = st.lists(st.sampled_from(["a", "b", "c", "dé", "42"]), max_size=12).map(" ".join)


def write_arm(path: Path, turns: list[list[str]]) -> Path:
    rows = [
        {
            "id": f"s:{place}",
            "messages": [{"role": "user", "content": "never this"}]
            + [{"role": "assistant", "content": text} for text in texts],
        }
        for place, texts in enumerate(turns)
    ]
    schema.conform(
        pl.DataFrame(rows, schema={"id": pl.String, "messages": pl.List(schema.MESSAGE)}), schema.ARM
    ).write_parquet(path)
    return path


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def brute(answer: str, turns: list[str]) -> int:
    asked = words(answer)
    best = 0
    for turn in turns:
        there = words(turn)
        runs = {tuple(there[i:j]) for i in range(len(there)) for j in range(i + 1, len(there) + 1)}
        best = max(
            [
                best,
                *(j - i for i in range(len(asked)) for j in range(i + 1, len(asked) + 1) if tuple(asked[i:j]) in runs),
            ]
        )
    return best


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(st.lists(WORDS, max_size=3), min_size=1, max_size=5))
def test_the_longest_run_is_what_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, answers: list[str], turns: list[list[str]]
) -> None:
    path = write_arm(tmp_path_factory.mktemp("arm") / "arm.parquet", turns)
    found = repeated(answers, path)
    flat = [text for texts in turns for text in texts]
    for answer, one in zip(answers, found, strict=True):
        assert one.words == brute(answer, flat)
        assert len(one.text.split()) == one.words
        assert one.text in " ".join(words(answer))
        assert one.share == pytest.approx(one.words / max(1, len(words(answer))))


def test_batches_do_not_change_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [[f"row {i} holds the number {i * i} and words"] for i in range(9)] + [["The cat SAT, on the mat!"]]
    path = write_arm(tmp_path / "arm.parquet", turns)
    answers = ["he said: the cat sat on the mat today", "row 7 holds the number 49 and more", "nothing alike", ""]
    whole = repeated(answers, path)
    assert [(one.words, one.text) for one in whole] == [
        (6, "the cat sat on the mat"),
        (7, "row 7 holds the number 49 and"),
        (0, ""),
        (0, ""),
    ]
    monkeypatch.setattr(memorization, "_BATCH_ROWS", 2)
    assert repeated(answers, path) == whole


def test_a_run_does_not_go_on_from_one_turn_into_the_next(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "arm.parquet", [["one two", "three four"], ["five six"]])
    assert repeated(["one two three four five six"], path)[0].words == 2
    assert repeated(["never this"], path)[0].words == 0, "what users ask is not trained"
