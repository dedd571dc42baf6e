"""Rows with nearly the same words: MinHash LSH in the four steps of datatrove, with the kernels of one machine.

A task for each part signs its rows and stores their shingle sets; it writes the band keys by partition. A task for
each partition makes the buckets, reads the sets of the rows that share one, and returns pairs whose similarity is
verified. A pair belongs to the first band that both rows share, so no pair is returned twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.cluster.equal_rows import equal_hashes, write_hashes
from siftune.curation.cluster.parts import Parts, part_corpus
from siftune.curation.cluster.row_store import RowStore
from siftune.curation.cluster.tasks import ClusterTask, Result, read_partition, write_partitioned
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.dedup import minhash_kernels
from siftune.curation.dedup.minhash import Sketches, bands, buckets_of, require_affordable, sketch, verified_pairs
from siftune.curation.dedup.repeated_answers import sketch_answers
from siftune.curation.dedup.replaced_words import another_task
from siftune.curation.dedup.system_prompts import system_hash
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import GuardClass
from siftune.curation.schema import Key
from siftune.curation.text.guard_tokens import key_guard_hash
from siftune.curation.text.shingle_sets import word_sequences
from siftune.curation.text.words import key_text

#: The key of a row in one band.
ENTRY = np.dtype([("band", "<u2"), ("key", "<u4"), ("row", "<u4")])
#: A verified pair, the similarity of each side, and whether the guarded tokens differ.
SIMILAR = np.dtype([("a", "<u4"), ("b", "<u4"), ("prompt", "<f8"), ("answer", "<f8"), ("guarded", "?")])
#: The words of a row.
WORDS = np.dtype([("start", "<u8"), ("prompt", "<u4"), ("answer", "<u4")])
#: Pairs whose words one task compares.
_PAIRS = 500_000
_SIZES = ["prompt", "answer"]


def head_type(band_count: int) -> np.dtype[Any]:
    """The record of a row: its shingles, the hashes of its guarded tokens and system prompts, its band keys."""
    fields: list[Any] = [("start", "<u8"), ("prompt", "<u4"), ("answer", "<u4"), ("guard", "<u8"), ("system", "<u8")]
    return np.dtype([*fields, ("keys", "<u4", (band_count,))])


def similar_rows(
    parts: Parts,
    rows: NDArray[np.uint32],
    *,
    sides: list[str],
    key: Key,
    shingle: int,
    permutations: int,
    floor: float,
    answer_floor: float,
    guard: list[GuardClass],
    system: bool,
    progress: Progress | None = None,
) -> NDArray[np.void]:
    """SIMILAR: all pairs of rows that share a band and whose sides reach the floors, in their order.

    Args:
        parts: the run.
        rows: ascending positions of the rows that are compared.
        sides: the columns of TEXTS that are the sides of a row; none: the text of `key` as a whole.
        key: the compared text.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: the least similarity of each side.
        answer_floor: the least similarity of answers, where it is above `floor`.
        guard: the classes of tokens by which large buckets are split.
        system: whether system prompts must be equal.
        progress: called as tasks end.
    """
    on = {"sides": sides, "key": key, "shingle": shingle, "permutations": permutations, "floor": floor, "guard": guard}
    signing = parts.of_rows("sketches", write_sketches, rows, on)
    parts.done(signing, title="sketching", progress=progress)
    compare = {"floor": floor, "answer_floor": answer_floor, "has_guard": bool(guard), "system": system}
    return _pairs_of_bands(parts, signing, rows, bands(floor, permutations)[0], compare, progress=progress)


def similar_answers(
    parts: Parts,
    rows: NDArray[np.uint32],
    *,
    shingle: int,
    permutations: int,
    floor: float,
    min_words: int,
    progress: Progress | None = None,
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """PAIR of each row and the first one with the same answer shingles; SIMILAR of these first ones.

    Args:
        parts: the run.
        rows: ascending positions of the rows that are compared.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: the least similarity of answers.
        min_words: shorter answers may repeat.
        progress: called as tasks end.
    """
    on = {"shingle": shingle, "permutations": permutations, "floor": floor, "min_words": min_words}
    signing = parts.of_rows("answer-sketches", write_answer_sketches, rows, {**on, "partitions": parts.partitions})
    copies = equal_hashes(parts, signing, title="answers", progress=progress)
    firsts = np.setdiff1d(rows, copies["b"], assume_unique=True).astype(np.uint32)
    compare = {"floor": floor, "answer_floor": floor, "has_guard": False, "system": False}
    pairs = _pairs_of_bands(parts, signing, firsts, bands(floor, permutations)[0], compare, progress=progress)
    return copies, pairs


def _pairs_of_bands(
    parts: Parts,
    signing: list[ClusterTask],
    rows: NDArray[np.uint32],
    band_count: int,
    compare: dict[str, Any],
    *,
    progress: Progress | None,
) -> NDArray[np.void]:
    """SIMILAR from what the tasks `signing` stored of `rows`."""
    settings = {"bands": band_count, "partitions": parts.partitions}
    writing = parts.of_rows(
        "bands", write_bands, rows, settings, by_part=lambda number: {"sketches": signing[number].name}
    )
    shuffle = parts.shuffled(writing, "entries", title="writing bands", progress=progress)
    store = RowStore.of(parts.parts, signing).document()
    comparing = parts.of_partitions("pairs", compare_buckets, shuffle, {"store": store, "bands": band_count, **compare})
    results, candidates = [], 0
    for result in parts.executor.run(comparing):
        results.append(result)
        candidates += result["candidates"]
        require_affordable(candidates)
        if progress is not None:
            progress("comparing", len(results), len(comparing))
    pairs = parts.joined(comparing, results, "pairs", SIMILAR)
    return pairs[np.lexsort((pairs["b"], pairs["a"]))]


def write_sketches(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,  # noqa: ARG001 - every task over a part has it
    sides: list[str],
    key: Key,
    shingle: int,
    permutations: int,
    floor: float,
    guard: list[GuardClass],
    rows: NDArray[np.uint32],
) -> Result:
    """The shingle sets of a part's rows and their heads, as a `RowStore`.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        sides: as in `similar_rows`.
        key: as there.
        shingle: as there.
        permutations: as there.
        floor: as there.
        guard: as there.
        rows: the rows of the part, ascending.
    """
    guards, systems = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]

    def batches() -> Iterator[pl.Series | pl.DataFrame]:
        for frame in corpus.frames(["system", "core", "answer"], rows):
            if guard:
                guards.append(frame.select(key_guard_hash(key, guard).alias("hash"))["hash"].to_numpy())
            systems.append(frame.select(system_hash().alias("hash"))["hash"].to_numpy())
            named = frame.rename({"core": "prompt"})
            if len(sides) == 2:
                yield named.select("prompt", "answer")
            else:
                yield named["prompt"] if sides else frame.select(key_text(key).alias("text"))["text"]

    with part_corpus(folder, examples, texts) as corpus:
        sketches = sketch(batches(), shingle=shingle, permutations=permutations, floor=floor)
        height = corpus.own_rows
    heads = _heads(sketches, rows, height)
    heads["system"][rows] = np.concatenate(systems)
    if guard:
        heads["guard"][rows] = np.concatenate(guards)
    RowStore.write(folder, name, heads, _SIZES, sketches.flat)
    return {}


def write_answer_sketches(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,
    shingle: int,
    permutations: int,
    floor: float,
    min_words: int,
    partitions: int,
    rows: NDArray[np.uint32],
) -> Result:
    """The shingle sets of a part's answers, as a `RowStore`, and `.hashes` (HASHED by partition) of these sets.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        shingle: as in `similar_answers`.
        permutations: as there.
        floor: as there.
        min_words: as there.
        partitions: how many there are.
        rows: the rows of the part, ascending.
    """
    with part_corpus(folder, examples, texts) as corpus:
        sketches = sketch_answers(
            corpus.key_texts("answer", rows),
            shingle=shingle,
            permutations=permutations,
            floor=floor,
            min_words=min_words,
        )
        height = corpus.own_rows
    RowStore.write(folder, name, _heads(sketches, rows, height), _SIZES, sketches.flat)
    filled = np.diff(sketches.offsets) > 0
    hashes = minhash_kernels.set_hashes(sketches.flat, sketches.offsets)[filled]
    return {"bounds": write_hashes(folder, name, hashes, rows[filled] + start, partitions)}


def _heads(sketches: Sketches, rows: NDArray[np.uint32], height: int) -> NDArray[np.void]:
    """The heads of all `height` rows of a part; only those of `rows` have sketches."""
    heads = np.zeros(height, head_type(sketches.keys.shape[1]))
    heads["prompt"][rows] = sketches.middles - sketches.offsets[:-1]
    heads["answer"][rows] = sketches.offsets[1:] - sketches.middles
    heads["keys"][rows] = sketches.keys
    return heads


def write_bands(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,  # noqa: ARG001 - every task over a part names it
    texts: str,  # noqa: ARG001
    start: int,
    sketches: str,
    bands: int,
    partitions: int,
    rows: NDArray[np.uint32],
) -> Result:
    """`.entries` (ENTRY by partition): the band keys of a part's rows that have shingles.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        sketches: the name of the task that stored the heads.
        bands: how many bands there are.
        partitions: how many partitions there are.
        rows: the rows of the part, ascending.
    """
    heads = folder.take(f"{sketches}.heads", head_type(bands), rows, np.ones(len(rows), np.int64))
    filled = heads["prompt"] + heads["answer"] > 0
    count = int(filled.sum())
    entries = np.empty(count * bands, ENTRY)
    entries["band"], entries["key"] = np.tile(np.arange(bands), count), heads["keys"][filled].reshape(-1)
    entries["row"] = np.repeat(rows[filled] + start, bands)
    # Equal keys of one band meet in one partition; the keys of a band are spread evenly by a multiplication.
    mixed = (entries["key"].astype(np.uint64) + (entries["band"].astype(np.uint64) << np.uint64(32))) * np.uint64(
        0x9E3779B97F4A7C15
    )
    partition = (mixed >> np.uint64(32)) % np.uint64(partitions)
    return {"bounds": write_partitioned(folder, f"{name}.entries", entries, partition, partitions)}


def compare_buckets(
    folder: WorkFolder,
    name: str,
    *,
    names: list[str],
    store: dict[str, Any],
    bands: int,
    floor: float,
    answer_floor: float,
    has_guard: bool,
    system: bool,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Result:
    """`.pairs` (SIMILAR) from the buckets of one partition, verified.

    Args:
        folder: the work folder.
        name: of the task.
        names: files of ENTRY.
        store: where the sketches of rows are.
        bands: how many bands there are.
        floor: the least similarity of each side.
        answer_floor: the least similarity of answers, where it is above `floor`.
        has_guard: whether large buckets are split by the guard.
        system: whether system prompts must be equal.
        starts: where the partition begins in each file.
        ends: where it ends.
    """
    entries = read_partition(folder, names, starts, ends, ENTRY)
    entries = entries[np.lexsort((entries["row"], entries["key"], entries["band"]))]
    same = (entries["band"][1:] == entries["band"][:-1]) & (entries["key"][1:] == entries["key"][:-1])
    shares = np.zeros(len(entries), bool)
    shares[1:] |= same
    shares[:-1] |= same
    entries = entries[shares]
    # Fetch the rows that share a bucket with another one.
    rows = np.unique(entries["row"])
    heads, flat = RowStore.from_document(store).fetch(folder, rows, head_type(bands), _SIZES, np.dtype("<u8"))
    sizes = heads["prompt"].astype(np.int64) + heads["answer"]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    sketches = Sketches(flat, offsets, offsets[:-1] + heads["prompt"], np.ascontiguousarray(heads["keys"]))
    guard = np.ascontiguousarray(heads["guard"]) if has_guard else None
    buckets = []
    for band in np.unique(entries["band"]):
        of_band = entries[entries["band"] == band]
        of_band = of_band[np.argsort(of_band["row"])]
        positions = np.searchsorted(rows, of_band["row"]).astype(np.uint32)
        buckets.append(buckets_of(np.ascontiguousarray(of_band["key"]), positions, band=int(band), guard=guard))
    candidates = sum(one.candidates for one in buckets)
    require_affordable(candidates)
    pairs = verified_pairs(sketches, buckets, floor=floor, answer_floor=answer_floor)
    assert pairs.sides is not None
    keep = heads["system"][pairs.a] == heads["system"][pairs.b] if system else np.ones(len(pairs), bool)
    records = np.empty(int(keep.sum()), SIMILAR)
    records["a"], records["b"] = rows[pairs.a[keep]], rows[pairs.b[keep]]
    records["prompt"], records["answer"] = pairs.sides[keep].T
    records["guarded"] = (heads["guard"][pairs.a] != heads["guard"][pairs.b])[keep]
    folder.write_array(f"{name}.pairs", records)
    return {"size": len(records), "candidates": candidates}


def asks_for_another(parts: Parts, pairs: NDArray[np.void], *, progress: Progress | None = None) -> NDArray[np.bool_]:
    """Which pairs (SIMILAR, in their order) are of different tasks: `siftune.curation.dedup.replaced_words`, bool [m].

    Args:
        parts: the run.
        pairs: the m pairs.
        progress: called as tasks end.
    """
    differing = np.flatnonzero(pairs["prompt"] < 1.0)
    another = np.zeros(len(pairs), bool)
    involved = np.unique(np.concatenate([pairs["a"][differing], pairs["b"][differing]]))
    if not len(involved):
        return another
    reading = parts.of_rows("words", write_words, involved, {})
    parts.done(reading, title="reading words of pairs", progress=progress)
    store = RowStore.of(parts.parts, reading).document()
    comparing = [
        ClusterTask(
            "another-task",
            compare_words,
            {"store": store},
            {"a": pairs["a"][some].astype(np.uint32), "b": pairs["b"][some].astype(np.uint32)},
        )
        for some in (differing[at : at + _PAIRS] for at in range(0, len(differing), _PAIRS))
    ]
    results = parts.done(comparing, title="comparing words of pairs", progress=progress)
    another[differing] = parts.joined(comparing, results, "another", np.dtype("?"))
    return another


def write_words(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,  # noqa: ARG001 - every task over a part has it
    rows: NDArray[np.uint32],
) -> Result:
    """The words of the prompts and of the answers of some rows of a part, as a `RowStore`.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        rows: the rows, ascending.
    """
    words, sizes = [np.empty(0, np.uint64)], [np.empty((0, 2), np.int64)]
    with part_corpus(folder, examples, texts) as corpus:
        for frame in corpus.frames(["core", "answer"], rows):
            (prompts, starts), (answers, answer_starts) = (
                word_sequences(frame[column].fill_null("")) for column in ("core", "answer")
            )
            joined = np.empty(len(prompts) + len(answers), np.uint64)
            minhash_kernels.join_sides(prompts, starts, answers, answer_starts, joined)
            words.append(joined)
            sizes.append(np.stack([np.diff(starts), np.diff(answer_starts)], axis=1))
        height = corpus.own_rows
    heads = np.zeros(height, WORDS)
    heads["prompt"][rows], heads["answer"][rows] = np.concatenate(sizes).T
    RowStore.write(folder, name, heads, _SIZES, np.concatenate(words))
    return {}


def compare_words(
    folder: WorkFolder, name: str, *, store: dict[str, Any], a: NDArray[np.uint32], b: NDArray[np.uint32]
) -> Result:
    """`.another` (bool): whether the rows of each pair are of different tasks.

    Args:
        folder: the work folder.
        name: of the task.
        store: where the words of rows are.
        a: rows.
        b: rows.
    """
    rows = np.unique(np.concatenate([a, b]))
    heads, flat = RowStore.from_document(store).fetch(folder, rows, WORDS, _SIZES, np.dtype("<u8"))
    counts = np.stack([heads["prompt"], heads["answer"]], axis=1).astype(np.int64)
    is_answer = np.repeat(np.tile([False, True], len(rows)), counts.reshape(-1))
    prompts, answers = (
        (flat[is_answer == answer], np.concatenate([[0], np.cumsum(counts[:, int(answer)])]))
        for answer in (False, True)
    )
    one, other = (np.searchsorted(rows, side).astype(np.uint32) for side in (a, b))
    another = another_task(prompts, answers, one, other)
    folder.write_array(f"{name}.another", another)
    return {"size": len(another)}
