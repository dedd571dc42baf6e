"""The semantic stage encodes whole rows only where a prompt resembles another one, and finds the same pairs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from siftune.curation.pipeline import curate
from siftune.curation.review.funnel import warnings
from siftune.curation.run.folder import RunFolder
from tests.worlds import WORDS, BagOfWords, bag_encoder, write_recipe, write_source


class Counting(BagOfWords):
    """Remembers what it was asked to encode."""

    encoded: list[str] = []  # noqa: RUF012 - of all instances: a run makes its own

    def encode(self, texts: Any, progress: object = None) -> Any:
        Counting.encoded += texts
        return super().encode(texts, progress)


def rows() -> list[dict[str, str]]:
    """Unlike rows; rows with the words of another one in another order; and rows with another answer."""
    draw = random.Random(3)
    made = []
    for number in range(40):
        prompt = [f"{draw.choice(WORDS)}{draw.choice(WORDS)}" for _ in range(8)]
        answer = [f"{draw.choice(WORDS)}{draw.choice(WORDS)}" for _ in range(16)]
        made.append((prompt, answer))
        if number % 5 == 0:
            made.append((prompt[::-1], answer[::-1]))
        if number % 7 == 0:
            made.append((prompt, draw.sample(answer, 3) + [f"other{number}{place}" for place in range(13)]))
    return [{"instruction": " ".join(prompt), "output": " ".join(answer)} for prompt, answer in made]


def run_of(folder: Path, *, preselect: bool) -> RunFolder:
    semantic = {"threshold": 0.95, "floor": 0.9, "rows": 0.9, "preselect": preselect}
    recipe = write_recipe(
        folder,
        "s.jsonl",
        run=f"run-{preselect}",
        encoder="bag",
        duplicates={"near": None, "answers": None, "semantic": semantic},
    )
    return curate(recipe)


def test_rows_with_a_prompt_of_their_own_are_not_encoded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siftune.curation.embeddings import store

    source = rows()
    write_source(source, tmp_path / "s.jsonl")
    with bag_encoder(tmp_path / "cache"):
        monkeypatch.setattr(store, "load", lambda name: Counting())
        store.embedder.cache_clear()
        Counting.encoded = []
        preselected = run_of(tmp_path, preselect=True)
        prompts = {row["instruction"] for row in source}
        encoded_rows = [text for text in Counting.encoded if "\n" in text or len(text.split()) == 24]
        assert prompts <= set(Counting.encoded)
        exhaustive = run_of(tmp_path, preselect=False)
    # 8 reversed rows with their originals, and 6 rows with another answer; four of the originals are in both.
    alike = {
        n
        for n, row in enumerate(source)
        for m, other in enumerate(source)
        if n != m and sorted(row["instruction"].split()) == sorted(other["instruction"].split())
    }
    assert len(encoded_rows) == len(alike) < len(source) / 2
    dropped = [
        run.ledger().filter(stage="semantic").select("id", "action", "witness", "score")
        for run in (preselected, exhaustive)
    ]
    assert dropped[0].height == 8
    assert dropped[0].equals(dropped[1])
    sentence = f"semantic: {len(alike)} of {len(source)} rows have a prompt like another one; the answers of the"
    assert warnings(preselected)[-1].startswith(sentence)
    assert not any("semantic" in warning for warning in warnings(exhaustive))
    pairs = [
        pl.read_parquet(next((run.path / "measures").glob("semantic-*.parquet"))) for run in (preselected, exhaustive)
    ]
    assert pairs[0].equals(pairs[1])
