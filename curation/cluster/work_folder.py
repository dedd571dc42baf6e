"""The folder that all nodes of a cluster share: on a mounted disk, or in an object store, through fsspec.

Files are written whole or not at all, and read again by range: a row or a partition is a range of a flat file.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from siftune.curation.atomic_files import PARTIAL
from siftune.curation.errors import UserError

#: Object stores, where a file appears when all of it is there.
_WHOLE_WRITES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
#: Ranges of a remote file that lie closer than this are read as one: a request costs more than so many bytes.
_GAP = 64 << 10


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a path or an address, and the path in it.

    Raises:
        UserError: the address is of no known kind, or needs a package that is not installed.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as fault:
        raise UserError(
            f"{url} cannot be reached: {' '.join(str(fault).split())} Install the package on every node, or give a "
            "folder that all nodes share."
        ) from None


@dataclass(frozen=True)
class WorkFolder:
    """The files below `url`, by names with slashes."""

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        return open_url(self.url)

    @property
    def _local(self) -> Path | None:
        """The folder where it is one of this machine, or mounted."""
        files, root = self._opened
        return Path(root) if isinstance(files, LocalFileSystem) else None

    def _full(self, name: str) -> str:
        return f"{self._opened[1].rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        try:
            return self._opened[0].cat_file(self._full(name))
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A temporary path of this machine, which becomes the file when the block ends well."""
        files, _ = self._opened
        full, mark = self._full(name), f".{uuid.uuid4().hex}{PARTIAL}"
        if self._local is not None:
            path = Path(full)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}{mark}")
            try:
                yield temporary
                os.replace(temporary, path)  # noqa: PTH105 - the intent reads better
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory() as scratch:
            temporary = Path(scratch) / "file"
            yield temporary
            files.makedirs(full.rpartition("/")[0], exist_ok=True)
            names = {files.protocol} if isinstance(files.protocol, str) else {*files.protocol}
            if names & _WHOLE_WRITES:
                files.put_file(str(temporary), full)
            else:
                files.put_file(str(temporary), full + mark)
                files.mv(full + mark, full)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """The file as one of this machine: itself, or a copy that is gone after the block."""
        if self._local is not None:
            yield Path(self._full(name))
            return
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / Path(name).name
            self._opened[0].get_file(self._full(name), str(copy))
            yield copy

    def write_array(self, name: str, values: NDArray[Any]) -> None:
        """Write the values of an array one after another."""
        with self.writing(name) as path:
            np.ascontiguousarray(values).tofile(path)

    def take(
        self, name: str, dtype: np.dtype[Any], starts: NDArray[np.integer], sizes: NDArray[np.integer]
    ) -> NDArray[Any]:
        """Ranges of a file that `write_array` wrote, one after another.

        Args:
            name: the file.
            dtype: of its values.
            starts: where each range begins, in values; int64 [n], ascending, ranges do not overlap.
            sizes: how many values it has; int64 [n].
        """
        filled = sizes > 0
        first, counts = starts[filled].astype(np.int64), sizes[filled].astype(np.int64)
        if not len(first):
            return np.empty(0, dtype)
        full = self._full(name)
        if self._local is not None:
            mapped = np.memmap(full, dtype, "r")
            if len(first) == 1:
                return np.array(mapped[first[0] : first[0] + counts[0]])
            return np.asarray(mapped[_positions(first, counts)])
        # Read close ranges as one, then pick the wanted values out of what was read.
        ends, gap = first + counts, max(1, _GAP // dtype.itemsize)
        opens = np.flatnonzero(np.concatenate([[True], first[1:] > ends[:-1] + gap]))
        read_starts, read_ends = first[opens], np.append(ends[opens[1:] - 1], ends[-1])
        pieces = self._opened[0].cat_ranges(
            [full] * len(opens), (read_starts * dtype.itemsize).tolist(), (read_ends * dtype.itemsize).tolist()
        )
        values = np.frombuffer(b"".join(pieces), dtype)
        lengths = read_ends - read_starts
        before: NDArray[np.int64] = np.cumsum(lengths) - lengths
        piece = np.searchsorted(opens, np.arange(len(first)), side="right") - 1
        at: NDArray[np.int64] = first - read_starts[piece] + before[piece]
        return values[_positions(at, counts)]


def _positions(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions `start … start + size - 1` of all ranges, one range after another."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - ends + sizes, sizes) + np.arange(ends[-1])
