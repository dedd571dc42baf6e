"""The chart of the map: how dense the rows are, a sample of points, names of topics, lines to witnesses."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import polars as pl

from siftune.app.web import markup
from siftune.app.web.theme import FATES, OTHER, arm_colour
from siftune.curation.review.catalogue import Positions
from siftune.curation.review.row_map import RowMap, Window

#: Points that are drawn, and cells of the density, whatever the number of rows.
MOST_POINTS = 5_000
COLUMNS, LINES = 96, 64
HEIGHT = 560
#: Values of a column that have a colour of their own; the others share one.
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99"]
_REST, _REST_COLOUR = "all others", "#8A8A8A"
_MOST_NAMES = 14
_NAME_WIDTH, _NAME_HEIGHT = 0.12, 0.04  # of a name, as shares of the map
_MOST_LINES = 300
_LINE_COLOUR = "#D55E00"


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
        box: the rectangle that the user selected.
        row: the position of the row that the user selected.
    """

    row_map: RowMap
    window: Window
    inside: Positions
    points: Positions
    colour: str
    names: bool
    lines: bool
    box: Window | None
    row: int | None


def map_chart(drawing: Drawing) -> alt.LayerChart:
    """The layers of the map, from the ground up. Its selections are called `box` (x, y) and `click` (position)."""
    layers: list[alt.Chart | alt.LayerChart] = [_points(drawing)]
    if len(drawing.points) < len(drawing.inside):  # else the points say it all
        layers.insert(0, _density(drawing))
    if drawing.lines:
        dropped = drawing.points[drawing.row_map.witness[drawing.points] >= 0][:_MOST_LINES]
        layers.append(_witness_lines(drawing, dropped, width=1))
    if drawing.names:
        layers.append(_topic_names(drawing))
    if drawing.box is not None:
        layers.append(_box(drawing.box))
    if drawing.row is not None:
        layers += _chosen_row(drawing, drawing.row)
    title = f"Every point is a row: the closer two rows, the more alike their prompts; coloured by {drawing.colour}"
    chart = alt.layer(*layers).properties(height=HEIGHT, title=markup.line(title))
    return chart.configure_legend(labelLimit=260, columns=4)


def _x(name: str, window: Window) -> alt.X:
    return alt.X(f"{name}:Q", axis=None, scale=alt.Scale(domain=[window.left, window.right], nice=False, zero=False))


def _y(name: str, window: Window) -> alt.Y:
    return alt.Y(f"{name}:Q", axis=None, scale=alt.Scale(domain=[window.bottom, window.top], nice=False, zero=False))


def _density(drawing: Drawing) -> alt.Chart:
    """Cells, the darker the more rows they hold, on a logarithmic scale."""
    cells = drawing.row_map.density(drawing.inside, drawing.window, columns=COLUMNS, lines=LINES)
    shade = alt.Opacity("rows:Q", legend=None, scale=alt.Scale(type="log", domainMin=1, range=[0.06, 0.55]))
    return (
        alt.Chart(cells.to_pandas())
        .mark_rect(color="#8A8A8A", clip=True)
        .encode(x=_x("x", drawing.window), x2="x2", y=_y("y", drawing.window), y2="y2", opacity=shade)
    )


def _points(drawing: Drawing) -> alt.Chart:
    frame, colour = coloured(drawing.row_map, drawing.points, drawing.colour)
    box = alt.selection_interval(name="box", encodings=["x", "y"])
    click = alt.selection_point(name="click", fields=["position"], on="click", clear=False)
    size = 14 if frame.height > 2_000 else 26 if frame.height > 400 else 48
    tooltip = ["row:N", "fate:N", "source:N", "topic:N"]
    return (
        alt.Chart(frame.to_pandas())
        .mark_circle(size=size, opacity=0.75, clip=True)
        .encode(x=_x("x", drawing.window), y=_y("y", drawing.window), color=colour, tooltip=tooltip)
        .add_params(box, click)
    )


def coloured(row_map: RowMap, points: Positions, colour: str) -> tuple[pl.DataFrame, alt.Color]:
    """The points to draw (position, x, y, value, and what the tooltip shows) and the scale of their colours.

    Args:
        row_map: the places of all rows.
        points: positions of rows.
        colour: source, fate, topic, stage, `length`, or an arm.
    """
    rows = row_map.catalogue.frame[points]
    shown = {name: _lines(rows[name], "") for name in ("fate", "source", "topic")}
    frame = pl.DataFrame(
        {
            "position": points.astype(np.int64),
            "x": row_map.x[points],
            "y": row_map.y[points],
            "row": [markup.line(row_id) for row_id in rows["id"]],
            **shown,
        }
    )
    legend = alt.Legend(title=None, orient="bottom", symbolOpacity=1)
    if colour == "length":
        words = rows.select(pl.sum_horizontal("prompt_words", "answer_words").fill_null(0) + 1).to_series()
        scale = alt.Scale(type="log", scheme="viridis")
        of_length = alt.Legend(title="words", orient="bottom", gradientLength=260)
        return frame.with_columns(value=words), alt.Color("value:Q", scale=scale, legend=of_length)
    if colour in row_map.catalogue.arms:
        is_in = rows[f"arm:{colour}"]
        domain, colours = [f"in {markup.line(colour)}", "not in it"], [arm_colour(colour), _REST_COLOUR]
        values = pl.Series(np.where(is_in, *domain), dtype=pl.String)
    elif colour == "fate":
        values, domain = frame["fate"], [fate for fate in FATES if fate in set(frame["fate"])]
        colours = [FATES[fate] for fate in domain]
    else:
        values = _lines(rows[colour], "none")
        frequent = values.value_counts(sort=True)
        ordered = frequent.sort("count", frequent.columns[0], descending=[True, False])[frequent.columns[0]].to_list()
        domain = ordered[: len(_COLOURS)]
        values = values.set(~values.is_in(domain), _REST)
        colours = _COLOURS[: len(domain)]
        if len(ordered) > len(domain):
            domain, colours = [*domain, _REST], [*colours, _REST_COLOUR]
    scale = alt.Scale(domain=domain, range=colours)
    return frame.with_columns(value=values), alt.Color("value:N", scale=scale, legend=legend)


def _lines(column: pl.Series, missing: str) -> pl.Series:
    """A column of few values, each as one line with visible characters."""
    distinct = column.cast(pl.String).fill_null(missing)
    named = {value: markup.line(value) for value in distinct.unique()}
    return distinct.replace_strict(named, return_dtype=pl.String)


def _witness_lines(drawing: Drawing, rows: Positions, *, width: int) -> alt.Chart:
    """A line from each of `rows` to the row that it was dropped for."""
    row_map = drawing.row_map
    witness = row_map.witness[rows]
    ends = pl.DataFrame(
        {"x": row_map.x[rows], "y": row_map.y[rows], "x2": row_map.x[witness], "y2": row_map.y[witness]}
    )
    return (
        alt.Chart(ends.to_pandas())
        .mark_rule(color=_LINE_COLOUR, strokeWidth=width, opacity=0.8, clip=True)
        .encode(x=_x("x", drawing.window), y=_y("y", drawing.window), x2="x2", y2="y2")
    )


def _topic_names(drawing: Drawing) -> alt.LayerChart:
    """The topics with most rows in the window at the middle of their rows, each where no larger one has its name."""
    window = drawing.window
    kept: list[dict[str, float | str]] = []
    width, height = _NAME_WIDTH * (window.right - window.left), _NAME_HEIGHT * (window.top - window.bottom)
    for topic in drawing.row_map.topic_places(drawing.inside, 2 * _MOST_NAMES).to_dicts():
        is_free = all(abs(topic["x"] - one["x"]) > width or abs(topic["y"] - one["y"]) > height for one in kept)
        if is_free and len(kept) < _MOST_NAMES:
            kept.append({"x": topic["x"], "y": topic["y"], "name": ", ".join(topic["topic"].split(", ")[:2])})
    names = pl.DataFrame(kept, schema={"x": pl.Float64, "y": pl.Float64, "name": pl.String})
    base = alt.Chart(names.to_pandas()).encode(x=_x("x", window), y=_y("y", window), text="name:N")
    # A light edge makes dark letters readable on points, on white and on black.
    edge = base.mark_text(fontSize=12, fontWeight=600, stroke="#ffffff", strokeWidth=4, opacity=0.85, clip=True)
    return edge + base.mark_text(fontSize=12, fontWeight=600, color="#1c2430", clip=True)


def _box(box: Window) -> alt.Chart:
    frame = pl.DataFrame({"x": [box.left], "x2": [box.right], "y": [box.bottom], "y2": [box.top]})
    return (
        alt.Chart(frame.to_pandas())
        .mark_rect(fillOpacity=0, stroke=OTHER, strokeWidth=2, clip=True)
        .encode(x="x:Q", x2="x2", y="y:Q", y2="y2")
    )


def _chosen_row(drawing: Drawing, row: int) -> list[alt.Chart]:
    """A ring around the row that the user selected, and the lines of its duplicates or to its witness."""
    row_map = drawing.row_map
    joined = np.flatnonzero(row_map.witness == row)[:_MOST_LINES]
    if row_map.witness[row] >= 0:
        joined = np.append(joined, row)
    ring = pl.DataFrame({"x": row_map.x[[row]], "y": row_map.y[[row]]})
    chart = (
        alt.Chart(ring.to_pandas())
        .mark_point(size=220, color=_LINE_COLOUR, strokeWidth=2.5, clip=True)
        .encode(x=_x("x", drawing.window), y=_y("y", drawing.window))
    )
    return [_witness_lines(drawing, joined.astype(np.uint32), width=2), chart] if len(joined) else [chart]
