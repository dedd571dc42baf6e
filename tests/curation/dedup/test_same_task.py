"""A duplicate is the same task with the same answer: whole runs on rows that share much text and are none."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from siftune.curation.pipeline import curate
from tests.worlds import WORDS


def passage(seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(f"The {' '.join(draw.choices(WORDS, k=9))}." for _ in range(16))


def dropped(folder: Path, rows: list[list[dict[str, str]]], **duplicates: Any) -> dict[int, tuple[str, str]]:
    """Which rows are dropped, by which stage and with which detail."""
    folder.mkdir(exist_ok=True)
    (folder / "s.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    recipe = {"name": "t", "run": "run", "sources": [{"path": "s.jsonl", "name": "s"}], "encoder": None}
    (folder / "r.yaml").write_text(yaml.safe_dump({**recipe, "duplicates": duplicates}), encoding="utf-8")
    ledger = curate(folder / "r.yaml").ledger().filter(pl.col("action") == "drop")
    columns = ledger.select(pl.col("id").str.extract(r"(\d+)$").cast(pl.Int64), "stage", "detail")
    return {row: (stage, detail) for row, stage, detail in columns.iter_rows()}


def turns(prompt: str, answer: str, *, system: str | None = None) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return [{"role": "system", "content": system}, *messages] if system else messages


def test_what_rows_share_does_not_make_them_duplicates(tmp_path: Path) -> None:
    rows = []
    for seed in range(6):
        rows.append(turns(f"{passage(seed)}\nWho went home?", f"The baker of {WORDS[seed]}"))
        rows.append(turns(f"{passage(seed)}\nWhat broke in the tower?", f"A {WORDS[seed + 6]} of glass"))
    for seed in range(6, 9):
        rows.append(turns(f"{passage(seed)}\nDid the baker travel?", "Yes"))
        rows.append(turns(f"{passage(seed)}\nWas something hidden there?", "Yes"))
    # The answers are long and nearly the same; they differ where the questions do.
    for thing, verdict in (("rough", "no"), ("smooth", "yes")):
        rows.append(turns(f"{passage(9)}\nIs it {thing}?", f"{passage(10)} So the answer is {verdict}"))
    long, short = passage(11), "A summary of what happened to the stone in the garden when nobody looked"
    rows.append(turns(f"Summarise: {long}", short))
    rows.append(turns(f"Write the article of this summary: {short}", long))
    assert dropped(tmp_path, rows) == {}


def test_near_copies_are_still_dropped_and_the_ledger_says_how_alike_both_sides_are(tmp_path: Path) -> None:
    answer = passage(1)
    rows = [
        turns("Tell me of the old garden", answer),
        turns("Please tell me of the old garden", answer),
        turns(f"{passage(2)}\nWho went home?", "The baker"),
        turns(f"{passage(2)}\nQuestion: Who went home?", "The baker."),
        turns("Tell me of\u00ad the old g\u0430rden", answer),
    ]
    assert dropped(tmp_path, rows) == {
        1: ("near", "prompt 0.80, answer 1.00"),
        3: ("near", "prompt 0.96, answer 1.00"),
        4: ("exact", "prompt 1.00, answer 1.00"),
    }


def test_a_row_with_another_system_prompt_is_another_example(tmp_path: Path) -> None:
    answer = passage(3)
    rows = [
        turns("Tell me of the old garden", answer, system="Be brief."),
        turns("Tell me of the old garden", answer, system="You are a pirate."),
        turns("Please tell me of the old garden", answer, system="Be a friend."),
        turns("Tell me of the old garden", answer, system=" Be  brief."),
        turns("Tell me of the old garden", passage(4), system="Be long."),
    ]
    assert dropped(tmp_path / "kept", rows, conflicts="drop").keys() == {3}
    ignored = dropped(tmp_path / "ignored", rows, conflicts="drop", system="ignore")
    assert {row: stage for row, (stage, _) in ignored.items()} == {1: "exact", 2: "near", 3: "exact", 4: "conflicts"}
