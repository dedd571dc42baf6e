"""Dialogues that begin others: what each dialogue was after each of its turns, joined by partition."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.cluster.equal_rows import PAIR
from siftune.curation.cluster.parts import Parts, part_corpus
from siftune.curation.cluster.row_store import RowStore
from siftune.curation.cluster.tasks import Result, read_partition, write_partitioned
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.dedup.prefixes import add_nothing, dialogue_hashes, dialogue_states, joined_prefixes
from siftune.curation.progress import Progress
from siftune.curation.row_features import RowFeatures
from siftune.curation.schema import EXAMPLES, empty

#: What a dialogue was after one of its turns: two hashes, its row, whether it ends there.
STATE = np.dtype([("one", "<u8"), ("other", "<u8"), ("row", "<u4"), ("is_last", "?")])
#: Which turns of a row are not trained.
MARKS = np.dtype([("start", "<u8"), ("turns", "<u4")])


def prefix_pairs(
    parts: Parts, rows: NDArray[np.uint32], *, with_system: bool, progress: Progress | None = None
) -> NDArray[np.void]:
    """PAIR of each row and every longer one that it is the beginning of.

    Args:
        parts: the run.
        rows: ascending positions of the rows that are compared.
        with_system: whether system turns count.
        progress: called as tasks end.
    """
    settings = {"with_system": with_system, "partitions": parts.partitions}
    hashing = parts.of_rows("dialogue-states", write_states, rows, settings)
    shuffle = parts.shuffled(hashing, "states", title="hashing dialogues", progress=progress)
    store = RowStore.of(parts.parts, hashing)
    joining = parts.of_partitions("prefixes", join_states, shuffle, {"store": store.document()})
    results = parts.done(joining, title="joining dialogues", progress=progress)
    return parts.joined(joining, results, "pairs", PAIR)


def write_states(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,
    with_system: bool,
    partitions: int,
    rows: NDArray[np.uint32],
) -> Result:
    """`.states` (STATE by partition) of the turns of a part's rows, and their marks as a `RowStore`.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        with_system: whether system turns count.
        partitions: how many there are.
        rows: the rows of the part, ascending.
    """
    with part_corpus(folder, examples, texts) as corpus:
        frames = corpus.example_frames(["messages", "meta"], rows)
        hashed = [dialogue_hashes(frame, with_system=with_system) for frame in frames]
        height = corpus.own_rows
    dialogues = RowFeatures.joined([dialogue_hashes(empty(EXAMPLES), with_system=True), *hashed])
    states = dialogue_states(dialogues)
    records = np.empty(states.height, STATE)
    for column in ("one", "other", "is_last"):
        records[column] = states[column].to_numpy()
    records["row"] = rows[states["row"].to_numpy()] + start
    heads = np.zeros(height, MARKS)
    heads["turns"][rows] = dialogues.sizes
    RowStore.write(folder, name, heads, ["turns"], states["is_untrained"].cast(pl.UInt8).to_numpy())
    bounds = write_partitioned(folder, f"{name}.states", records, records["one"] % np.uint64(partitions), partitions)
    return {"bounds": bounds}


def join_states(
    folder: WorkFolder,
    name: str,
    *,
    names: list[str],
    store: dict[str, Any],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Result:
    """`.pairs` (PAIR): dialogues that end as another one was after one of its turns, and add nothing to it.

    Args:
        folder: the work folder.
        name: of the task.
        names: files of STATE.
        store: where the marks of rows are.
        starts: where the partition begins in each file.
        ends: where it ends.
    """
    records = read_partition(folder, names, starts, ends, STATE)
    row, longer = joined_prefixes(pl.DataFrame({field: records[field] for field in STATE.names or ()}))
    involved = np.unique(np.concatenate([row, longer]))
    heads, untrained = RowStore.from_document(store).fetch(folder, involved, MARKS, ["turns"], np.dtype("u1"))
    offsets = np.concatenate([[0], np.cumsum(heads["turns"], dtype=np.int64)])
    positions = np.searchsorted(involved, row), np.searchsorted(involved, longer)
    keeps = add_nothing(offsets, untrained.astype(bool), *positions)
    pairs = np.empty(int(keeps.sum()), PAIR)
    pairs["a"], pairs["b"] = row[keeps], longer[keeps]
    folder.write_array(f"{name}.pairs", pairs)
    return {"size": len(pairs)}
