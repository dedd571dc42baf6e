"""The compiled loops against plain Python, polars and datasketch."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.dedup import minhash, minhash_kernels
from siftune.curation.dedup.replaced_words import both_lack_a_word
from siftune.curation.text.shingle_sets import shingle_sets
from siftune.curation.text.words import words

CHARACTERS = st.one_of(
    st.sampled_from("aB1_ .-'\n\t\u00a0éÉßΣσİıǅ½ﬁ…’“🙂👩\u200d\ufe0f日本語カガｶﾞー한국ᄀ\u1161"),
    st.sampled_from("สวัສၵ\u0301\u0327Å\U0001d49c²"),
    st.characters(exclude_categories=["Cs"]),
)
TEXTS = st.lists(st.text(CHARACTERS, max_size=40), min_size=1, max_size=8)


def sets_of(texts: list[str], size: int) -> list[np.ndarray]:
    flat, offsets = shingle_sets(pl.Series(texts, dtype=pl.String), shingle=size)
    return [flat[start:end] for start, end in itertools.pairwise(offsets)]


def expected(text: str, size: int) -> set[tuple[str, ...]]:
    listed = pl.DataFrame({"t": [text]}).select(words(pl.col("t"))).item().to_list()
    width = min(size, len(listed))
    return {tuple(listed[i : i + width]) for i in range(len(listed) - width + 1)} if listed else set()


@given(TEXTS, st.integers(1, 4))
def test_compiled_shingles_are_those_of_words(texts: list[str], size: int) -> None:
    results, expected_sets = sets_of(texts, size), [expected(text, size) for text in texts]
    assert [len(values) for values in results] == [len(values) for values in expected_sets]
    for values in results:
        assert np.all(np.diff(values.astype(object)) > 0)
    for x, a in enumerate(expected_sets):
        for y, b in enumerate(expected_sets):
            assert np.intersect1d(results[x], results[y]).size == len(a & b)


@pytest.mark.parametrize(
    "text",
    [
        "ΟΔΟΣ ΣΑΣ",
        "\u1100\u1161\u11a8 \u1112\u1161\u11ab",
        "\u09c7\u09be",
        "e\u0323\u0302x",
        "½ kg",
        "İı",
        "ｶﾞ",
        "ㄱㅏ",
        "ﷺ",
    ],
)
def test_characters_that_depend_on_their_neighbours_are_read_as_in_words(text: str) -> None:
    spelled = " ".join(pl.DataFrame({"t": [text]}).select(words(pl.col("t"))).item().to_list())
    read = sets_of([f"{text} one"], 1)[0]
    plain = shingle_sets(pl.Series([f"{spelled} one"]), shingle=1)[0]
    assert np.array_equal(read, plain)


@given(st.lists(st.sampled_from("ab"), max_size=60), st.integers(1, 3))
def test_repeated_shingles_count_once(letters: list[str], size: int) -> None:
    text = " ".join(letters)
    assert len(sets_of([text], size)[0]) == len(expected(text, size))


def test_words_spelled_alike_hash_alike_however_they_are_read() -> None:
    first = ["Café ÉTÉ", "ﬁne", "ＡＢＣ", "日本", "e\u0301t\u0301"]
    second = ["café été", "fine", "abc", "日 本", "ét\u0301"]
    for a, b in zip(first, second, strict=True):
        first_set, second_set = sets_of([a, b], 1)
        assert np.array_equal(first_set, second_set)


@given(st.lists(st.text("abcdefgh ", max_size=60), min_size=1, max_size=6), st.sampled_from([1, 7, 2**31]))
def test_signatures_are_datasketch_affine32(texts: list[str], seed: int) -> None:
    flat, offsets = shingle_sets(pl.Series(texts), shingle=2)
    a, b = minhash.affine32(96, seed=seed)
    signatures = minhash_kernels.signatures(flat, offsets, a, b)
    for row, signature in enumerate(signatures):
        peer = MinHash(num_perm=96, seed=seed, hashfunc=lambda value: value, scheme="affine32")
        low = flat[offsets[row] : offsets[row + 1]] & np.uint64(0xFFFFFFFF)
        peer.update_batch(low.tolist())
        assert np.array_equal(peer.hashvalues, signature)
        assert signature.dtype == peer.hashvalues.dtype


def test_equal_signature_rows_have_equal_band_keys() -> None:
    flat, offsets = shingle_sets(pl.Series(["a b c d", "A, b; c d!", "w x y z"]), shingle=2)
    a, b = minhash.affine32(32)
    keys = np.empty((3, 8), np.uint32)
    minhash_kernels.band_keys(flat, offsets, offsets[1:], a, b, 8, keys)
    assert np.array_equal(keys[0], keys[1])
    assert not np.any(keys[0] == keys[2])


def test_threads_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    vocabulary = np.array([f"w{i}" for i in range(4)])
    texts = pl.Series([" ".join(rng.choice(vocabulary, rng.integers(0, 12))) for _ in range(400)])
    monkeypatch.setattr(minhash, "BLOCK_BYTES", 500)
    monkeypatch.setattr(minhash, "CHUNK_PAIRS", 100)
    results = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(minhash, "WORKERS", threads)
        sketches = minhash.sketch([texts], shingle=2, permutations=64, floor=0.3)
        pairs = minhash.similar_pairs(sketches, floor=0.3)
        parts = (sketches.flat, sketches.offsets, sketches.keys, pairs.a, pairs.b, pairs.score)
        results.append([part.tobytes() for part in parts])
    assert len(pairs) > 10
    assert results[0] == results[1] == results[2]


@given(st.lists(st.lists(st.integers(0, 40), max_size=25), min_size=2, max_size=12), st.floats(0.05, 1.0))
def test_verified_pairs_are_exact(rows: list[list[int]], floor: float) -> None:
    """All rows in one bucket: whatever the bitmaps and size bounds leave out must really lie below the floor."""
    texts = pl.Series([" ".join(f"w{value}" for value in row) for row in rows])
    flat, offsets = shingle_sets(texts, shingle=1)
    sketches = minhash.Sketches(flat, offsets, offsets[1:], np.zeros((len(rows), 2), np.uint32))
    pairs = minhash.similar_pairs(sketches, floor=floor)
    sets = [set(row) for row in rows]
    expected_sets = {
        (x, y): len(sets[x] & sets[y]) / len(sets[x] | sets[y])
        for x in range(len(rows))
        for y in range(x + 1, len(rows))
        if sets[x] and sets[y] and len(sets[x] & sets[y]) / len(sets[x] | sets[y]) >= floor
    }
    assert dict(zip(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True), pairs.score, strict=True)) == expected_sets


SIDE = st.lists(st.integers(0, 12), max_size=10)


@given(st.lists(st.tuples(SIDE, SIDE), min_size=2, max_size=12), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_both_sides_are_verified(rows: list[tuple[list[int], list[int]]], floor: float, answer_floor: float) -> None:
    """All rows in one bucket, so that whatever is missing was ruled out by size or bitmap."""
    prompts, answers = (
        [" ".join(f"w{value}" for value in side) for side in sides] for sides in zip(*rows, strict=True)
    )
    frame = pl.DataFrame({"prompt": prompts, "answer": answers})
    sketches = minhash.sketch([frame], shingle=1, permutations=16, floor=0.5)
    one_bucket = replace(sketches, keys=np.zeros_like(sketches.keys))
    pairs = minhash.similar_pairs(one_bucket, floor=floor, answer_floor=answer_floor)
    assert pairs.sides is not None
    found = {
        (a, b): tuple(sides)
        for a, b, sides in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.sides.tolist(), strict=True)
    }
    wanted = {
        (x, y): (jaccard(rows[x][0], rows[y][0]), jaccard(rows[x][1], rows[y][1]))
        for x, y in itertools.combinations(range(len(rows)), 2)
        if any(rows[x]) and any(rows[y])
    }
    assert found == {
        pair: sides for pair, sides in wanted.items() if sides[0] >= floor and sides[1] >= max(floor, answer_floor)
    }
    assert pairs.score.tolist() == [min(sides) for sides in found.values()]


def jaccard(one: list[int], two: list[int]) -> float:
    """Of two sides; two empty ones are alike."""
    return len({*one} & {*two}) / len({*one} | {*two}) if one or two else 1.0


@given(st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=8))
def test_words_that_both_texts_lack_are_those_of_counters(texts: list[list[int]]) -> None:
    words = np.array([value for text in texts for value in text], np.uint64)
    offsets = np.cumsum([0, *map(len, texts)])
    pairs = list(itertools.product(range(len(texts)), repeat=2))
    a, b = (np.array(side, np.uint32) for side in zip(*pairs, strict=True))
    counters = [Counter(text) for text in texts]
    expected_pairs = [bool(counters[x] - counters[y]) and bool(counters[y] - counters[x]) for x, y in pairs]
    assert both_lack_a_word(words, offsets, a, b).tolist() == expected_pairs


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_batches_and_blocks_do_not_change_anything(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series(["one two three", None, "", "日本", "one two three four", "!!", "ünï cödé"])
    in_one_batch = minhash.sketch([texts], shingle=2, permutations=16, floor=0.5)
    monkeypatch.setattr(minhash, "BLOCK_BYTES", block)
    cut = minhash.sketch([texts[:3], texts[3:3], texts[3:]], shingle=2, permutations=16, floor=0.5)
    assert np.array_equal(in_one_batch.flat, cut.flat)
    assert np.array_equal(in_one_batch.offsets, cut.offsets)
    assert np.array_equal(in_one_batch.keys, cut.keys)
