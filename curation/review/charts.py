"""Charts of the report as SVG text: nothing is loaded from anywhere, and labels are escaped by the renderer."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

BEFORE, AFTER = "#9aa5b1", "#1f6f8b"
_WIDTH, _HEIGHT = 420, 180


def lengths(before: pl.Series, after: pl.Series, *, title: str) -> str:
    """Two histograms of lengths in words over log-spaced bins, one over the other."""
    most = max(int(before.max() or 1), 2)  # type: ignore[arg-type]
    edges = np.unique(np.round(np.geomspace(1, most + 1, 28)).astype(int))
    frames = [_binned(series, edges, name) for series, name in ((before, "before"), (after, "after"))]
    data = alt.Data(values=pl.concat(frames).to_dicts())
    chart = (
        alt.Chart(data, title=title)
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


def balance(bins: list[dict[str, object]]) -> str:
    """Rows in each length bin before and after, and what the target gives it."""
    rows = [
        {"bin": f"{each['low']}–{each['high']}", "when": when, "rows": each[when]}
        for each in bins
        for when in ("before", "after")
    ]
    chart = (
        alt.Chart(alt.Data(values=rows), title="Instruction length")
        .mark_bar()
        .encode(
            x=alt.X("bin:N", sort=None, title=None, axis=alt.Axis(labelAngle=-45)),
            xOffset=alt.XOffset("when:N", sort=["before", "after"]),
            y=alt.Y("rows:Q", title="rows", axis=alt.Axis(format="~s")),
            color=_before_after(field="when:N"),
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


def _binned(values: pl.Series, edges: np.ndarray, name: str) -> pl.DataFrame:
    counts, _ = np.histogram(np.maximum(values.to_numpy(), 1), bins=edges)
    return pl.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": counts, "rows_of": name})


def _before_after(field: str = "rows_of:N") -> alt.Color:
    scale = alt.Scale(domain=["before", "after"], range=[BEFORE, AFTER])
    return alt.Color(field, scale=scale, legend=alt.Legend(title=None, orient="top"))
