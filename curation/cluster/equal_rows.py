"""Rows with equal texts: a task hashes each part, and one for each partition of the hashes finds the first rows."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.cluster.parts import Parts, part_corpus
from siftune.curation.cluster.tasks import ClusterTask, Result, read_partition, write_partitioned
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.dedup.exact import text_hashes
from siftune.curation.measurement import TEXT_COLUMNS
from siftune.curation.progress import Progress

#: Two hashes of what is compared of a row.
HASHED = np.dtype([("first", "<u8"), ("second", "<u8"), ("row", "<u4")])
#: Two rows.
PAIR = np.dtype([("a", "<u4"), ("b", "<u4")])


def equal_rows(
    parts: Parts, rows: NDArray[np.uint32], text: pl.Expr, *, progress: Progress | None = None
) -> NDArray[np.void]:
    """PAIR of each row and the first row with the same text, in the order of the later rows.

    Args:
        parts: the run.
        rows: ascending positions of the rows that are compared.
        text: the compared text over TEXTS; empty texts are equal to none.
        progress: called as tasks end.
    """
    expression = text.meta.serialize().hex()
    hashing = parts.of_rows("text-hashes", hash_texts, rows, {"text": expression, "partitions": parts.partitions})
    return equal_hashes(parts, hashing, title="equal texts", progress=progress)


def equal_hashes(
    parts: Parts, hashing: Sequence[ClusterTask], *, title: str, progress: Progress | None
) -> NDArray[np.void]:
    """PAIR of each row and the first row with the same hashes, in the order of the later rows.

    Args:
        parts: the run.
        hashing: tasks that write HASHED by partition, `.hashes`.
        title: what is compared, for the progress.
        progress: called as tasks end.
    """
    shuffle = parts.shuffled(hashing, "hashes", title=f"hashing {title}", progress=progress)
    grouping = parts.of_partitions("equal", group_equal, shuffle, {})
    results = parts.done(grouping, title=f"grouping {title}", progress=progress)
    pairs = parts.joined(grouping, results, "pairs", PAIR)
    return pairs[np.argsort(pairs["b"])]


def hash_texts(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,
    text: str,
    partitions: int,
    rows: NDArray[np.uint32],
) -> Result:
    """`.hashes` (HASHED by partition) of the texts of a part that are not empty.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        text: the compared text as an expression over TEXTS, serialised by polars, in hexadecimal.
        partitions: how many there are.
        rows: the rows of the part, ascending.
    """
    expression = pl.Expr.deserialize(io.BytesIO(bytes.fromhex(text)))
    with part_corpus(folder, examples, texts) as corpus:
        frames = corpus.frames(TEXT_COLUMNS, rows)
        hashes = text_hashes(frame.select(expression.alias("text"))["text"] for frame in frames).by_row
    filled = ~hashes["empty"]
    hashed = np.stack([hashes["first"], hashes["second"]], axis=1)[filled]
    return {"bounds": write_hashes(folder, name, hashed, rows[filled] + start, partitions)}


def write_hashes(
    folder: WorkFolder, name: str, hashes: NDArray[np.uint64], rows: NDArray[np.integer], partitions: int
) -> list[int]:
    """Write HASHED by partition, `.hashes`.

    Args:
        folder: the work folder.
        name: of the task.
        hashes: uint64 [n, 2].
        rows: positions in the run, [n].
        partitions: how many there are.
    """
    records = np.empty(len(rows), HASHED)
    records["first"], records["second"], records["row"] = hashes[:, 0], hashes[:, 1], rows
    return write_partitioned(folder, f"{name}.hashes", records, hashes[:, 0] % np.uint64(partitions), partitions)


def group_equal(
    folder: WorkFolder, name: str, *, names: list[str], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Result:
    """`.pairs` (PAIR): each row of one partition with the first one that has the same hashes.

    Args:
        folder: the work folder.
        name: of the task.
        names: files of HASHED.
        starts: where the partition begins in each.
        ends: where it ends.
    """
    records = read_partition(folder, names, starts, ends, HASHED)
    records = records[np.lexsort((records["row"], records["second"], records["first"]))]
    is_same = (records["first"][1:] == records["first"][:-1]) & (records["second"][1:] == records["second"][:-1])
    is_first = np.concatenate([[True], ~is_same])[: len(records)]
    first = records["row"][is_first][np.cumsum(is_first) - 1] if len(records) else records["row"]
    pairs = np.empty(int((~is_first).sum()), PAIR)
    pairs["a"], pairs["b"] = first[~is_first], records["row"][~is_first]
    folder.write_array(f"{name}.pairs", pairs)
    return {"size": len(pairs)}
