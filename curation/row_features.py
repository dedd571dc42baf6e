"""What is computed of each row by itself, kept with the run: signatures, shingle sets and hashes.

A stage computes them of its own rows and stores them beside TEXTS; of rows of earlier sets it reads what is stored
there. So a new batch is compared with a million curated rows, and nothing of these is hashed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.atomic_files import replacing
from siftune.curation.checksums import is_whole
from siftune.curation.corpus import Corpus
from siftune.curation.run.cache_key import measure_key

_ROWS = "rows"  # in a file: the positions in TEXTS of the rows that it holds
_FLAT = "flat"


@dataclass(frozen=True)
class RowFeatures:
    """Features of n rows.

    Attributes:
        by_row: arrays [n, …] by name.
        sizes: int64 [n], and
        flat: [t, …], as many values of each row as `sizes` says, one row after another; None where there are none.
    """

    by_row: dict[str, NDArray[Any]]
    sizes: NDArray[np.int64]
    flat: NDArray[Any] | None = None

    @classmethod
    def of_rows(cls, **by_row: NDArray[Any]) -> Self:
        """Arrays [n, …] alone."""
        return cls(by_row, np.zeros(len(next(iter(by_row.values()))), np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        flats = [part.flat for part in parts if part.flat is not None]
        return cls(
            {name: np.concatenate([part.by_row[name] for part in parts]) for name in parts[0].by_row},
            np.concatenate([part.sizes for part in parts]),
            np.concatenate(flats) if flats else None,
        )

    def take(self, positions: NDArray[np.integer]) -> RowFeatures:
        """The rows at these positions."""
        if len(positions) == len(self.sizes) and bool((positions == np.arange(len(positions))).all()):
            return self
        by_row = {name: values[positions] for name, values in self.by_row.items()}
        sizes = self.sizes[positions]
        if self.flat is None:
            return RowFeatures(by_row, sizes)
        starts = np.cumsum(self.sizes) - self.sizes
        taken_starts = np.cumsum(sizes) - sizes
        chosen = np.repeat(starts[positions] - taken_starts, sizes) + np.arange(int(sizes.sum()))
        return RowFeatures(by_row, sizes, self.flat[chosen])

    def write(self, path: Path, rows: NDArray[np.integer]) -> None:
        """Store them as features of the rows of TEXTS at the ascending positions `rows`."""
        arrays: dict[str, Any] = {**self.by_row, "sizes": self.sizes, _ROWS: rows.astype(np.uint32)}
        if self.flat is not None:
            arrays[_FLAT] = self.flat
        with replacing(path, checked=True) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def row_features(
    corpus: Corpus,
    rows: NDArray[np.uint32],
    *,
    name: str,
    settings: dict[str, Any],
    compute: Callable[[NDArray[np.uint32]], RowFeatures],
) -> RowFeatures:
    """The features of the rows at the ascending positions `rows`; those of own rows are stored for later runs.

    Args:
        corpus: the rows.
        rows: uint32 [n].
        name: of the features.
        settings: everything that they depend on besides the rows.
        compute: gives the features of some of the rows.
    """
    own = rows[: np.searchsorted(rows, corpus.own_rows)]
    parts = [compute(own)]
    if len(own):
        parts[0].write(feature_path(corpus.texts, name, settings), own)
    start = corpus.own_rows
    for earlier in corpus.earlier:
        within = rows[slice(*np.searchsorted(rows, (start, start + len(earlier.rows))))]
        stored = _stored(feature_path(earlier.texts, name, settings), earlier.rows[within - start])
        # Rows of data that no run curated, or that this stage of the run did not reach, are computed.
        known = np.zeros(len(within), bool) if stored is None else stored[0]
        if stored is not None:
            parts.append(stored[1])
        if not known.all():
            missing = compute(within[~known])
            both = RowFeatures.joined([*([stored[1]] if stored else []), missing])
            order = np.argsort(np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)]), kind="stable")
            parts[-1 if stored else len(parts) :] = [both.take(order)]
        start += len(earlier.rows)
    return RowFeatures.joined(parts)


def feature_path(texts: Path, name: str, settings: dict[str, Any]) -> Path:
    """Where features of the rows of a TEXTS file are stored: beside it. Hashes of polars hold for one version of it."""
    key = measure_key(name, {"polars": pl.__version__, **settings}, texts.name)
    return texts.with_name(f"{name}-{key[:16]}.npz")


def _stored(path: Path, rows: NDArray[np.uint32]) -> tuple[NDArray[np.bool_], RowFeatures] | None:
    """Which of `rows` a file holds, bool [n], and the features of these; None where there is no such file, or it
    is damaged."""
    if not is_whole(path):
        return None
    with np.load(path) as file:
        columns = {key: file[key] for key in file.files}
    stored_rows, sizes, flat = columns.pop(_ROWS), columns.pop("sizes"), columns.pop(_FLAT, None)
    positions = np.searchsorted(stored_rows, rows)
    known = positions < len(stored_rows)
    known[known] = stored_rows[positions[known]] == rows[known]
    return known, RowFeatures(columns, sizes, flat).take(positions[known])
