"""The chart of the map: how dense the rows are, a sample of points, names of topics, lines to witnesses.

The browser draws it on a canvas (`map_canvas.js`), since a chart of Vega took most of a second to draw again and has no
selection but boxes. Places are sent as shares of the window from its left and lower edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import streamlit as st
from numpy.typing import NDArray

from siftune.app.web import markup
from siftune.app.web.theme import FATES, arm_colour
from siftune.curation.review.catalogue import Positions
from siftune.curation.review.row_map import Polygon, RowMap, Window
from siftune.curation.review.search import TextIndex

#: Points that are drawn, and cells of the density, whatever the number of rows.
MOST_POINTS = 5_000
COLUMNS, LINES = 144, 84
#: Values of a column that have a colour of their own; the others share one.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99"]
_REST, _REST_COLOUR = "all others", "#8A8A8A"
#: Words of a row from which a colour holds, dark to light (viridis).
_LENGTHS = {
    0: "#440154",
    16: "#46327E",
    32: "#365C8D",
    64: "#277F8E",
    128: "#1FA187",
    256: "#4AC16D",
    512: "#A0DA39",
    1024: "#FDE725",
}
_FAINTEST, _DARKEST = 16, 140  # opacity of a cell, of 255
_MOST_NAMES = 14
_ROWS_OF_NAMES = 100_000
_NAME_WIDTH, _NAME_HEIGHT = 0.14, 0.045  # of a name, as shares of the map
_MOST_LINES = 300
_LONGEST_PROMPT = 100  # characters of a prompt beside the pointer
_LINE_COLOUR = "#D55E00"
_HTML = """<figure><figcaption></figcaption><div class="plane"><canvas></canvas><svg><polygon/></svg>
<div class="tip" hidden></div></div><ul></ul></figure>"""

_canvas = st.components.v2.component(
    "siftune.map",
    html=_HTML,
    css=Path(__file__).with_name("map_canvas.css").read_text(encoding="utf-8"),
    js=Path(__file__).with_name("map_canvas.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True)
class Drawing:
    """What the map shows: the rows in the window, the points among them, how they are coloured.

    Attributes:
        row_map: the places of all rows.
        window: the part of the map.
        inside: positions of the rows of the filter in the window.
        points: positions of the rows that are drawn as points.
        colour: source, fate, topic, stage, `length`, or an arm.
        names: whether topics are named on the map.
        lines: whether dropped points are joined to their witnesses.
        selection: the polygon that the user drew.
        row: the position of the row that the user selected.
    """

    row_map: RowMap
    window: Window
    inside: Positions
    points: Positions
    colour: str
    names: bool
    lines: bool
    selection: Polygon | None
    row: int | None


def draw_map(drawing: Drawing, key: str, *, selected: Callable[[Any], None], clicked: Callable[[Any], None]) -> None:
    """Draw the map.

    Args:
        drawing: what it shows.
        key: of the chart on the page.
        selected: called with what the browser sent as the corners of the polygon that the user drew.
        clicked: called with what the browser sent as the position of the row that the user clicked on.
    """
    _canvas(
        key=key,
        data=map_data(drawing),
        on_selected_change=lambda: selected(st.session_state[key].get("selected")),
        on_clicked_change=lambda: clicked(st.session_state[key].get("clicked")),
    )


def map_data(drawing: Drawing) -> dict[str, Any]:
    """What the browser draws; JSON."""
    row_map, window, points = drawing.row_map, drawing.window, drawing.points
    rows = row_map.catalogue.frame.select("id", "fate", "source", "topic")[points]
    codes, legend = coloured(row_map, points, drawing.colour)
    x, y = _shares(window, row_map.x[points], row_map.y[points])
    dropped = points[row_map.witness[points] >= 0][:_MOST_LINES] if drawing.lines else points[:0]
    row, selection = drawing.row, drawing.selection
    ring = [] if row is None or np.isnan(row_map.x[row]) else _places(window, row_map.x[[row]], row_map.y[[row]])
    return {
        "title": markup.line(
            f"Every point is a row: the closer two rows, the more alike their prompts; coloured by {drawing.colour}"
        ),
        "window": {"left": window.left, "right": window.right, "bottom": window.bottom, "top": window.top},
        # Where every row is a point, the points say it all.
        "shading": _shading(drawing) if len(points) < len(drawing.inside) else None,
        "points": {"x": x, "y": y, "value": codes.tolist(), "position": points.tolist()},
        "radius": 2 if len(points) > 2_000 else 3 if len(points) > 400 else 4,
        "legend": legend,
        "tips": [
            ["row", [markup.line(row_id) for row_id in rows["id"]], list(range(len(points)))],
            *([name, *_coded(rows[name], "")] for name in ("fate", "source", "topic")),
            *_prompts(drawing),
        ],
        "names": _topic_names(drawing) if drawing.names else [],
        "lines": _witness_lines(drawing, dropped),
        "line_colour": _LINE_COLOUR,
        "row": ring[0] if ring else None,
        "row_lines": _witness_lines(drawing, _joined(row_map, row)) if row is not None else [],
        "selection": _places(window, *np.array(selection).T) if selection else None,
    }


def _shares(window: Window, x: NDArray[Any], y: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Places as shares of the window; four decimals are less than a pixel."""
    across = (x.astype(np.float64) - window.left) / (window.right - window.left)
    up = (y.astype(np.float64) - window.bottom) / (window.top - window.bottom)
    return np.round(across, 4).tolist(), np.round(up, 4).tolist()


def _places(window: Window, x: NDArray[Any], y: NDArray[Any]) -> list[tuple[float, float]]:
    return [*zip(*_shares(window, x, y), strict=True)]


def _shading(drawing: Drawing) -> dict[str, Any]:
    """The opacity of each cell, from the upper left, the darker the more rows, on a logarithmic scale."""
    counts = drawing.row_map.density(drawing.inside, drawing.window, columns=COLUMNS, lines=LINES)
    scaled = np.log1p(counts) / np.log1p(counts.max())
    shades = np.where(counts > 0, _FAINTEST + scaled * (_DARKEST - _FAINTEST), 0)
    return {"columns": COLUMNS, "lines": LINES, "shades": shades[::-1].astype(int).ravel().tolist()}


def coloured(row_map: RowMap, points: Positions, colour: str) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """For each point the index of its entry in the legend, and the legend: names and colours.

    Args:
        row_map: the places of all rows.
        points: positions of rows.
        colour: source, fate, topic, stage, `length`, or an arm.
    """
    frame = row_map.catalogue.frame
    if colour == "length":
        counts = frame.select("prompt_words", "answer_words")[points]
        words = counts.select(pl.sum_horizontal("prompt_words", "answer_words").fill_null(0)).to_series().to_numpy()
        starts = list(_LENGTHS)
        names = [f"{low}–{high - 1} words" for low, high in pairwise(starts)]
        legend = [*zip([*names, f"{starts[-1]:,} words or more"], _LENGTHS.values(), strict=True)]
        return np.searchsorted(starts, words, side="right") - 1, legend
    if colour in row_map.catalogue.arms:
        legend = [(f"in {markup.line(colour)}", arm_colour(colour)), ("not in it", _REST_COLOUR)]
        return np.where(frame[f"arm:{colour}"].gather(points), 0, 1), legend
    values = frame[colour].gather(points).cast(pl.String).fill_null("none")
    counts = values.value_counts(sort=True, name="rows")
    ordered = counts.sort("rows", colour, descending=[True, False])[colour].to_list()
    if colour == "fate":
        ordered = [fate for fate in FATES if fate in ordered]
        colours = [FATES[fate] for fate in ordered]
    else:
        colours = _COLOURS[: len(ordered)]
    legend = [(markup.line(name), shade) for name, shade in zip(ordered, colours, strict=False)]
    if len(ordered) > len(legend):
        legend.append((_REST, _REST_COLOUR))
    places = {name: min(index, len(legend) - 1) for index, name in enumerate(ordered)}
    return values.replace_strict(places, return_dtype=pl.Int64).to_numpy(), legend


def _coded(column: pl.Series, missing: str) -> tuple[list[str], list[int]]:
    """The distinct values of a column as lines with visible characters, and for each row the index of its own."""
    values = column.cast(pl.String).fill_null(missing)
    distinct = values.unique(maintain_order=True).to_list()
    indices = {value: index for index, value in enumerate(distinct)}
    codes = values.replace_strict(indices, return_dtype=pl.Int64).to_list()
    return [markup.line(value) for value in distinct], codes


def _prompts(drawing: Drawing) -> list[list[Any]]:
    """The first words of each point's prompt; none while the search index, which has them at hand, is not there."""
    index = TextIndex.open(drawing.row_map.catalogue.run)
    if index is None:
        return []
    points = drawing.points.tolist()
    previews = index.previews(points)
    prompts = [markup.line(previews.get(point, ("", ""))[0], _LONGEST_PROMPT) for point in points]
    return [["prompt", prompts, list(range(len(points)))]]


def _witness_lines(drawing: Drawing, rows: Positions) -> list[tuple[float, ...]]:
    """The ends of a line from each of `rows` to the row that it was dropped for."""
    row_map = drawing.row_map
    witness = row_map.witness[rows]
    starts = _shares(drawing.window, row_map.x[rows], row_map.y[rows])
    return [*zip(*starts, *_shares(drawing.window, row_map.x[witness], row_map.y[witness]), strict=True)]


def _joined(row_map: RowMap, row: int) -> Positions:
    """The duplicates of a row, and the row itself where it was dropped for another one."""
    joined = np.flatnonzero(row_map.witness == row)[:_MOST_LINES]
    return np.append(joined, [row] if row_map.witness[row] >= 0 else []).astype(np.uint32)


def _topic_names(drawing: Drawing) -> list[tuple[float, float, str]]:
    """The topics with most rows in the window at the middle of their rows, each where no larger one has its name."""
    kept: list[tuple[float, float, str]] = []
    # Where most of a topic lies, a sample says as well as all rows do.
    rows = drawing.row_map.sample(drawing.inside, _ROWS_OF_NAMES)
    topics = drawing.row_map.topic_places(rows, 2 * _MOST_NAMES)
    places = _shares(drawing.window, topics["x"].to_numpy(), topics["y"].to_numpy())
    for topic, x, y in zip(topics["topic"], *places, strict=True):
        is_free = all(abs(x - at) > _NAME_WIDTH or abs(y - over) > _NAME_HEIGHT for at, over, _ in kept)
        if is_free and len(kept) < _MOST_NAMES:
            kept.append((x, y, markup.line(", ".join(topic.split(", ")[:2]))))
    return kept
