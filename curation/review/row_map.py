"""The map of a run: where each row lies in two dimensions, how dense the rows are, and a sample of them to draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.atomic_files import replacing
from siftune.curation.checksums import whole
from siftune.curation.corpus import batches, write_batches
from siftune.curation.errors import UserError
from siftune.curation.review.catalogue import Catalogue, Positions
from siftune.curation.review.decision_words import BALANCE
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.run.folder import RunFolder

#: The corners of an outline (x, y); its last edge leads back to the first.
Polygon = Sequence[tuple[float, float]]

#: Share of the width that is left free around the rows.
_MARGIN = 0.03
#: What an export holds of each row; `text` is the prompt.
EXPORTED = pl.Schema(
    {
        "id": pl.String,
        "x": pl.Float32,
        "y": pl.Float32,
        "topic": pl.String,
        "fate": pl.String,
        "source": pl.String,
        "text": pl.String,
    }
)


@dataclass(frozen=True)
class Window:
    """A rectangle of the map; the ends belong to it."""

    left: float
    right: float
    bottom: float
    top: float

    @classmethod
    def around(cls, polygon: Polygon) -> Window:
        """The smallest window that holds a polygon."""
        across, up = zip(*polygon, strict=True)
        return cls(min(across), max(across), min(up), max(up))

    def scaled(self, factor: float) -> Window:
        """A window around the same middle, so many times as wide and as high."""
        width, height = (self.right - self.left) * factor / 2, (self.top - self.bottom) * factor / 2
        x, y = (self.left + self.right) / 2, (self.bottom + self.top) / 2
        return Window(x - width, x + width, y - height, y + height)


@dataclass(frozen=True)
class RowMap:
    """The places of the rows of a catalogue.

    x, y: float32 [n], NaN for a row that could not be read. rank: uint32 [n], a seeded order: rows are sampled by it,
    so a smaller window shows the points of the larger one and more.
    """

    catalogue: Catalogue
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    rank: NDArray[np.uint32] = field(repr=False)

    @classmethod
    def open(cls, catalogue: Catalogue) -> RowMap | None:
        """Read the places of the rows; None where the recipe asked for no topics."""
        run = catalogue.run
        if "topics" not in run.manifest.files:
            return None
        places = pl.read_parquet(run.file("topics"), columns=["x", "y"], glob=False)
        examples = catalogue.example_positions
        x, y = (
            np.where(examples >= 0, places[name].to_numpy()[examples], np.nan).astype(np.float32) for name in ("x", "y")
        )
        rank = np.random.default_rng(0).permutation(len(catalogue)).astype(np.uint32)
        return cls(catalogue, x, y, rank)

    @cached_property
    def everything(self) -> Window:
        """The window that shows every row."""
        if np.isnan(self.x).all():
            return Window(-1, 1, -1, 1)
        ends = [float(np.nanmin(self.x)), float(np.nanmax(self.x)), float(np.nanmin(self.y)), float(np.nanmax(self.y))]
        if ends[0] == ends[1]:
            ends[:2] = [ends[0] - 1, ends[1] + 1]
        if ends[2] == ends[3]:
            ends[2:] = [ends[2] - 1, ends[3] + 1]
        return Window(*ends).scaled(1 + 2 * _MARGIN)

    def inside(self, window: Window, positions: Positions) -> Positions:
        """Those of the rows at `positions` that lie in a window."""
        x, y = self.x[positions], self.y[positions]
        return positions[(x >= window.left) & (x <= window.right) & (y >= window.bottom) & (y <= window.top)]

    def within(self, polygon: Polygon, positions: Positions) -> Positions:
        """Those of the rows at `positions` that lie in a polygon by the even-odd rule, ascending.

        A row is inside when a ray from it to the left crosses an odd number of edges. Rows are sorted by height, so
        that an edge looks only at those beside it: a polygon of many short edges costs no more than one of few.
        """
        corners = np.asarray(polygon, np.float64)
        rows = self.inside(Window.around(polygon), positions)
        order = np.argsort(self.y[rows])
        x, y = self.x[rows][order].astype(np.float64), self.y[rows][order].astype(np.float64)
        is_inside = np.zeros(len(rows), np.bool_)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            # An edge holds its lower end and not its upper one: a corner between two edges is crossed once.
            start, end = np.searchsorted(y, (min(y1, y2), max(y1, y2)))
            if end > start:
                crossing = x1 + (y[start:end] - y1) * ((x2 - x1) / (y2 - y1))
                is_inside[start:end] ^= crossing < x[start:end]
        return np.sort(rows[order[is_inside]])

    def density(self, positions: Positions, window: Window, *, columns: int, lines: int) -> NDArray[np.int64]:
        """How many of the rows at `positions`, all of them in a window, lie in each cell of a grid over it.

        Args:
            positions: the rows.
            window: the window.
            columns: cells from left to right.
            lines: cells from bottom to top.

        Returns:
            int64 [lines, columns], the lowest line first.
        """
        width, height = (window.right - window.left) / columns, (window.top - window.bottom) / lines
        column = np.minimum(((self.x[positions] - window.left) / width).astype(np.int64), columns - 1)
        line = np.minimum(((self.y[positions] - window.bottom) / height).astype(np.int64), lines - 1)
        return np.bincount(line * columns + column, minlength=columns * lines).reshape(lines, columns)

    def sample(self, positions: Positions, most: int) -> Positions:
        """At most so many of the rows at `positions`, ascending; all of them where they are fewer."""
        if len(positions) <= most:
            return np.sort(positions)
        return np.sort(positions[np.argpartition(self.rank[positions], most)[:most]])

    def topic_places(self, positions: Positions, most: int) -> pl.DataFrame:
        """The topics with the most rows among `positions`: topic, rows, and x, y, the median of these rows."""
        frame = pl.DataFrame(
            {
                "topic": self.catalogue.frame["topic"].gather(positions),
                "x": self.x[positions],
                "y": self.y[positions],
            }
        )
        counts = frame.drop_nulls("topic").group_by("topic").agg(pl.len().alias("rows"), pl.col("x", "y").median())
        counts = counts.with_columns(pl.col("topic").cast(pl.String))
        return counts.sort("rows", "topic", descending=[True, False]).head(most).select("topic", "rows", "x", "y")

    @cached_property
    def witness(self) -> NDArray[np.int64]:
        """For each row the position of the row that it was dropped for, int64 [n]; -1 where there is none.

        A row that was dropped for a quota was not dropped for another row.
        """
        ids = self.catalogue.frame.lazy().select("id").with_row_index("position")
        ledger = pl.scan_parquet(whole(self.catalogue.run.ledger_path), glob=False)
        is_of_row = ~pl.col("stage").is_in([CONTAMINATION, BALANCE])
        drops = ledger.filter(pl.col("action") == "drop", is_of_row).select("id", "witness")
        pairs = drops.join(ids, on="id").join(ids, left_on="witness", right_on="id", suffix="_witness").collect()
        witness = np.full(len(self.catalogue), -1, np.int64)
        witness[pairs["position"].to_numpy()] = pairs["position_witness"].to_numpy()
        return witness


def export_map(run: RunFolder, path: Path) -> int:
    """Write EXPORTED of every row that has a place to a parquet file; returns how many rows there are.

    Raises:
        UserError: the run has no map, or the file cannot be one.
    """
    if "topics" not in run.manifest.files:
        raise UserError(
            f"{run.path} has no map. Add `topics: {{}}` to {run.recipe_path} and run: siftune curate {run.recipe_path}"
        )
    if path.suffix != ".parquet":
        raise UserError(f"The map is written as parquet; {path.name} does not end in .parquet.")
    if path.exists():
        raise UserError(f"{path} exists already. Name a file that does not.")
    rows = run.rows().select("id", "fate", "source", "topic")

    def frames() -> Iterator[pl.DataFrame]:
        pairs = zip(batches(run.file("topics"), ["id", "x", "y"]), batches(run.texts, ["id", "prompt"]), strict=False)
        for places, texts in pairs:
            of_batch = places.join(texts.rename({"prompt": "text"}), on="id", how="left", maintain_order="left")
            joined = of_batch.join(rows, on="id", how="left", maintain_order="left")
            yield schema.conform(joined, EXPORTED)

    with replacing(path) as temporary:
        return write_batches(frames(), temporary, EXPORTED)
