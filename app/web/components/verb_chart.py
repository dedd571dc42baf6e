"""The verbs of instructions and what they act on, as two rings: the figure of Self-Instruct."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

_HEIGHT = 420
#: Of the rings, in pixels: two figures stand side by side in a window of 800 pixels.
_INNER, _MIDDLE, _OUTER = 40, 105, 168
#: The size of a name in pixels: its height, and the width of a letter.
_LINE, _LETTER = 13, 6.2
_SCHEME = "tableau20"


def verb_chart(tree: pl.DataFrame, name: str) -> alt.LayerChart:
    """One set, raw or curated, of `siftune.curation.review.instruction_verbs.verb_tree`."""
    verbs = tree.filter(pl.col("set") == "raw")["verb"].unique(maintain_order=True).to_list()
    lines = tree.filter(pl.col("set") == name)
    total = max(1, int(lines["rows"].sum()))
    angle = 2 * math.pi * pl.col("rows") / total
    outer = lines.with_columns(end=angle.cum_sum()).with_columns(start=pl.col("end") - angle)
    inner = outer.group_by("verb", maintain_order=True).agg(
        pl.col("rows", "share").sum(), pl.col("start").min(), pl.col("end").max()
    )
    colour = alt.Color("verb:N", legend=None, scale=alt.Scale(domain=verbs, scheme=_SCHEME))
    outer = outer.with_columns(label="noun", what=pl.format("{} {}", "verb", "noun"), low=_MIDDLE, high=_OUTER)
    inner = inner.with_columns(label="verb", what="verb", low=_INNER, high=_MIDDLE)
    columns = ["label", "what", "verb", "rows", "share", "start", "end", "low", "high"]
    parts = pl.concat([inner.select(columns), outer.select(columns)]).with_columns(
        middle=(pl.col("start") + pl.col("end")) / 2, radius=(pl.col("low") + pl.col("high")) / 2
    )
    parts = parts.with_columns(named=named_parts(parts))
    layers = [
        *_ring(parts.filter(pl.col("low") == _INNER), colour, opacity=0.95),
        *_ring(parts.filter(pl.col("low") == _MIDDLE), colour, opacity=0.6),
    ]
    return alt.layer(*layers).properties(height=_HEIGHT, title=f"What the {name} rows ask for")


def named_parts(parts: pl.DataFrame) -> pl.Series:
    """Which parts of the rings are named: those long enough for a line of text, the largest first, each where no larger
    one has its name.

    Args:
        parts: label, rows, radius, and start, middle and end (angles from the top, clockwise) of each part.
    """
    boxes: list[tuple[float, float, float, float]] = []
    named = [False] * parts.height
    is_long = (pl.col("end") - pl.col("start")) * pl.col("radius") >= _LINE
    order = parts.with_row_index("part").filter(is_long).sort("rows", "part", descending=[True, False])
    for part, label, middle, radius in order.select("part", "label", "middle", "radius").iter_rows():
        x, y = radius * math.sin(middle), -radius * math.cos(middle)
        half = _LETTER * len(label) / 2
        box = (x - half, x + half, y - _LINE / 2, y + _LINE / 2)
        if not any(box[0] < b[1] and b[0] < box[1] and box[2] < b[3] and b[2] < box[3] for b in boxes):
            boxes.append(box)
            named[part] = True
    return pl.Series("named", named, dtype=pl.Boolean)


def _ring(frame: pl.DataFrame, colour: alt.Color, *, opacity: float) -> list[alt.Chart]:
    low, high = (frame["low"][0], frame["high"][0]) if frame.height else (0, 0)
    theta, theta2 = alt.Theta("start:Q", scale=None), alt.Theta2("end:Q")
    tooltip = [alt.Tooltip("what:N", title="asks to"), "rows:Q", alt.Tooltip("share:Q", format=".1%")]
    arcs = (
        alt.Chart(frame.to_pandas())
        .mark_arc(innerRadius=low, outerRadius=high, stroke="#8A8A8A", strokeWidth=0.5, opacity=opacity)
        .encode(theta=theta, theta2=theta2, color=colour, tooltip=tooltip)
    )
    radius = (low + high) / 2
    base = alt.Chart(frame.filter("named").to_pandas()).encode(theta=alt.Theta("middle:Q", scale=None), text="label:N")
    edge = base.mark_text(radius=radius, fontSize=11, stroke="#ffffff", strokeWidth=3, opacity=0.8)
    return [arcs, edge, base.mark_text(radius=radius, fontSize=11, color="#1c2430")]
