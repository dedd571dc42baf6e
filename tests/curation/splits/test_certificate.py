"""The exact search across splits against plain Python sets, and what is made of it: evictions and the certificate."""

from __future__ import annotations

import gzip
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.splits.certificate import certify, evict_leaks
from siftune.curation.splits.cross_search import (
    LeakThresholds,
    SplitRows,
    cosine_cross_pairs,
    exact_cross_pairs,
    jaccard_cross_pairs,
)

THRESHOLDS = LeakThresholds(near=0.5, semantic=0.9, shingle=3)


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    """Plain Python: runs of `size` lower-case words; one run of all words when there are fewer."""
    words = re.findall(r"\w+", text.lower())
    width = min(size, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set()


def jaccard(one: str, two: str, size: int = 3) -> float:
    a, b = shingles(one, size), shingles(two, size)
    return len(a & b) / len(a | b) if a and b else 0.0


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    dot = math.fsum(float(x) * float(y) for x, y in zip(one, two, strict=True))
    norm = math.sqrt(math.fsum(float(x) ** 2 for x in one) * math.fsum(float(y) ** 2 for y in two))
    return dot / norm if norm else 0.0


def split(texts: list[str], *, prefix: str = "r", vectors: np.ndarray | None = None, batch: int = 3) -> SplitRows:
    series = pl.Series("text", texts, dtype=pl.String)
    ids = pl.Series("id", [f"{prefix}:{i}" for i in range(len(texts))], dtype=pl.String)
    return SplitRows(ids, lambda: [series[start : start + batch] for start in range(0, len(texts), batch)], vectors)


words = st.lists(st.sampled_from(["a", "b", "c", "D", "e!", "7"]), max_size=9).map(" ".join)
texts = st.lists(words, max_size=12)


@given(texts, texts, st.integers(1, 4), st.sampled_from([0.2, 0.5, 1.0]))
def test_jaccard_of_every_pair_is_what_python_sets_say(left, right, size, threshold):
    batches = [pl.Series(left[i : i + 4], dtype=pl.String) for i in range(0, len(left), 4)]
    found = jaccard_cross_pairs(batches, pl.Series(right, dtype=pl.String), shingle=size, threshold=threshold)
    every = {(i, j): jaccard(x, y, size) for i, x in enumerate(left) for j, y in enumerate(right)}
    pairs = dict(zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.score.tolist(), strict=True))
    assert pairs == {pair: score for pair, score in every.items() if score >= threshold}
    assert found.comparisons == len(every)
    best = max(every.values(), default=0.0)
    assert (found.highest or 0.0) == best
    if best:
        assert found.highest_pair == min(pair for pair, score in every.items() if score == best)


def test_blocks_do_not_change_the_pairs():
    generator = np.random.default_rng(0)
    rows = [" ".join(generator.choice(list("abcdef"), 8)) for _ in range(60)]
    vectors = generator.normal(size=(60, 5)).astype(np.float16)
    left, right = pl.Series(rows[:40]), pl.Series(rows[40:])
    # 50 cells are two rows of the left side at a time.
    for one, two in (
        [jaccard_cross_pairs([left], right, shingle=2, threshold=0.3, **block) for block in ({}, {"block_cells": 50})],
        [cosine_cross_pairs(vectors[:40], vectors[40:], threshold=0.6, **block) for block in ({}, {"block_cells": 50})],
    ):
        assert len(one.a) > 0
        assert one.highest_pair == two.highest_pair
        for name in ("a", "b", "score"):
            assert getattr(one, name).tolist() == getattr(two, name).tolist()


matrices = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=3, max_size=3), min_size=0, max_size=8)


@given(matrices, matrices, st.sampled_from([0.5, 0.9, 1.0]))
def test_cosine_of_every_pair_is_what_plain_sums_say(left, right, threshold):
    one, two = (np.asarray(m, dtype=np.float16).reshape(-1, 3) for m in (left, right))
    found = cosine_cross_pairs(one, two, threshold=threshold - 1e-9)
    every = {(i, j): cosine(x, y) for i, x in enumerate(one) for j, y in enumerate(two)}
    expected = {pair for pair, score in every.items() if score >= threshold - 1e-9}
    assert set(zip(found.a.tolist(), found.b.tolist(), strict=True)) == expected
    assert found.score.tolist() == pytest.approx([every[pair] for pair in sorted(expected)])
    assert (found.highest is None) == (not every)
    if every:
        assert found.highest == pytest.approx(max(every.values()))


def test_equal_normal_forms_are_exact_twins_and_empty_texts_are_not():
    left = pl.Series(["What  is\nthis?", "", "Other"])
    found = exact_cross_pairs([left[:1], left[1:]], pl.Series(["", "what is this?", " What is this? "]))
    assert (found.a.tolist(), found.b.tolist(), found.highest_pair) == ([0], [2], (0, 2))


worlds = st.tuples(texts, texts, texts)


@given(worlds)
def test_after_eviction_brute_force_finds_no_pair_and_the_certificate_agrees(world):
    names = ("test", "validation", "train")
    splits = {name: split(part, prefix=name) for name, part in zip(names, world, strict=True)}
    text_of = {f"{name}:{i}": text for name, part in zip(names, world, strict=True) for i, text in enumerate(part)}
    decisions = evict_leaks(splits, thresholds=THRESHOLDS)
    dropped = set(decisions["id"])
    assert len(dropped) == decisions.height
    assert set(decisions["reason"]) <= {"leak"}
    stay = {name: [row for row in text_of if row.startswith(name) and row not in dropped] for name in names}
    scores = [
        max(jaccard(text_of[one], text_of[two]), float(text_of[one] == text_of[two] != ""))
        for at, name in enumerate(names)
        for other in names[:at]
        for one in stay[name]
        for two in stay[other]
    ]
    assert all(score < THRESHOLDS.near for score in scores)
    for row, score, threshold, witness in decisions.select("id", "score", "threshold", "witness").iter_rows():
        assert witness not in dropped
        assert names.index(witness.split(":")[0]) < names.index(row.split(":")[0])
        assert score >= threshold
        best = max(
            jaccard(text_of[row], text_of[other])
            for name in names[: names.index(row.split(":")[0])]
            for other in stay[name]
        )
        assert score == pytest.approx(max(best, jaccard(text_of[row], text_of[witness])))
    rest = {name: split([text_of[row] for row in stay[name]], prefix=name) for name in names}
    certificate = certify(rest, thresholds=THRESHOLDS)
    assert certificate.passed
    assert evict_leaks(rest, thresholds=THRESHOLDS).is_empty()
    near = [check.highest or 0.0 for check in certificate.checks if check.measure == "near"]
    assert max(near) == pytest.approx(max(scores, default=0.0))
    whole = certify(splits, thresholds=THRESHOLDS)
    assert whole.passed == (not dropped)


def test_embeddings_evict_what_words_do_not_show():
    test = split(["how tall is it"], prefix="test", vectors=np.asarray([[1, 0]], np.float16))
    train = split(
        ["what height has that", "unrelated"], prefix="train", vectors=np.asarray([[1, 0.1], [0, 1]], np.float16)
    )
    splits = {"test": test, "train": train}
    decisions = evict_leaks(splits, thresholds=THRESHOLDS)
    assert decisions.select("id", "witness", "detail").rows() == [
        ("train:0", "test:0", "semantic, train row resembles test")
    ]
    assert not certify(splits, thresholds=THRESHOLDS).passed
    left = train.without(np.asarray([0]))
    done = certify({"test": test, "train": left}, thresholds=THRESHOLDS)
    assert left.ids.to_list() == ["train:1"]
    assert done.passed


def test_a_certificate_says_what_was_compared_and_how_close_it_came():
    one = split(["a b c d e f", "x y z"], prefix="train")
    two = split(["a b c d q r", "k l m n"], prefix="test")
    document = certify({"train": one, "test": two}, thresholds=THRESHOLDS).to_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["passed"] is True
    assert document["rows"] == {"train": 2, "test": 2}
    assert document["comparisons"] == 8
    assert document["thresholds"] == {"exact": 1.0, "near": 0.5}
    assert "no embeddings" in document["method"]
    assert document["checks"][1] == {
        "left": "train",
        "right": "test",
        "measure": "near",
        "threshold": 0.5,
        "comparisons": 4,
        "pairs": 0,
        "highest": pytest.approx(2 / 6),
        "highest_pair": ["train:0", "test:0"],
    }


def test_the_brute_force_script_finds_a_leak_in_a_run_folder(tmp_path):
    texts = {"s:0": "a b c d e f", "s:1": "x y z", "s:2": "a b c d e g", "s:3": "多くの言葉がある"}
    document = certify({"train": split(["x"]), "test": split(["y"])}, thresholds=THRESHOLDS).to_dict()
    manifest = {"certificate": document, "files": {"texts": "texts.parquet"}, "recipe": "sources: []"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    frame = pl.DataFrame({"id": list(texts), "core": list(texts.values()), "answer": [""] * len(texts)})
    frame.write_parquet(tmp_path / "texts.parquet")
    for folder, name, ids in (("heldout", "test", ["s:0", "s:3"]), ("arms", "raw", ["s:1"])):
        (tmp_path / folder).mkdir()
        frame.filter(pl.col("id").is_in(ids)).select("id").write_parquet(tmp_path / folder / f"{name}.parquet")
    script = [sys.executable, str(Path(__file__).with_name("brute_force.py")), str(tmp_path)]
    assert subprocess.run(script, check=False).returncode == 0
    frame.filter(pl.col("id") != "s:0").select("id").write_parquet(tmp_path / "arms" / "curated.parquet")
    done = subprocess.run(script, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == ["0.600  s:2  s:0", "1.000  s:3  s:3"]


@pytest.mark.slow
def test_brute_force_over_real_prompts_finds_the_same_pairs(shared_data):
    with gzip.open(shared_data / "instructions" / "mix.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(64_000), lines, strict=False)][::16]
    prompts = [f"{row['instruction']}\n{row['input']}" for row in rows if row["instruction"].isascii()]
    left, right = prompts[400:], prompts[:400]
    found = jaccard_cross_pairs([pl.Series(left)], pl.Series(right), shingle=3, threshold=0.3)
    sets = [shingles(text, 3) for text in prompts]
    expected = {}
    for j, b in enumerate(sets[:400]):
        for i, a in enumerate(sets[400:]):
            shared = len(a & b)
            if shared and shared / (len(a) + len(b) - shared) >= 0.3:
                expected[i, j] = shared / (len(a) + len(b) - shared)
    assert expected
    assert (
        dict(zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.score.tolist(), strict=True)) == expected
    )
