"""MinHash LSH with verification: every pair of rows whose sides are alike, each exactly once, scores exact.

A row is a text, or a prompt and an answer: then its signature is of the shingles of both, those of the answer counted
as others than the same ones in a prompt. If both sides of a pair have Jaccard similarity >= t, so have these joint
sets: (a + c) / (b + d) lies between a / b and c / d. So the bands that are complete enough for t lose no pair that two
searches would find, and rows whose sides are swapped share nothing. Each side is then verified by itself.

Signatures of single texts are bit-identical to datasketch's scheme `affine32` over the same 32-bit shingle hashes.

The rule for short texts is that of `siftune.curation.text.shingle_sets`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.dedup import minhash_kernels
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.row_features import RowFeatures
from siftune.curation.text.shingle_sets import shingle_sets

U32 = NDArray[np.uint32]
Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Tuning. None of these numbers changes a result.
#: Threads: as many as polars uses, so that POLARS_MAX_THREADS rules both.
WORKERS = pl.thread_pool_size()
#: Bytes of text that one thread tokenises at once: bounds the scratch memory (4 bytes for each byte of text).
BLOCK_BYTES = 2 << 20
#: Candidate pairs that one thread verifies at once: bounds the scratch memory (4 bytes each).
CHUNK_PAIRS = 1 << 20
#: Bucket members that are verified in one round.
ROUND_ROWS = 1 << 20

#: Buckets with more rows than this are split by the guard's hash, where there is one.
LARGE_BUCKET = 1000
#: More comparisons than this would take hours; the cause is then text that thousands of rows share.
MAX_CANDIDATES = 4_000_000_000


def jaccard_pairs(
    texts: Iterable[pl.Series | pl.DataFrame],
    *,
    shingle: int,
    permutations: int,
    floor: float,
    answer_floor: float = 0.0,
    guard: NDArray[np.uint64] | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Pairs:
    """All pairs of texts whose Jaccard similarity is at least `floor`; expected recall >= 0.99 at the floor itself.

    Of rows with a prompt and an answer each side must reach the floor; the score is the lesser one. A side that both
    rows lack counts as alike. Scores are exact. Memory: 8 bytes for each shingle, 4 bytes for each text and band, and
    the pairs.

    Args:
        texts: batches of n texts, or of n rows with the columns `prompt` and `answer`; positions count through all of
            them.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: the least similarity that is returned.
        answer_floor: the least similarity of answers, where it is above `floor`.
        guard: a hash of the guarded tokens of each text, uint64 [n]. Pairs whose hashes differ may then be missing
            where more than `LARGE_BUCKET` texts share a bucket: they cannot decide anything.
        seed: of the permutations, as in datasketch.
        progress: called with ("sketching", texts, 0), then ("comparing", bands done, bands).

    Raises:
        UserError: more comparisons would be needed than are affordable.
    """
    sketches = sketch(texts, shingle=shingle, permutations=permutations, floor=floor, seed=seed, progress=progress)
    return similar_pairs(sketches, floor=floor, answer_floor=answer_floor, guard=guard, progress=progress)


@dataclass(frozen=True)
class Sketches:
    """Shingle sets of n rows and their LSH band keys.

    Attributes:
        flat: the sorted sets one after another, uint64 [t]. The text or prompt of row i has
            `flat[offsets[i]:middles[i]]`, its answer `flat[middles[i]:offsets[i + 1]]`.
        offsets: int64 [n + 1].
        middles: int64 [n]; `offsets[1:]` for rows without answers.
        keys: the key of each row in each band, uint32 [n, bands].
    """

    flat: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    middles: NDArray[np.int64]
    keys: NDArray[np.uint32]

    def features(self) -> RowFeatures:
        """The same as features of rows, to be stored."""
        by_row = {"prompt_sizes": self.middles - self.offsets[:-1], "keys": self.keys}
        return RowFeatures(by_row, np.diff(self.offsets), self.flat)

    def prompts(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The sets of the texts or prompts alone, flat uint64 [t], and where each begins, int64 [n + 1]."""
        is_answer = np.arange(self.flat.size) >= np.repeat(self.middles, np.diff(self.offsets))
        sizes = self.middles - self.offsets[:-1]
        return self.flat[~is_answer], np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    @classmethod
    def of(cls, features: RowFeatures) -> Self:
        """What `features` returned, or several of these joined."""
        assert features.flat is not None
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(features.sizes)])
        return cls(features.flat, offsets, offsets[:-1] + features.by_row["prompt_sizes"], features.by_row["keys"])


def signatures(sketches: Sketches, *, permutations: int, prompts: bool = False, seed: int = 1) -> NDArray[np.uint32]:
    """MinHash signatures of rows, uint32 [n, permutations], those of datasketch's scheme `affine32`.

    They are of the shingles of both sides, those of the answer counted as others (see the module). A row without any
    shingle has 2**32 - 1 everywhere.

    Args:
        sketches: of the n rows.
        permutations: how many values a signature has.
        prompts: sign the prompts alone.
        seed: of the permutations.
    """
    if prompts:
        sets, offsets = sketches.prompts()
    else:
        is_answer = np.arange(sketches.flat.size) >= np.repeat(sketches.middles, np.diff(sketches.offsets))
        sets = np.where(is_answer, sketches.flat ^ minhash_kernels.ANSWER, sketches.flat)
        offsets = sketches.offsets
    return minhash_kernels.signatures(sets, offsets, *affine32(permutations, seed=seed))


@dataclass(frozen=True)
class Buckets:
    """Buckets of rows that share a band key, one after another.

    Attributes:
        rows: the members, uint32 [p].
        work: how many members follow each in its bucket, int32 [p].
        band: the band of the bucket, int16 [p].
    """

    rows: NDArray[np.uint32]
    work: NDArray[np.int32]
    band: NDArray[np.int16]

    @property
    def candidates(self) -> int:
        """How many pairs there are in all buckets."""
        return int(self.work.sum(dtype=np.int64))


def bands(threshold: float, permutations: int, *, recall: float = 0.99) -> tuple[int, int]:
    """Bands b and rows r of the LSH, `b * r <= permutations`, with the fewest candidates at the required recall.

    A pair of similarity t meets in some band with probability 1 - (1 - t**r)**b (Leskovec, Rajaraman, Ullman, Mining
    of Massive Datasets, 3.4.2). The largest r whose probability at `threshold` is >= `recall` is taken; more similar
    pairs are only likelier. Where no r is enough (tiny thresholds), r is 1.
    """
    sufficient = [
        (permutations // r, r)
        for r in range(1, permutations + 1)
        if 1.0 - (1.0 - threshold**r) ** (permutations // r) >= recall
    ]
    return sufficient[-1] if sufficient else (permutations, 1)


def affine32(permutations: int, *, seed: int = 1) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The parameters a (odd) and b of datasketch 2.0's scheme `affine32` for `seed`: uint32[permutations] each."""
    generator = np.random.RandomState(seed)
    a = generator.randint(0, 1 << 31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = generator.randint(0, 1 << 32, permutations, dtype=np.uint32)
    return a, b


def sketch(
    texts: Iterable[pl.Series | pl.DataFrame],
    *,
    shingle: int,
    permutations: int,
    floor: float,
    seed: int = 1,
    progress: Progress | None = None,
) -> Sketches:
    """Shingle sets and band keys of all texts of all batches.

    Args:
        texts: batches of texts, or of rows with the columns `prompt` and `answer`.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: the similarity that the bands are chosen for.
        seed: of the permutations.
        progress: called with ("sketching", texts done, 0).
    """
    count, width = bands(floor, permutations)
    a, b = affine32(permutations, seed=seed)
    a, b = a[: count * width], b[: count * width]
    flat = np.empty(0, np.uint64)
    sizes: list[NDArray[np.int64]] = []
    prompt_sizes: list[NDArray[np.int64]] = []
    keys: list[NDArray[np.uint32]] = []
    done = 0

    def sketch_block(block: pl.DataFrame) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], U32]:
        part, offsets, middles = _side_sets(block, shingle)
        band_keys = np.empty((block.height, count), np.uint32)
        minhash_kernels.band_keys(part, offsets, middles, a, b, count, band_keys)
        return part, np.diff(offsets), middles - offsets[:-1], band_keys

    for part, size, prompt_size, band_keys in map_in_order(sketch_block, _blocks(texts)):
        # Growing in place remaps pages; joining parts at the end would hold everything twice.
        flat.resize(flat.size + part.size, refcheck=False)
        flat[flat.size - part.size :] = part
        sizes.append(size)
        prompt_sizes.append(prompt_size)
        keys.append(band_keys)
        done += len(band_keys)
        if progress:
            progress("sketching", done, 0)
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
    middles = offsets[:-1] + np.concatenate([np.empty(0, np.int64), *prompt_sizes])
    return Sketches(flat, offsets, middles, np.concatenate(keys) if keys else np.empty((0, count), np.uint32))


def _side_sets(block: pl.DataFrame, shingle: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The sets of both sides of each row: flat uint64 [t], offsets int64 [n + 1], middles int64 [n]; see `Sketches`."""
    prompts, prompt_offsets = shingle_sets(block["prompt"], shingle=shingle)
    if "answer" not in block.columns:
        return prompts, prompt_offsets, prompt_offsets[1:]
    answers, answer_offsets = shingle_sets(block["answer"], shingle=shingle)
    flat = np.empty(prompts.size + answers.size, np.uint64)
    minhash_kernels.join_sides(prompts, prompt_offsets, answers, answer_offsets, flat)
    return flat, prompt_offsets + answer_offsets, prompt_offsets[1:] + answer_offsets[:-1]


def _blocks(texts: Iterable[pl.Series | pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The batches cut into blocks of about `BLOCK_BYTES`, nulls as empty texts; a single text is called `prompt`."""
    for batch in texts:
        frame = batch.select("prompt", "answer") if isinstance(batch, pl.DataFrame) else batch.to_frame("prompt")
        filled = frame.with_columns(pl.all().fill_null(""))
        size = filled.select(pl.sum_horizontal(pl.all().str.len_bytes().cast(pl.Int64)).cum_sum()).to_series()
        block = (size // BLOCK_BYTES).to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), filled.height]
        for start, end in itertools.pairwise(cuts):
            if end > start:
                yield filled.slice(start, end - start)


def similar_pairs(
    sketches: Sketches,
    *,
    floor: float,
    answer_floor: float = 0.0,
    rows: NDArray[np.integer] | None = None,
    new: int | None = None,
    guard: NDArray[np.uint64] | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """All pairs of rows that share a band and whose sides have Jaccard similarity >= `floor`, each once, sorted.

    Args:
        sketches: of n rows.
        floor: the least similarity of each side. A row without any shingle is similar to nothing.
        answer_floor: the least similarity of answers, where it is above `floor`.
        rows: the only rows to compare, ascending; default: all.
        new: only pairs with one of the first `new` rows are searched for; default: all pairs.
        guard: as in `jaccard_pairs`, uint64 [n].
        progress: called with ("comparing", bands done, bands).

    Raises:
        UserError: more than `MAX_CANDIDATES` comparisons would be needed.
    """
    sizes = np.diff(sketches.offsets)
    compared = np.arange(sizes.size) if rows is None else rows
    filled = compared[sizes[compared] > 0].astype(np.uint32)
    count = sketches.keys.shape[1]

    def buckets_of_band(band: int) -> Buckets:
        return buckets_of(sketches.keys[filled, band], filled, band=band, new=new, guard=guard)

    buckets = list(map_in_order(buckets_of_band, range(count)))
    require_affordable(sum(bucket.candidates for bucket in buckets))
    return verified_pairs(sketches, buckets, floor=floor, answer_floor=answer_floor, progress=progress)


def require_affordable(candidates: int) -> None:
    """Raise `UserError` for more comparisons than `MAX_CANDIDATES`."""
    if candidates > MAX_CANDIDATES:
        raise UserError(
            f"Near duplicates: {candidates:,} comparisons would be needed (at most {MAX_CANDIDATES:,} are accepted), "
            "because thousands of rows share most of their text, as with a template that is not left out. Lower "
            "keys.template_rows and keys.template_share, raise duplicates.near.floor (or answers.floor), "
            "or leave the stage out with `near: null` (or `answers: null`)."
        )


def verified_pairs(
    sketches: Sketches,
    buckets: list[Buckets],
    *,
    floor: float,
    answer_floor: float = 0.0,
    progress: Progress | None = None,
) -> Pairs:
    """The pairs of rows in some buckets whose sides reach the floors, sorted; each in the first band that both share.

    Args:
        sketches: of n rows.
        buckets: of some bands, or a part of their buckets; taken off the list while they are compared.
        floor: the least similarity of each side.
        answer_floor: the least similarity of answers, where it is above `floor`.
        progress: called with ("comparing", bands done, bands).
    """
    count = len(buckets)
    bits = minhash_kernels.bitmaps(sketches.flat, sketches.offsets, sketches.middles)
    parts = [(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty((0, 2)))]
    while buckets:
        parts += _verified(sketches, _next_round(buckets), bits, floor, max(floor, answer_floor))
        if progress:
            progress("comparing", count - len(buckets), count)
    a, b, sides = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(a.astype(np.uint64) << np.uint64(32) | b)
    sides = sides[order]
    return Pairs(a[order], b[order], sides.min(axis=1), sides)


def _next_round(buckets: list[Buckets]) -> Buckets:
    """Take the next bands off the list: one when it is large, several when they are small (a parallel loop costs)."""
    taken = [buckets.pop(0)]
    while buckets and sum(part.rows.size for part in taken) + buckets[0].rows.size <= ROUND_ROWS:
        taken.append(buckets.pop(0))
    rows, work, band = zip(*((part.rows, part.work, part.band) for part in taken), strict=True)
    return Buckets(np.concatenate(rows), np.concatenate(work), np.concatenate(band))


def first_equal_set(sketches: Sketches) -> NDArray[np.int64]:
    """For each row the first row with the same shingle set, by a 128-bit hash of the set: int64 [n]."""
    keys = minhash_kernels.set_hashes(sketches.flat, sketches.offsets)
    frame = pl.DataFrame({"x": keys[:, 0], "y": keys[:, 1]}).with_row_index("row")
    return frame.select(pl.col("row").min().over("x", "y").cast(pl.Int64))["row"].to_numpy()


def buckets_of(
    keys: NDArray[np.uint32],
    rows: NDArray[np.uint32],
    *,
    band: int,
    guard: NDArray[np.uint64] | None,
    new: int | None = None,
) -> Buckets:
    """The buckets of two or more rows in one band.

    Args:
        keys: the key of each row in this band, uint32 [m].
        rows: the rows, ascending, uint32 [m].
        band: the number of the band.
        guard: a hash for every row of the corpus, uint64 [n]; buckets of more than `LARGE_BUCKET` rows are split by it.
        new: as in `similar_pairs`.
    """
    packed = np.sort(keys.astype(np.uint64) << np.uint64(32) | rows)
    work = minhash_kernels.bucket_work(packed)
    members = (packed & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    shared = work > 0
    shared[1:] |= work[:-1] > 0
    members, work = members[shared], work[shared]
    if guard is not None and work.size and int(work.max()) >= LARGE_BUCKET:
        members, work = _split_large(members, work, guard)
    if new is not None:
        # Members ascend in a bucket, so the new ones come first: with those after them they make every pair asked for.
        work[members >= new] = 0
    return Buckets(members, work, np.full(members.size, band, np.int16))


def _split_large(
    members: NDArray[np.uint32], work: NDArray[np.int32], guard: NDArray[np.uint64]
) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    ends = np.flatnonzero(work == 0)
    bucket = np.repeat(np.arange(ends.size), np.diff(ends, prepend=-1))
    sizes = np.bincount(bucket)
    guarded = np.where(sizes[bucket] > LARGE_BUCKET, guard[members], np.uint64(0))
    order = np.lexsort((members, guarded, bucket))
    members, bucket, guarded = members[order], bucket[order], guarded[order]
    starts = np.flatnonzero((np.diff(bucket, prepend=-1) != 0) | (np.diff(guarded, prepend=guarded[:1]) != 0))
    lengths = np.diff(starts, append=members.size)
    offset = np.arange(members.size) - np.repeat(starts, lengths)
    return members, (np.repeat(lengths, lengths) - offset - 1).astype(np.int32)


def _verified(
    sketches: Sketches, buckets: Buckets, bits: NDArray[np.uint64], floor: float, answer_floor: float
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]]:
    """The pairs of some buckets whose sides reach the floor, in parts: a, b and the similarity of each side [m, 2]."""
    starts = np.concatenate([[0], np.cumsum(buckets.work, dtype=np.int64)])
    ends = np.stack([sketches.offsets[:-1], sketches.middles, sketches.offsets[1:]], axis=1)
    sizes = np.diff(ends, axis=1)

    def verify(chunk: tuple[int, int]) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]:
        first, last = chunk
        shared = np.empty((int(starts[last] - starts[first]), 2), np.int32)
        minhash_kernels.verify_bucket_pairs(
            *(buckets.rows, buckets.band, starts, first, last),
            *(sketches.keys, sketches.flat, sketches.offsets, sketches.middles, bits, floor, answer_floor, shared),
        )
        hits = np.flatnonzero(shared[:, 0] >= 0)
        candidate = hits + starts[first]
        position = np.searchsorted(starts, candidate, side="right") - 1
        x, y = buckets.rows[position], buckets.rows[position + 1 + candidate - starts[position]]
        both = shared[hits]
        union = sizes[x] + sizes[y] - both
        return np.minimum(x, y), np.maximum(x, y), np.where(union > 0, both / np.maximum(union, 1), 1.0)

    return map_in_order(verify, _chunks(starts))


def _chunks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of positions with about `CHUNK_PAIRS` candidate pairs each."""
    first, end = 0, starts.size - 1
    while first < end:
        last = int(np.searchsorted(starts, starts[first] + CHUNK_PAIRS, side="right")) - 1
        yield first, max(last, first + 1)
        first = max(last, first + 1)


def map_in_order(function: Callable[[Argument], Result], items: Iterable[Argument]) -> Iterator[Result]:
    """`map` in threads: results in the order of `items`, which are read only a few ahead, so that memory is bounded."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
