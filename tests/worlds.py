"""Small sets of instruction rows, full of copies, for the tests of the invariants."""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import strategies as st

from siftune.curation.cache_folder import cache_folder
from siftune.curation.embeddings import store

#: Words that the guard has nothing to say about.
WORDS = [
    *("river", "stone", "garden", "window", "silver", "bread", "winter", "castle", "forest", "mirror"),
    *("candle", "harbour", "meadow", "orange", "pepper", "saddle", "thunder", "velvet", "walnut", "yellow"),
]
_PROMPTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
#: The guard protects every word of an answer of fewer than 12 words; so most have more.
_ANSWERS = st.lists(st.sampled_from(WORDS), min_size=12, max_size=16).map(" ".join) | _PROMPTS


@st.composite
def rows(draw: st.DrawFn, *, most: int = 24) -> list[dict[str, Any]]:
    """Rows that often copy an earlier one: whole, or with a word, a number, the case or the answer changed."""
    made: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(2, most))):
        fresh = {"instruction": draw(_PROMPTS), "output": draw(_ANSWERS)}
        if not made or draw(st.integers(0, 3)) == 0:
            made.append(fresh)
            continue
        copied = dict(made[draw(st.integers(0, len(made) - 1))])
        change = draw(st.sampled_from(["none", "space", "case", "word", "number", "answer", "prompt", "broken"]))
        if change == "space":
            copied["instruction"] = copied["instruction"].replace(" ", "  ")
        elif change == "case":
            copied["instruction"] = copied["instruction"].capitalize()
        elif change == "word":
            copied["output"] = (copied["output"] or "river") + " " + draw(st.sampled_from(WORDS))
        elif change == "number":
            copied["instruction"] += f" {draw(st.integers(0, 3))}"
        elif change == "answer":
            copied["output"] = fresh["output"]
        elif change == "prompt":
            copied["instruction"] = fresh["instruction"]
        elif change == "broken":
            copied["output"] = None
        made.append(copied)
    return made


def many(count: int, *, seed: int = 7) -> list[dict[str, Any]]:
    """Random rows, every third a copy of an earlier one with a word changed."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(count):
        words = [draw.choice(WORDS) + draw.choice(WORDS) for _ in range(24)]
        if number % 3 == 2:
            copied = made[draw.randrange(len(made))]
            words = [*copied["instruction"].split(), *copied["output"].split()]
            words[draw.randrange(24)] = "changed"
        made.append({"instruction": " ".join(words[:12]), "output": " ".join(words[12:])})
    return made


def write_source(rows: list[dict[str, Any]], path: Path) -> Path:
    """The rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path, source: str, *, run: str = "run", **sections: Any) -> Path:
    """A recipe that finds duplicates in short texts, without an encoder; `sections` replace its own."""
    document: dict[str, Any] = {
        "name": "tiny",
        "run": run,
        "sources": [{"path": source, "name": "s", "format": "alpaca"}],
        "encoder": None,
        "duplicates": {
            "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
            "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
            "conflicts": "drop",
        },
    }
    path = folder / "tiny.yaml"
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


class BagOfWords:
    """An encoder without weights: counts of words, hashed into 64 dimensions. Word order does not count."""

    name = "bag-of-words"

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        counts = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                counts[row, zlib.crc32(word.encode()) % 64] += 1
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return counts / np.where(lengths > 0, lengths, 1)


def cosine(one: str, two: str) -> float:
    """The cosine of two texts by `BagOfWords`, as it is stored (float16), without our code."""
    a, b = BagOfWords().encode([one, two]).astype(np.float16).astype(float)
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b))) if a.any() and b.any() else 0.0


def share_tokenizers(cache: Path) -> Path:
    """Let another cache folder use the stored tokenizers of the present one: reading a GGUF file takes 15 seconds."""
    stored = cache_folder() / "tokenizers"
    stored.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "tokenizers").symlink_to(stored.resolve())
    return cache


@contextmanager
def bag_encoder(cache: Path) -> Iterator[str]:
    """While this is open, every encoder that a recipe names is `BagOfWords`; yields a name for `encoder:`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIFTUNE_CACHE", str(cache if (cache / "tokenizers").exists() else share_tokenizers(cache)))
        patch.setattr(store, "load", lambda name: BagOfWords())
        store.embedder.cache_clear()
        yield BagOfWords.name
        store.embedder.cache_clear()
