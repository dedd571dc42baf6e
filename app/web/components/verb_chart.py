"""The verbs of instructions and what they act on, as two rings: the figure of Self-Instruct."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

_HEIGHT = 420
#: Of the rings, in pixels: two figures stand side by side in a window of 800 pixels.
_INNER, _MIDDLE, _OUTER = 40, 105, 168
#: A part of a ring is named where it is at least so long, in pixels.
_NAMED = 14
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
    outer = outer.with_columns(label="noun", what=pl.format("{} {}", "verb", "noun"))
    inner = inner.with_columns(label="verb", what="verb")
    layers = [
        *_ring(inner, _INNER, _MIDDLE, colour, opacity=0.95),
        *_ring(outer, _MIDDLE, _OUTER, colour, opacity=0.6),
    ]
    return alt.layer(*layers).properties(height=_HEIGHT, title=f"What the {name} rows ask for")


def _ring(frame: pl.DataFrame, low: int, high: int, colour: alt.Color, *, opacity: float) -> list[alt.Chart]:
    middle = frame.with_columns(middle=(pl.col("start") + pl.col("end")) / 2)
    theta, theta2 = alt.Theta("start:Q", scale=None), alt.Theta2("end:Q")
    tooltip = [alt.Tooltip("what:N", title="asks to"), "rows:Q", alt.Tooltip("share:Q", format=".1%")]
    arcs = (
        alt.Chart(middle.to_pandas())
        .mark_arc(innerRadius=low, outerRadius=high, stroke="#8A8A8A", strokeWidth=0.5, opacity=opacity)
        .encode(theta=theta, theta2=theta2, color=colour, tooltip=tooltip)
    )
    radius = (low + high) / 2
    named = middle.filter((pl.col("end") - pl.col("start")) * radius >= _NAMED)
    base = alt.Chart(named.to_pandas()).encode(theta=alt.Theta("middle:Q", scale=None), text="label:N")
    edge = base.mark_text(radius=radius, fontSize=11, stroke="#ffffff", strokeWidth=3, opacity=0.8)
    return [arcs, edge, base.mark_text(radius=radius, fontSize=11, color="#1c2430")]
