"""Beginnings of dialogues against plain Python lists, and what keeps a shorter dialogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.prefixes import DialoguePrefixes
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import Source
from siftune.curation.review.inspect import inspect
from siftune.curation.run.overrides import Override, write_override
from siftune.curation.schema import EXAMPLES, INDEX, MESSAGE

Turn = tuple[str, str]
QUESTIONS = [("user", "What is a mortgage?"), ("user", "And who lends the money then?"), ("user", "For how long?")]
ANSWERS = [("assistant", text) for text in ("A loan on a house.", "A bank as a rule.", "Thirty years, often.")]
DIALOGUE = [turn for pair in zip(QUESTIONS, ANSWERS, strict=True) for turn in pair]


def write_examples(rows: list[tuple[list[Turn], dict[str, Any]]], path: Path) -> Corpus:
    """EXAMPLES of dialogues and their meta."""
    frame = pl.DataFrame(
        {
            "id": [f"s:{row}" for row in range(len(rows))],
            "source": "s",
            "split": pl.Series([None] * len(rows), dtype=pl.String),
            "messages": pl.Series(
                [[{"role": role, "content": content} for role, content in turns] for turns, _ in rows],
                dtype=pl.List(MESSAGE),
            ),
            "meta": [json.dumps(meta) for _, meta in rows],
        },
        schema=EXAMPLES,
    )
    frame.write_parquet(path)
    return Corpus(path, path, "key")


def index_of(rows: list[tuple[list[Turn], dict[str, Any]]], **columns: Any) -> pl.DataFrame:
    count = len(rows)
    frame = pl.DataFrame({"row": range(count), "id": [f"s:{row}" for row in range(count)]})
    given_columns = {"source": pl.lit("s"), "split": None, "rank": pl.col("row"), "pinned": False} | columns
    turns = pl.Series([len(turns) for turns, _ in rows], dtype=pl.UInt32)
    frame = frame.with_columns(turns=turns, prompt_words=1, answer_words=1, **given_columns)
    return frame.select(pl.col(name).cast(kind) for name, kind in INDEX.items())


def drops(rows: list[tuple[list[Turn], dict[str, Any]]], folder: Path, **columns: Any) -> dict[int, int]:
    """Each dropped row and its witness."""
    alive, stage = index_of(rows, **columns), DialoguePrefixes("distinguish")
    measured = stage.measure(write_examples(rows, folder / "examples.parquet"), alive, None).frame
    decided = stage.decide(alive, measured).filter(action="drop")
    return {int(a.removeprefix("s:")): int(b.removeprefix("s:")) for a, b in decided.select("id", "witness").rows()}


dialogues = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(
    lambda said: [(role, text) for text in said for role in ("user", "assistant")]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(dialogues, st.sampled_from([None, "Be kind."])), min_size=1, max_size=12, unique_by=str))
def test_what_is_dropped_is_what_lists_say(tmp_path: Path, world: list[tuple[list[Turn], str | None]]) -> None:
    rows = [([("system", system)] * (system is not None) + turns, {}) for turns, system in world]
    turns = [row[0] for row in rows]
    longer = {
        one: [
            two
            for two in range(len(rows))
            if len(turns[two]) > len(turns[one]) and turns[two][: len(turns[one])] == turns[one]
        ]
        for one in range(len(rows))
    }
    found = drops(rows, tmp_path)
    assert set(found) == {one for one, others in longer.items() if others}
    for row, witness in found.items():
        assert len(turns[witness]) == max(len(turns[other]) for other in longer[row])
        assert witness == min(other for other in longer[row] if len(turns[other]) == len(turns[witness]))


@pytest.mark.parametrize(
    ("short", "long", "dropped"),
    [
        (DIALOGUE[:2], DIALOGUE, True),
        ([("user", "What  is a\nmortgage?"), *DIALOGUE[1:4]], DIALOGUE, True),
        ([("user", "What is a Mortgage?"), *DIALOGUE[1:4]], DIALOGUE, False),
        ([*DIALOGUE[:3], ("assistant", "Nobody.")], DIALOGUE, False),
        ([("system", "Be kind."), *DIALOGUE[:2]], DIALOGUE, False),
        ([("tool", DIALOGUE[0][1]), *DIALOGUE[1:2]], DIALOGUE, False),
    ],
)
def test_every_turn_must_stand_in_the_longer_dialogue(
    tmp_path: Path, short: list[Turn], long: list[Turn], dropped: bool
) -> None:
    assert drops([(long, {}), (short, {})], tmp_path) == ({1: 0} if dropped else {})


@pytest.mark.parametrize(
    ("short", "long", "dropped"),
    [
        # Rows that train only their last answer: the longer one does not train the answer of the shorter one.
        ({}, {"_turns": {"1": {"weight": 0}}}, False),
        ({"_turns": {"1": {"train": False}}}, {"_turns": {"1": {"weight": 0}}}, True),
        ({"_turns": {"1": {"weight": 0}}}, {}, True),
        ({}, {"_turns": {"5": {"weight": 0}}}, True),
        ({"_turns": {"1": {"name": "guide"}}}, {}, False),
        ({"tools": [{"name": "f"}]}, {}, False),
        ({"tools": [{"name": "f"}], "topic": 1}, {"tools": [{"name": "f"}]}, True),
    ],
)
def test_masks_fields_and_tools_are_part_of_a_dialogue(
    tmp_path: Path, short: dict[str, Any], long: dict[str, Any], dropped: bool
) -> None:
    assert drops([(DIALOGUE[:4], short), (DIALOGUE, long)], tmp_path) == ({0: 1} if dropped else {})


def test_restored_and_held_out_rows_stay(tmp_path: Path) -> None:
    rows = [(DIALOGUE[:2], {}), (DIALOGUE[:4], {}), (DIALOGUE, {})]
    assert drops(rows, tmp_path) == {0: 2, 1: 2}
    assert drops(rows, tmp_path, pinned=pl.Series([True, False, False])) == {1: 2}
    assert drops(rows, tmp_path, split=pl.Series(["test", "test_sft", "train"])) == {0: 1}
    assert drops(rows, tmp_path, split=pl.Series(["train", "test", None])) == {0: 2}


def test_a_run_keeps_the_longest_and_inspect_counts_the_others(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": role, "content": content} for role, content in turns]}
        for turns in (DIALOGUE[:2], DIALOGUE, DIALOGUE[:4], [("user", "A river?"), ("assistant", "The Elbe.")])
    ]
    rows += [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "x"}]} for n in range(8)
    ]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"sources": [{"path": "s.jsonl"}], "encoder": None, "run": "run"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    run = curate(tmp_path / "r.yaml")
    columns = ["id", "stage", "reason", "score", "witness", "detail"]
    assert run.ledger().filter(action="drop").select(columns).rows() == [
        ("s:0", "prefixes", "dialogue_prefix", 1.0, "s:1", "its 2 turns open a dialogue of 6"),
        ("s:2", "prefixes", "dialogue_prefix", 1.0, "s:1", "its 4 turns open a dialogue of 6"),
    ]
    write_override(run, Override(id="s:0", action="restore"))
    assert curate(tmp_path / "r.yaml").ledger().filter(action="drop")["id"].to_list() == ["s:2"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"duplicates": {"prefixes": False}, "run": "off"}))
    assert curate(tmp_path / "r.yaml").ledger().filter(action="drop").is_empty()

    inspection = inspect(Source(path="s.jsonl"), base=tmp_path)
    assert inspection.duplicates is not None
    assert (inspection.duplicates.prefixes, inspection.duplicates.prefix) == (2, ("s:0", "s:1"))
    assert any("2 rows are the beginning of another row's dialogue (s:0 opens s:1)" in w for w in inspection.warnings)
