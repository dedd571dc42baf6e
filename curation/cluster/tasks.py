"""Tasks: what is done on any node, from files to files, once for the same input.

A task is a function of this package with plain arguments. It writes files whose names begin with the task's own, and
then a marker that holds its result. The name is made of a key of everything that the result depends on, so a task
whose marker is there is never done again: not after a node died, not after the driver was started again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.errors import UserError
from siftune.curation.run.cache_key import measure_key

Result = dict[str, Any]
#: Packages that decide over hashes and bytes: every node must have the driver's versions.
_VERSIONED = ("siftune", "numpy", "numba", "polars", "pyarrow")


def versions() -> dict[str, str]:
    """The versions of Python, of siftune and of what its results depend on, on this node."""
    return {"python": platform.python_version(), **{package: metadata.version(package) for package in _VERSIONED}}


@dataclass(frozen=True)
class ClusterTask:
    """One task.

    Attributes:
        kind: what it does; the folder of its files.
        function: a function of a module, called as `function(folder, name, **settings, **arrays)`: it writes files
            whose names begin with `name`, and returns a result that JSON can hold.
        settings: arguments that JSON can hold.
        arrays: arguments that are arrays.
    """

    kind: str
    function: Callable[..., Result]
    settings: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """The beginning of the names of its files."""
        hashes = [
            f"{name} {xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)}"
            for name, values in self.arrays.items()
        ]
        return f"{self.kind}/{measure_key(self.kind, {**self.settings, 'versions': versions()}, *hashes)[:32]}"

    def stored(self, folder: WorkFolder) -> Result | None:
        """Its result, where it was finished before."""
        marker = folder.read(f"{self.name}.json")
        try:
            return None if marker is None else orjson.loads(marker)
        except orjson.JSONDecodeError:  # half a marker is none
            return None


def perform(task: ClusterTask, url: str, expected: Mapping[str, str]) -> Result:
    """Do a task and leave its marker. A fault of the user is a result too: `user_error`, which leaves no marker.

    Args:
        task: the task.
        url: the work folder.
        expected: the driver's `versions`.
    """
    if (own := versions()) != expected:
        wrong = ", ".join(
            f"{name} {own[name]} instead of {expected[name]}" for name in own if own[name] != expected[name]
        )
        return {"user_error": f"The node {platform.node()} has {wrong}. Install the same packages on every node."}
    folder = WorkFolder(url)
    stored = task.stored(folder)
    if stored is not None:
        return stored
    try:
        result = task.function(folder, task.name, **task.settings, **task.arrays)
    except UserError as fault:
        return {"user_error": str(fault)}
    with folder.writing(f"{task.name}.json") as path:
        path.write_bytes(orjson.dumps(result))
    return result


class Executor(Protocol):
    """Where tasks are done, and the folder of their files."""

    folder: WorkFolder

    def run(self, tasks: Iterable[ClusterTask]) -> Iterator[Result]:
        """The results of tasks in their order. Raises `UserError` for the first task that ended with one."""


@dataclass
class InlineExecutor:
    """Does tasks one after the other in this process.

    Attributes:
        folder: the work folder.
        done: how many tasks were done; others were found finished.
    """

    folder: WorkFolder
    done: int = 0

    def run(self, tasks: Iterable[ClusterTask]) -> Iterator[Result]:
        """As `Executor.run`."""
        for task in tasks:
            stored = task.stored(self.folder)
            self.done += stored is None
            yield require(perform(task, self.folder.url, versions()) if stored is None else stored)


def require(result: Result) -> Result:
    """The result itself. Raises `UserError` where it is a fault of the user."""
    if "user_error" in result:
        raise UserError(result["user_error"])
    return result


def write_partitioned(
    folder: WorkFolder, name: str, records: NDArray[Any], partition: NDArray[np.integer], partitions: int
) -> list[int]:
    """Write records in the order of their partitions: one file, of which each partition is a range.

    Args:
        folder: the work folder.
        name: the file.
        records: [n].
        partition: of each record, from 0; [n].
        partitions: how many there are.

    Returns:
        Where each partition begins, and the end: `partitions` + 1 numbers.
    """
    order = np.argsort(partition, kind="stable")
    folder.write_array(name, records[order])
    return np.searchsorted(partition[order], np.arange(partitions + 1)).tolist()


def read_partition(
    folder: WorkFolder, names: Iterable[str], starts: NDArray[np.int64], ends: NDArray[np.int64], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The records of one partition from all files of a shuffle.

    Args:
        folder: the work folder.
        names: the files, in the order of the rows.
        starts: where the partition begins in each; int64 [files].
        ends: where it ends; int64 [files].
        dtype: of the records.
    """
    parts = [
        folder.take(name, dtype, starts[number : number + 1], (ends - starts)[number : number + 1])
        for number, name in enumerate(names)
    ]
    return np.concatenate([np.empty(0, dtype), *parts])


@dataclass(frozen=True)
class Shuffle:
    """Records that were written by `write_partitioned`, a file for each part of the rows.

    Attributes:
        names: the files, in the order of the rows.
        bounds: int64 [files, partitions + 1].
    """

    names: list[str]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, names: list[str], bounds: list[list[int]]) -> Shuffle:
        """What the tasks of a shuffle returned."""
        return cls(names, np.array(bounds, np.int64) if names else np.zeros((0, 1), np.int64))

    @property
    def partitions(self) -> int:
        """How many partitions there are; 0 without files."""
        return max(0, self.bounds.shape[1] - 1)

    def arguments(self, partition: int) -> tuple[dict[str, Any], dict[str, NDArray[np.int64]]]:
        """The settings and the arrays by which a task reads one partition: `names`, and `starts` and `ends`."""
        filled = self.bounds[:, partition] < self.bounds[:, partition + 1]
        names = [name for name, has_records in zip(self.names, filled, strict=True) if has_records]
        return {"names": names}, {
            "starts": self.bounds[filled, partition],
            "ends": self.bounds[filled, partition + 1],
        }
