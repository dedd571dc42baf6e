"""Small worlds of instruction rows, full of copies, for the law tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from hypothesis import strategies as st

WORDS = [
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"),
    *("lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon"),
]
_SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


@st.composite
def rows(draw: st.DrawFn, *, most: int = 24) -> list[dict[str, Any]]:
    """Rows that often copy an earlier one: whole, or with a word, a number, the case or the answer changed."""
    found: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(2, most))):
        fresh = {"instruction": draw(_SENTENCES), "output": draw(_SENTENCES)}
        if not found or draw(st.integers(0, 3)) == 0:
            found.append(fresh)
            continue
        copied = dict(found[draw(st.integers(0, len(found) - 1))])
        change = draw(st.sampled_from(["none", "space", "case", "word", "number", "answer", "prompt", "broken"]))
        if change == "space":
            copied["instruction"] = copied["instruction"].replace(" ", "  ")
        elif change == "case":
            copied["instruction"] = copied["instruction"].capitalize()
        elif change == "word":
            copied["output"] = (copied["output"] or "alpha") + " " + draw(st.sampled_from(WORDS))
        elif change == "number":
            copied["instruction"] += f" {draw(st.integers(0, 3))}"
        elif change == "answer":
            copied["output"] = fresh["output"]
        elif change == "prompt":
            copied["instruction"] = fresh["instruction"]
        elif change == "broken":
            copied["output"] = None
        found.append(copied)
    return found


def many(count: int, *, seed: int = 7) -> list[dict[str, Any]]:
    """Random rows, every third a copy of an earlier one with a word changed."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    for number in range(count):
        words = [draw.choice(WORDS) + draw.choice(WORDS) for _ in range(24)]
        if number % 3 == 2:
            words = found[draw.randrange(len(found))]["instruction"].split() + words[12:]
            words[draw.randrange(12)] = "changed"
        found.append({"instruction": " ".join(words[:12]), "output": " ".join(words[12:])})
    return found


def write_source(rows: list[dict[str, Any]], path: Path) -> Path:
    """The rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path, source: str, *, run: str = "run", **sections: Any) -> Path:
    """A recipe that finds duplicates in short texts, without an encoder; `sections` replace its own."""
    document: dict[str, Any] = {
        "name": "law",
        "run": run,
        "sources": [{"path": source, "name": "s", "format": "alpaca"}],
        "encoder": None,
        "duplicates": {
            "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
            "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
            "conflicts": "drop",
        },
    }
    path = folder / "law.yaml"
    path.write_text(yaml.safe_dump({**document, **sections}), encoding="utf-8")
    return path


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    """The word shingles of a plain ASCII text, by the rule for short texts: an oracle that shares no code with us."""
    words = text.lower().split()
    return {tuple(words[at : at + size]) for at in range(max(1, len(words) - size + 1))} if words else set()


def jaccard(one: str, two: str, size: int) -> float:
    """The Jaccard similarity of the shingle sets of two plain ASCII texts."""
    a, b = shingles(one, size), shingles(two, size)
    return len(a & b) / len(a | b) if a | b else 0.0


def kept_rows(run: Path) -> list[dict[str, Any]]:
    """The curated rows of a run, as alpaca rows again."""
    frame = pl.read_parquet(run / "curated" / "train.parquet")
    return [
        {"instruction": messages[0]["content"], "output": messages[-1]["content"]}
        for messages in frame["messages"].to_list()
    ]
