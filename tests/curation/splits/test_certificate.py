"""Evictions and the certificate against plain Python sets, and the script that checks a run folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.curation.splits.certificate import certify, evict_leaks
from siftune.curation.splits.cross_search import (
    LeakThresholds,
    SplitRows,
)
from tests.curation.splits.brute_force import jaccard

THRESHOLDS = LeakThresholds(near=0.5, semantic=0.9, shingle=3)


def split(texts: list[str], *, prefix: str = "r", vectors: np.ndarray | None = None, batch: int = 3) -> SplitRows:
    series = pl.Series("text", texts, dtype=pl.String)
    ids = pl.Series("id", [f"{prefix}:{i}" for i in range(len(texts))], dtype=pl.String)
    return SplitRows(ids, lambda: [series[start : start + batch] for start in range(0, len(texts), batch)], vectors)


words = st.lists(st.sampled_from(["a", "b", "c", "D", "e!", "7"]), max_size=9).map(" ".join)
texts = st.lists(words, max_size=12)


worlds = st.tuples(texts, texts, texts)


@settings(max_examples=25)
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
        max(jaccard(text_of[one], text_of[two], 3), float(text_of[one] == text_of[two] != ""))
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
            jaccard(text_of[row], text_of[other], 3)
            for name in names[: names.index(row.split(":")[0])]
            for other in stay[name]
        )
        assert score == pytest.approx(max(best, jaccard(text_of[row], text_of[witness], 3)))
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
    document = certify({"train": one, "test": two}, thresholds=THRESHOLDS).model_dump(mode="json")
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
    document = certify({"train": split(["x"]), "test": split(["y"])}, thresholds=THRESHOLDS).model_dump(mode="json")
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
