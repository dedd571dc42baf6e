"""Greedy leaders and the answer cap against plain loops, and the laws that they must keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.dedup import repeated_answers
from siftune.curation.dedup.leaders import Leaders, Pairs, leaders


@dataclass
class World:
    n: int
    rank: np.ndarray
    pairs: Pairs
    guarded: np.ndarray
    pinned: np.ndarray
    threshold: float
    cap: int


@st.composite
def worlds(draw: st.DrawFn) -> World:
    n = draw(st.integers(1, 12))
    every = [(a, b) for a in range(n) for b in range(a + 1, n)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    scores = draw(st.lists(st.sampled_from([0.5, 0.7, 0.8, 0.9, 1.0]), min_size=len(chosen), max_size=len(chosen)))
    flags = draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
    pins = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    rank = np.array(draw(st.permutations(range(n)))) * 3 + 1
    pairs = Pairs(
        np.array([a for a, _ in chosen], np.uint32),
        np.array([b for _, b in chosen], np.uint32),
        np.array(scores, np.float64),
    )
    threshold = draw(st.sampled_from([0.6, 0.8, 1.0]))
    return World(n, rank, pairs, np.array(flags, bool), np.array(pins, bool), threshold, draw(st.integers(1, 3)))


def run(world: World, *, pinned: np.ndarray | None = None) -> Leaders:
    return leaders(
        world.n,
        world.rank,
        world.pairs,
        threshold=world.threshold,
        guarded=world.guarded,
        cap=world.cap,
        pinned=world.pinned if pinned is None else pinned,
    )


def oracle(world: World) -> tuple[list[bool], list[int], list[int]]:
    score = {}
    for a, b, value, guard in zip(world.pairs.a, world.pairs.b, world.pairs.score, world.guarded, strict=True):
        score[int(a), int(b)] = score[int(b), int(a)] = (float(value), bool(guard))
    heads: list[int] = []
    kept, witness, guard_witness = [True] * world.n, [-1] * world.n, [-1] * world.n
    family = dict.fromkeys(range(world.n), 1)
    for row in np.argsort(world.rank).tolist():
        similar = [(-score[row, head][0], world.rank[head], head) for head in heads if (row, head) in score]
        similar = [entry for entry in similar if -entry[0] >= world.threshold]
        free = sorted(entry for entry in similar if not score[row, entry[2]][1])
        guarded_similar = sorted(entry for entry in similar if score[row, entry[2]][1])
        if not free:
            heads.append(row)
            guard_witness[row] = guarded_similar[0][2] if guarded_similar else -1
            continue
        head = witness[row] = free[0][2]
        if family[head] < world.cap:
            family[head] += 1
        elif not world.pinned[row]:
            kept[row] = False
    return kept, witness, guard_witness


@given(worlds())
def test_leaders_are_those_of_a_plain_loop(world: World) -> None:
    led = run(world)
    kept, witness, guard_witness = oracle(world)
    assert led.kept.tolist() == kept
    assert led.witness.tolist() == witness
    assert led.guard_witness.tolist() == guard_witness


@given(worlds())
def test_every_dropped_row_has_a_kept_witness_at_the_threshold(world: World) -> None:
    led = run(world)
    known = {(int(a), int(b)): s for a, b, s in zip(world.pairs.a, world.pairs.b, world.pairs.score, strict=True)}
    for row in np.flatnonzero(~led.kept).tolist():
        witness = int(led.witness[row])
        assert led.kept[witness]
        assert world.rank[witness] < world.rank[row]
        assert led.score[row] == known[min(row, witness), max(row, witness)] >= world.threshold
        assert not world.pinned[row]
    for row in np.flatnonzero(led.guard_witness >= 0).tolist():
        assert led.guard_score[row] >= world.threshold
        assert led.witness[row] == -1
    assert np.array_equal(np.isnan(led.score), led.witness < 0)


@given(worlds())
def test_what_was_kept_is_kept_again(world: World) -> None:
    kept = np.flatnonzero(run(world).kept)
    new_position = np.full(world.n, -1)
    new_position[kept] = np.arange(kept.size)
    is_kept_pair = (new_position[world.pairs.a] >= 0) & (new_position[world.pairs.b] >= 0)
    rest = Pairs(
        new_position[world.pairs.a[is_kept_pair]].astype(np.uint32),
        new_position[world.pairs.b[is_kept_pair]].astype(np.uint32),
        world.pairs.score[is_kept_pair],
    )
    again = leaders(
        kept.size,
        world.rank[kept],
        rest,
        threshold=world.threshold,
        guarded=world.guarded[is_kept_pair],
        cap=world.cap,
        pinned=world.pinned[kept],
    )
    assert again.kept.all()


@given(worlds())
def test_a_pin_changes_the_fate_of_no_other_row(world: World) -> None:
    free = run(world, pinned=np.zeros(world.n, bool))
    assert run(world).kept.tolist() == (free.kept | world.pinned).tolist()


def test_no_rows() -> None:
    nothing = Pairs(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0))
    assert leaders(0, np.empty(0, int), nothing, threshold=0.5).kept.size == 0


def test_a_chain_is_not_a_family() -> None:
    """a ~ b ~ c but not a ~ c: connected components would drop c for a row it does not resemble."""
    chain = Pairs(np.array([0, 1], np.uint32), np.array([1, 2], np.uint32), np.array([0.9, 0.9]))
    assert leaders(3, np.arange(3), chain, threshold=0.8).kept.tolist() == [True, False, True]


SAID = st.lists(st.sampled_from("abc"), max_size=5).map(" ".join)


def measured(texts: list[str], *, min_words: int = 1, floor: float = 0.4) -> Pairs:
    sketches = repeated_answers.sketch_answers(
        [pl.Series(texts)], shingle=1, permutations=128, floor=floor, min_words=min_words
    )
    return repeated_answers.answer_stars(sketches, floor=floor)


@given(
    st.lists(SAID, min_size=1, max_size=14),
    st.integers(1, 3),
    st.sampled_from([0.4, 0.5, 0.7, 1.0]),
    st.randoms(use_true_random=False),
)
def test_stars_decide_as_all_pairs_would(texts: list[str], cap: int, threshold: float, random: object) -> None:
    n = len(texts)
    rank = list(range(n))
    random.shuffle(rank)  # type: ignore[attr-defined]
    pinned = np.array([random.random() < 0.2 for _ in texts])  # type: ignore[attr-defined]
    alive = np.array([random.random() < 0.8 for _ in texts])  # type: ignore[attr-defined]
    sets = [frozenset(text.split()) for text in texts]
    stars = measured(texts)
    joined = {
        (sets[a], sets[b]) for a, b in zip(stars.a, stars.b, strict=True)
    }  # LSH may miss a pair: so must the oracle
    full = [
        (a, b, len(sets[a] & sets[b]) / len(sets[a] | sets[b]))
        for a in range(n)
        for b in range(a + 1, n)
        if sets[a] and alive[a] and alive[b]
        if sets[a] == sets[b] or {(sets[a], sets[b]), (sets[b], sets[a])} & joined
    ]
    every = Pairs(
        np.array([a for a, _, _ in full], np.uint32),
        np.array([b for _, b, _ in full], np.uint32),
        np.array([score for _, _, score in full], np.float64),
    )
    wanted = leaders(n, np.array(rank), every, threshold=threshold, cap=cap, pinned=pinned)
    led = repeated_answers.answer_leaders(
        n, np.array(rank), stars, threshold=threshold, cap=cap, pinned=pinned, alive=alive
    )
    assert led.kept.tolist() == (wanted.kept & alive).tolist()
    assert led.witness.tolist() == np.where(alive, wanted.witness, -1).tolist()
    assert np.array_equal(led.score, np.where(alive, wanted.score, np.nan), equal_nan=True)


def test_copies_of_one_answer_cost_a_star_and_obey_the_cap() -> None:
    texts = ["the same long answer", "something else entirely", *["The same, long answer!"] * 5000]
    stars = measured(texts)
    assert len(stars) == 5000
    assert set(stars.a.tolist()) == {0}
    led = repeated_answers.answer_leaders(len(texts), np.arange(len(texts))[::-1], stars, threshold=0.9, cap=3)
    assert np.flatnonzero(led.kept).tolist() == [1, 4999, 5000, 5001]
    assert led.witness[0] == 5001


def test_short_answers_may_repeat() -> None:
    assert len(measured(["yes", "yes", "yes it is", "yes it is", ""], min_words=3)) == 1
