"""Shared runs of words against brute force, and their averages by arm."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.memorization import longest_shared_runs, read_memorization
from siftune.training.evaluation.prompt_answers import ANSWERS, write_answers

WORDS = st.lists(st.sampled_from(["a", "b", "c", "dé", "42"]), max_size=12).map(" ".join)


def write_arm(path: Path, turns: list[list[str]]) -> Path:
    rows = [
        {
            "id": f"s:{index}",
            "messages": [{"role": "user", "content": "never this"}]
            + [{"role": "assistant", "content": text} for text in texts],
        }
        for index, texts in enumerate(turns)
    ]
    schema.conform(
        pl.DataFrame(rows, schema={"id": pl.String, "messages": pl.List(schema.MESSAGE)}), schema.ARM
    ).write_parquet(path)
    return path


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def brute_force(answer: str, turns: list[str]) -> int:
    """The length of the longest run of words of `answer` that one of `turns` contains."""

    def runs(text: str) -> set[tuple[str, ...]]:
        tokens = words(text)
        return {tuple(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)}

    return max((len(run) for turn in turns for run in runs(answer) & runs(turn)), default=0)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(st.lists(WORDS, max_size=3), min_size=1, max_size=5))
def test_the_longest_shared_run_is_what_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, answers: list[str], turns: list[list[str]]
) -> None:
    path = write_arm(tmp_path_factory.mktemp("arm") / "arm.parquet", turns)
    flat = [text for texts in turns for text in texts]
    for answer, shared in zip(answers, longest_shared_runs(answers, path), strict=True):
        assert shared.words == brute_force(answer, flat)
        assert len(shared.text.split()) == shared.words
        assert shared.text in " ".join(words(answer))
        assert shared.share == pytest.approx(shared.words / max(1, len(words(answer))))


def test_batches_do_not_change_the_result(tmp_path: Path) -> None:
    turns = [[f"row {i} holds the number {i * i} and words"] for i in range(9)] + [["The cat SAT, on the mat!"]]
    path = write_arm(tmp_path / "arm.parquet", turns)
    answers = ["he said: the cat sat on the mat today", "row 7 holds the number 49 and more", "nothing alike", ""]
    in_one_batch = longest_shared_runs(answers, path)
    assert [(shared.words, shared.text) for shared in in_one_batch] == [
        (6, "the cat sat on the mat"),
        (7, "row 7 holds the number 49 and"),
        (0, ""),
        (0, ""),
    ]
    assert longest_shared_runs(answers, path, batch_rows=2) == in_one_batch


def test_a_run_does_not_go_on_from_one_turn_into_the_next(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "arm.parquet", [["one two", "three four"], ["five six"]])
    assert longest_shared_runs(["one two three four five six"], path)[0].words == 2
    assert longest_shared_runs(["never this"], path)[0].words == 0, "what users ask is not trained"


def test_memorization_is_averaged_by_arm_in_the_order_of_arms(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_memorization(run) == ()
    rows = [("curated", 4, 0.4), ("raw", 6, 0.6), ("raw", 2, 0.1), ("base", None, None)]
    columns = {"arm": pl.String, "repeated_words": pl.Int64, "repeated_share": pl.Float64}
    write_answers(schema.conform(pl.DataFrame(rows, schema=columns, orient="row"), ANSWERS), run)
    raw, curated = read_memorization(run)
    assert (raw.arm, raw.answers, raw.mean_words, raw.longest_words) == ("raw", 2, 4.0, 6)
    assert raw.mean_share == pytest.approx(0.35)
    assert (curated.arm, curated.answers, curated.mean_words, curated.longest_words) == ("curated", 1, 4.0, 4)
