"""Features of rows in flat files, a pair of files for each part, that any task reads by row.

`.heads` has a record for each row of the part, those left out too, so that a row is found by its number; `.values` has
the values of each row one after another. A task that verifies pairs reads the few rows of its pairs, and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from siftune.curation.cluster.parts import Part
from siftune.curation.cluster.tasks import ClusterTask
from siftune.curation.cluster.work_folder import WorkFolder


@dataclass(frozen=True)
class RowStore:
    """Where the features of each part are.

    Attributes:
        names: of the tasks that wrote them, in the order of the parts.
        starts: the rows before each part.
    """

    names: list[str]
    starts: list[int]

    @classmethod
    def of(cls, parts: Sequence[Part], tasks: Sequence[ClusterTask]) -> Self:
        """What these tasks write, one for each part."""
        return cls([task.name for task in tasks], [part.start for part in parts])

    def document(self) -> dict[str, Any]:
        """As settings of a task."""
        return {"names": self.names, "starts": self.starts}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """What `document` returned."""
        return cls(document["names"], document["starts"])

    @staticmethod
    def write(folder: WorkFolder, name: str, heads: NDArray[Any], sizes: Sequence[str], values: NDArray[Any]) -> None:
        """Write the features of a part.

        Args:
            folder: the work folder.
            name: of the task.
            heads: a record for each row of the part; its field `start` is set here.
            sizes: the fields of a record whose sum says how many values the row has.
            values: of all rows, one after another.
        """
        counts = sum((heads[size].astype(np.int64) for size in sizes), np.zeros(len(heads), np.int64))
        heads["start"] = np.cumsum(counts) - counts
        folder.write_array(f"{name}.heads", heads)
        folder.write_array(f"{name}.values", values)

    def fetch(
        self,
        folder: WorkFolder,
        rows: NDArray[np.integer],
        head: np.dtype[Any],
        sizes: Sequence[str],
        value: np.dtype[Any],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The records and the values of rows.

        Args:
            folder: the work folder.
            rows: ascending positions in the run.
            head: the dtype of the records.
            sizes: as in `write`.
            value: the dtype of the values.
        """
        heads, values = [np.empty(0, head)], [np.empty(0, value)]
        bounds = np.append(np.searchsorted(rows, self.starts), len(rows))
        for name, start, low, high in zip(self.names, self.starts, bounds[:-1], bounds[1:], strict=True):
            if low == high:
                continue
            own = rows[low:high].astype(np.int64) - start
            records = folder.take(f"{name}.heads", head, own, np.ones(len(own), np.int64))
            counts = sum((records[size].astype(np.int64) for size in sizes), np.zeros(len(records), np.int64))
            heads.append(records)
            values.append(folder.take(f"{name}.values", value, records["start"].astype(np.int64), counts))
        return np.concatenate(heads), np.concatenate(values)
