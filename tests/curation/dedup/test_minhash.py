from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from siftune.curation.dedup import minhash
from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import GuardClass
from siftune.curation.text.guard_tokens import guard_hash

CLASSES: list[GuardClass] = ["numbers", "operators", "identifiers", "negations"]


def scores_by_pair(
    texts: list[str], *, floor: float, shingle: int = 3, guard: bool = False
) -> dict[tuple[int, int], float]:
    hashes = pl.DataFrame({"t": texts}).select(guard_hash(pl.col("t"), CLASSES)).to_series().to_numpy()
    pairs = minhash.jaccard_pairs(
        [pl.Series(texts)], shingle=shingle, permutations=128, floor=floor, guard=hashes if guard else None
    )
    assert np.all(pairs.a < pairs.b)
    assert np.all(np.diff(pairs.a.astype(np.int64) << 32 | pairs.b) > 0), "sorted, and each pair once"
    return dict(zip(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True), pairs.score.tolist(), strict=True))


def brute_force(texts: pl.Series, *, shingle: int, floor: float) -> dict[tuple[int, int], float]:
    """Every pair by sparse matrix multiplication over the shingles' own identities: no hash of ours, no LSH."""
    listed = texts.str.to_lowercase().str.extract_all(r"\w+")
    ids: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for row, words in enumerate(listed.to_list()):
        for start in range(max(1, len(words) - shingle + 1)):
            rows.append(row)
            columns.append(ids.setdefault(tuple(words[start : start + shingle]), len(ids)))
    matrix = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), (len(texts), len(ids)))
    matrix.data = np.ones_like(matrix.data)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    sizes = np.asarray(matrix.sum(axis=1)).ravel()
    scores = {}
    for start in range(0, len(texts), 500):
        product = (matrix[start : start + 500] @ matrix.T).tocoo()
        a, b = product.row + start, product.col
        score = product.data / (sizes[a] + sizes[b] - product.data)
        hit = (a < b) & (score >= floor)
        scores |= dict(zip(zip(a[hit].tolist(), b[hit].tolist(), strict=True), score[hit].tolist(), strict=True))
    return scores


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join), min_size=2, max_size=14))
def test_nothing_is_found_that_is_not_there(texts: list[str]) -> None:
    scores = scores_by_pair(texts, floor=0.5, shingle=2)
    exact = brute_force(pl.Series([text or f"empty{row}" for row, text in enumerate(texts)]), shingle=2, floor=0.5)
    assert scores.items() <= exact.items()
    assert {pair for pair, score in exact.items() if score == 1.0} <= scores.keys(), "equal sets share every band"


@pytest.mark.parametrize(
    ("a", "b", "score"),
    [
        ("yes", "Yes!", 1.0),
        ("yes", "no", None),
        ("two words", "words two", None),
        ("only two", "only two words", None),
        ("!!!", "!!!", 1.0),
        ("!!!", "???", None),
        ("", "", None),
        ("  ", "", None),
        ("日本語の文です", "日本語の文です。", 1.0),
        ("日本語の長い文です", "日本語の長い文だ", 0.625),
        ("a b c d e f", "a b c d e x", 0.6),
    ],
)
def test_short_texts(a: str, b: str, score: float | None) -> None:
    scores = scores_by_pair([a, b], floor=0.5)
    assert scores == ({} if score is None else {(0, 1): score})


def test_bands_reach_the_recall_with_the_fewest_candidates() -> None:
    for threshold in (0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0):
        for permutations in (16, 128, 256):
            b, r = minhash.bands(threshold, permutations)
            assert b * r <= permutations
            reached = 1 - (1 - threshold**r) ** b
            assert reached >= 0.99 or (r == 1 and b == permutations)
            longer = permutations // (r + 1)
            assert longer == 0 or 1 - (1 - threshold ** (r + 1)) ** longer < 0.99
    assert minhash.bands(0.65, 128) == (32, 4)


def test_large_buckets_are_cut_by_the_guard_and_lose_no_deciding_pair() -> None:
    shared = " ".join(f"w{word}" for word in range(60))
    texts = [f"{row % 400} {shared}" for row in range(1500)]
    all_pairs, cut = scores_by_pair(texts, floor=0.5, guard=False), scores_by_pair(texts, floor=0.5, guard=True)
    hashes = [row % 400 for row in range(1500)]
    deciding = {pair for pair in all_pairs if hashes[pair[0]] == hashes[pair[1]]}
    assert deciding
    assert deciding <= cut.keys() <= all_pairs.keys()
    assert len(cut) < len(all_pairs), "the guard saved comparisons"


def test_chunks_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"one two three four five {row % 7} six seven" for row in range(60)]
    all_pairs = scores_by_pair(texts, floor=0.3)
    monkeypatch.setattr(minhash, "CHUNK_PAIRS", 10)
    assert scores_by_pair(texts, floor=0.3) == all_pairs


def test_too_many_comparisons_name_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minhash, "MAX_CANDIDATES", 1000)
    with pytest.raises(UserError, match="template"):
        scores_by_pair(["the very same words again and again"] * 60, floor=0.5)


def test_nothing_to_compare() -> None:
    assert len(minhash.jaccard_pairs([], shingle=3, permutations=32, floor=0.5)) == 0
    assert len(minhash.jaccard_pairs([pl.Series([], dtype=pl.String)], shingle=3, permutations=32, floor=0.5)) == 0
    assert len(minhash.jaccard_pairs([pl.Series([None, ""])], shingle=3, permutations=32, floor=0.5)) == 0


def changed(words: list[str], rng: np.random.Generator, share: float) -> list[str]:
    """The words, a share of them replaced."""
    return [f"x{rng.integers(1000)}" if rng.random() < share else word for word in words]


@pytest.mark.parametrize("floor", [0.5, 0.65, 0.8])
def test_no_pair_is_lost_by_searching_both_sides_at_once(floor: float) -> None:
    """Against brute force over each side: answers that repeat their prompts, one side long and the other short, swapped
    sides, an empty side."""
    rng = np.random.default_rng(5)
    prompts: list[str] = []
    answers: list[str] = []
    for _ in range(300):
        long = [f"w{word}" for word in rng.integers(3000, size=60)]
        short = [f"w{word}" for word in rng.integers(3000, size=12)]
        prompt, answer = [(long, short), (short, long), (long, long[10:]), ([], long)][rng.integers(4)]
        for share in (0.0, 0.02, 0.04, 0.08):
            sides = changed(prompt, rng, share), changed(answer, rng, share / 2)
            prompts.append(" ".join(sides[0]))
            answers.append(" ".join(sides[1]))
        prompts.append(" ".join(answer))
        answers.append(" ".join(prompt))
    pairs = minhash.jaccard_pairs(
        [pl.DataFrame({"prompt": prompts, "answer": answers})], shingle=3, permutations=128, floor=floor
    )
    found = dict(zip(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True), pairs.score.tolist(), strict=True))
    by_prompt = brute_force(pl.Series(prompts), shingle=3, floor=floor)
    by_answer = brute_force(pl.Series(answers), shingle=3, floor=floor)
    exact = {pair: min(by_prompt[pair], by_answer[pair]) for pair in by_prompt.keys() & by_answer.keys()}
    assert len(exact) > 300
    assert found.items() <= exact.items()
    assert len(found) >= 0.99 * len(exact)


def test_rows_with_swapped_sides_share_nothing() -> None:
    one, two = "a summary of the whole long story", "once upon a time there was a long story that went on"
    rows = pl.DataFrame({"prompt": [one, two], "answer": [two, one]})
    sketches = minhash.sketch([rows], shingle=3, permutations=128, floor=0.5)
    assert not np.any(sketches.keys[0] == sketches.keys[1])
    assert len(minhash.jaccard_pairs([rows], shingle=3, permutations=128, floor=0.01)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.65, 0.8])
def test_recall_and_precision_on_20000_real_rows(shared_data: Path, threshold: float) -> None:
    with gzip.open(shared_data / "instructions" / "mix.jsonl.gz") as file:
        rows = pl.read_ndjson(file.read())
    dialogue = pl.concat_str("instruction", pl.col("input").fill_null(""), "output", separator="\n")
    dialogues = rows.select(dialogue).to_series()
    texts = dialogues.filter(dialogues.str.len_bytes() == dialogues.str.len_chars())[::3][:20_000]
    assert len(texts) == 20_000
    exact = brute_force(texts, shingle=3, floor=threshold)
    pairs = minhash.jaccard_pairs([texts], shingle=3, permutations=128, floor=threshold)
    scores = dict(zip(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True), pairs.score.tolist(), strict=True))
    assert len(exact) > 200
    assert scores.items() <= exact.items(), "every score is exact and reaches the threshold"
    assert len(scores) >= 0.99 * len(exact)
