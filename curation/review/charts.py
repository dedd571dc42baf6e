"""Charts of the report as SVG text: nothing is loaded from anywhere, and labels are escaped by the renderer."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

BEFORE, AFTER = "#9aa5b1", "#1f6f8b"
_WIDTH, _HEIGHT = 420, 180


def lengths(histogram: pl.DataFrame, *, title: str) -> str:
    """Histograms before and after, one over the other; see `siftune.curation.review.lengths.length_histogram`."""
    shown = histogram.filter(pl.col("low") > 0).select("low", "high", "rows", "set")
    chart = (
        alt.Chart(alt.Data(values=shown.to_dicts()), title=title)
        .mark_bar(opacity=0.75)
        .encode(
            x=alt.X("low:Q", scale=alt.Scale(type="log"), title="words", axis=alt.Axis(format="~s", grid=False)),
            x2="high:Q",
            y=alt.Y("rows:Q", stack=None, title="rows", axis=alt.Axis(format="~s")),
            y2=alt.datum(0),
            color=_before_after(),
        )
    )
    return svg(chart)


def balance(bins: pl.DataFrame) -> str:
    """Rows in each bin of length before and after; see `siftune.curation.review.lengths.BalanceSummary`."""
    chart = (
        alt.Chart(alt.Data(values=bins.to_dicts()), title="Instruction length")
        .mark_bar()
        .encode(
            x=alt.X("bin:N", sort=None, title=None, axis=alt.Axis(labelAngle=-45)),
            xOffset=alt.XOffset("set:N", sort=["before", "after"]),
            y=alt.Y("rows:Q", title="rows", axis=alt.Axis(format="~s")),
            color=_before_after(),
        )
    )
    return svg(chart)


def scores(values: pl.Series, *, threshold: float, title: str) -> str:
    """Pairs by their score, and the threshold as a line."""
    counts, edges = np.histogram(values.to_numpy(), bins=40, range=(float(values.min() or 0.0), 1.0))  # type: ignore[arg-type]
    rows = [
        {"low": float(low), "high": float(high), "pairs": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    bars = (
        alt.Chart(alt.Data(values=rows), title=title)
        .mark_bar(color=AFTER)
        .encode(
            x=alt.X("low:Q", title="similarity", scale=alt.Scale(zero=False), axis=alt.Axis(grid=False)),
            x2="high:Q",
            y=alt.Y("pairs:Q", title="pairs", axis=alt.Axis(format="~s")),
            y2=alt.datum(0),
        )
    )
    line = alt.Chart(alt.Data(values=[{"at": threshold}])).mark_rule(color="#c0392b", strokeWidth=2).encode(x="at:Q")
    return svg(bars + line)


def svg(chart: alt.Chart | alt.LayerChart) -> str:
    """The chart as SVG text."""
    import vl_convert

    drawn = chart.properties(width=_WIDTH, height=_HEIGHT).configure_view(stroke=None)
    return str(vl_convert.vegalite_to_svg(drawn.to_json()))


def _before_after() -> alt.Color:
    scale = alt.Scale(domain=["before", "after"], range=[BEFORE, AFTER])
    return alt.Color("set:N", scale=scale, legend=alt.Legend(title=None, orient="top"))
