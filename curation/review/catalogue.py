"""Look into a run of any size: filter, sort and page its rows, and gather what is known of one of them.

The light columns of every row are held compactly (about 60 bytes a row and its id); texts stay in their parquet
files and are read for the rows that are shown.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from siftune.curation import schema
from siftune.curation.checksums import whole
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import neighbours
from siftune.curation.run.folder import RunFolder

Positions = npt.NDArray[np.uint32]
Order = Literal["row", "prompt_words", "answer_words", "turns"]

_NAMES = ("source", "fate", "stage", "reason", "split", "topic")
_REMEMBERED = 8


@dataclass(frozen=True)
class Query:
    """Which rows, in which order. Empty tuples and `None` mean: any. Ranges include both ends.

    `text`, `tag` and `by_hand` are not of the run's own columns: who asks for them hands their rows to `find` as hits.
    """

    text: str = ""
    source: tuple[str, ...] = ()
    fate: tuple[str, ...] = ()
    stage: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    topic: tuple[str, ...] = ()
    arm: tuple[str, ...] = ()
    group: int | None = None
    turns: tuple[int, int] | None = None
    prompt_words: tuple[int, int] | None = None
    answer_words: tuple[int, int] | None = None
    order: Order = "row"
    descending: bool = False
    tag: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()


@dataclass
class Catalogue:
    """The light columns of every row of a run, in the order of ROWS; a row's position is its index here."""

    run: RunFolder
    frame: pl.DataFrame
    arms: tuple[str, ...]
    _results: OrderedDict[tuple[Query, int], Positions] = field(default_factory=OrderedDict)
    _values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, run: RunFolder) -> Catalogue:
        """Read the light columns. Raises `UserError` when the run has not come so far."""
        rows = run.rows()
        arms = tuple(rows["arms"].explode().drop_nulls().unique().sort().to_list())
        flags = [pl.col("arms").list.contains(arm).fill_null(value=False).alias(_flag(arm)) for arm in arms]
        names = [pl.col(name).cast(pl.Categorical) for name in _NAMES]
        return cls(run, rows.lazy().with_columns(*names, *flags).drop("arms").collect(), arms)

    def __len__(self) -> int:
        return self.frame.height

    def values(self, name: str) -> list[str]:
        """The distinct values of `source`, `fate`, `stage`, `reason`, `split` or `topic`, sorted, without nulls."""
        if name not in self._values:
            self._values[name] = sorted(self.frame[name].drop_nulls().unique().cast(pl.String).to_list())
        return list(self._values[name])

    def longest(self, name: Order) -> int:
        """The largest value of a numeric column."""
        return int(self.frame[name].max() or 0)  # type: ignore[arg-type]

    def find(self, query: Query, hits: Positions | None = None) -> Positions:
        """Positions of the rows that `query` asks for, in its order; ties stay in the order of the rows.

        `hits` are the positions, rising, that its text was found in (see `TextIndex.search`); None: any row.
        """
        key = (query, -1 if hits is None else hash(hits.tobytes()))
        if key not in self._results:
            self._results[key] = self._find(query, hits)
            if len(self._results) > _REMEMBERED:
                self._results.popitem(last=False)
        self._results.move_to_end(key)
        return self._results[key]

    def _find(self, query: Query, hits: Positions | None) -> Positions:
        conditions = [pl.col(name).is_in(getattr(query, name)) for name in _NAMES if getattr(query, name)]
        if query.arm:
            flags = [pl.col(_flag(arm)) for arm in query.arm if arm in self.arms]
            conditions.append(pl.any_horizontal(flags or [False]))
        if query.group is not None:
            conditions.append(pl.col("group") == query.group)
        ranges = {name: getattr(query, name) for name in ("turns", "prompt_words", "answer_words")}
        conditions += [pl.col(name).is_between(*ends) for name, ends in ranges.items() if ends is not None]
        mask = np.ones(len(self), dtype=np.bool_)
        if conditions:
            mask = self.frame.select(pl.all_horizontal(conditions).fill_null(value=False)).to_series().to_numpy()
        positions = (np.flatnonzero(mask) if hits is None else hits[mask[hits]]).astype(np.uint32)
        if query.order != "row":
            positions = positions[np.argsort(self._keys(query)[positions], kind="stable")]
        elif query.descending:
            positions = positions[::-1]
        return positions

    def _keys(self, query: Query) -> npt.NDArray[np.integer]:
        keys = self.frame[query.order].fill_null(0).to_numpy()
        largest = int(keys.max(initial=0))
        keys = largest - keys if query.descending else keys
        # numpy sorts 16-bit keys in linear time, ten times faster than others at a million rows.
        return keys.astype(np.uint16) if largest < 2**16 else keys

    def counts(self, positions: Positions, name: str) -> dict[str, int]:
        """How often each value of a column occurs among the rows at `positions`, most frequent first."""
        column = self.frame[name] if len(positions) == len(self) else self.frame[name].gather(positions)
        table = column.drop_nulls().value_counts(sort=True)
        return dict(zip(table[name].cast(pl.String), table["count"], strict=True))

    def page(self, positions: Positions, number: int, size: int) -> pl.DataFrame:
        """The light columns of page `number` (from 0) and each row's `position`."""
        part = positions[number * size : (number + 1) * size]
        return self.frame[part].with_columns(pl.Series("position", part))

    def position(self, row_id: str) -> int | None:
        """Where a row stands, or None when no row has this id."""
        position = self.frame["id"].index_of(row_id)
        return None if position is None else int(position)

    @cached_property
    def example_positions(self) -> npt.NDArray[np.int64]:
        """For each row its position in EXAMPLES; -1 for rows that were quarantined and have no text."""
        ids = pl.scan_parquet(self.run.examples, glob=False).select("id").collect().to_series()
        alive = (self.frame["fate"] != "quarantined").fill_null(value=True).to_numpy()
        if int(alive.sum()) == len(ids) and bool((self.frame["id"].filter(pl.Series(alive)) == ids).all()):
            return np.where(alive, np.cumsum(alive) - 1, -1)
        joined = self.frame.select("id").join(
            pl.DataFrame({"id": ids}).with_row_index("example"), on="id", how="left", maintain_order="left"
        )
        return joined["example"].cast(pl.Int64).fill_null(-1).to_numpy()

    def examples(self, positions: Sequence[int] | Positions) -> dict[int, dict[str, Any]]:
        """EXAMPLES rows by position; quarantined rows are absent."""
        return self._read("examples", positions)

    def texts(self, positions: Sequence[int] | Positions) -> dict[int, dict[str, Any]]:
        """TEXTS rows by position; quarantined rows are absent."""
        return self._read("texts", positions)

    def earlier_messages(self, row_id: str) -> list[dict[str, str]]:
        """The turns of a row of an earlier set that the run names; none where there is no such row."""
        named = self.run.earlier().filter(pl.col("id") == row_id)["messages"]
        return named[0].to_list() if len(named) else []

    def _read(self, name: str, positions: Sequence[int] | Positions) -> dict[int, dict[str, Any]]:
        row_of = {int(self.example_positions[position]): int(position) for position in positions}
        row_of.pop(-1, None)
        if not row_of:
            return {}
        examples = read_parquet_rows(self.run.file(name), sorted(row_of))
        return {row_of[example]: row for example, row in examples.items()}


def read_parquet_rows(path: Path, positions: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Rows of a parquet file by position (ascending), reading only the row groups that hold them."""
    import pyarrow.parquet as pq

    rows: dict[int, dict[str, Any]] = {}
    with pq.ParquetFile(path, memory_map=True) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        requested = np.asarray(positions)
        groups = np.searchsorted(ends, requested, side="right")
        for group in np.unique(groups[groups < len(sizes)]):
            inside = requested[groups == group]
            table = file.read_row_group(int(group)).take(inside - (ends[group] - sizes[group]))
            rows.update(zip(inside.tolist(), table.to_pylist(), strict=True))
    return rows


@dataclass(frozen=True)
class Dossier:
    """Everything a run knows about one row."""

    row: dict[str, Any]
    decisions: pl.DataFrame
    witnessed: pl.DataFrame
    neighbours: pl.DataFrame
    matches: pl.DataFrame
    findings: pl.DataFrame


def dossier(catalogue: Catalogue, position: int, *, most: int = 12) -> Dossier:
    """Gather the ledger entries of a row, the rows that it witnessed, its neighbours and its matches.

    `neighbours` are the `most` best of each stage, see `siftune.curation.review.pairs.neighbours`; `witnessed` has id,
    stage, action.
    """
    run = catalogue.run
    row = catalogue.frame.row(position, named=True)
    ledger = pl.scan_parquet(whole(run.ledger_path), glob=False)
    same = ledger.filter(pl.col("id") == row["id"]).collect()
    is_witness = (pl.col("witness") == row["id"]) & (pl.col("stage") != CONTAMINATION)
    witnessed = ledger.filter(is_witness).select("id", "stage", "action").collect()
    return Dossier(
        row,
        same,
        witnessed,
        neighbours(run, row["id"], catalogue.frame.lazy(), most=most),
        run.matches(row["id"]),
        _findings(run, row["id"]),
    )


def _findings(run: RunFolder, row_id: str) -> pl.DataFrame:
    if "checks" not in run.manifest.files:
        return schema.empty(schema.FINDINGS)
    findings = pl.scan_parquet(run.file("checks"), glob=False).filter(pl.col("id") == row_id)
    return findings.select(list(schema.FINDINGS)).collect()


def _flag(arm: str) -> str:
    return f"arm:{arm}"
