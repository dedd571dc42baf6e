"""The charts of the pages: one style, one colour for a thing wherever it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from siftune.app.web.queries import PAIR_KINDS
from siftune.app.web.theme import FATES, OTHER, arm_colour

#: What a training log is drawn as: column and title.
CURVES = {
    "loss": "loss, nats per token",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
}
#: Curves that go up and down with every batch: drawn faintly, with a running mean over them.
_NOISY = ("loss", "grad_norm", "tokens_per_second")
_SETS = alt.Scale(domain=["before", "after"], range=["#9AA0A8", FATES["kept"]])


def histogram(frame: pl.DataFrame, *, title: str) -> alt.Chart:
    """Share of rows by length, before and after; `frame` as `queries.lengths` makes it."""
    edges = pl.format("{} to {}", pl.col("low"), pl.col("high") - 1).alias("words")
    shown = frame.filter(pl.col("low") > 0).with_columns(edges, left=pl.col("low").cast(pl.Float64))
    # A step needs a point where its last bin ends.
    ends = shown.group_by("set", maintain_order=True).last()
    ends = ends.with_columns(
        left=pl.col("high").cast(pl.Float64), share=pl.lit(0.0), rows=pl.lit(0).cast(shown["rows"].dtype)
    )
    shown = pl.concat([shown, ends.select(shown.columns)])
    return (
        alt.Chart(shown.to_pandas())
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "left:Q",
                title=title,
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(tickCount=6, format="~s", grid=False),
            ),
            y=alt.Y("share:Q", title="share of rows", axis=alt.Axis(format=".0%", tickCount=4)),
            color=alt.Color("set:N", scale=_SETS, legend=alt.Legend(title=None, orient="top")),
            tooltip=["set:N", "words:N", "rows:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=260)
    )


def arm_scale(arms: Sequence[str]) -> alt.Scale:
    """The arms' own colours."""
    return alt.Scale(domain=list(arms), range=[arm_colour(arm) for arm in arms])


def smoothed_steps(frame: pl.DataFrame) -> int:
    """Over how many steps the running mean of a curve goes: about a tenth of the longest training, odd."""
    longest = frame.group_by("arm", "seed").len()["len"].max() if frame.height else 0
    return 2 * (int(longest or 0) // 20) + 1  # type: ignore[arg-type]


def curve(frame: pl.DataFrame, column: str, *, title: str, arms: Sequence[str]) -> alt.LayerChart:
    """One quantity over training, one line an arm and seed. Columns: arm, seed, x, and `column`."""
    half = smoothed_steps(frame) // 2 if column in _NOISY else 0
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, symbolStrokeWidth=3)
    scale = alt.Scale(zero=column in ("learning_rate", "tokens_per_second"), nice=True)
    base = (
        alt.Chart(frame.to_pandas())
        .transform_window(smooth=f"mean({column})", frame=[-half, half], groupby=["arm", "seed"], sort=[{"field": "x"}])
        .encode(
            x=alt.X("x:Q", title=None, axis=alt.Axis(tickCount=6, grid=False)),
            color=alt.Color("arm:N", scale=arm_scale(arms), legend=legend),
            strokeDash=alt.StrokeDash("seed:N", legend=None),
            tooltip=["arm:N", "seed:N", "x:Q", alt.Tooltip(f"{column}:Q", format=".4g")],
        )
    )
    axis = alt.Axis(tickCount=4, format=".3~g")
    bold = base.mark_line(strokeWidth=2).encode(y=alt.Y("smooth:Q", title=title, scale=scale, axis=axis))
    faint = base.mark_line(strokeWidth=1, opacity=0.3).encode(y=alt.Y(f"{column}:Q", title=title, scale=scale))
    return alt.layer(*((faint, bold) if half else (bold,))).properties(height=250)


def threshold_line(frame: pl.DataFrame, *, threshold: float) -> alt.LayerChart:
    """How many stored pairs there are at each score, and where the threshold cuts. Columns: score, to, pairs, kind."""
    low = float(frame["score"].min() or 0.0)  # type: ignore[arg-type]
    bars = (
        alt.Chart(frame.to_pandas())
        .mark_bar()
        .encode(
            x=alt.X("score:Q", bin="binned", title="similarity", scale=alt.Scale(domain=[low, 1.0])),
            x2="to:Q",
            y=alt.Y("pairs:Q", title="pairs", axis=alt.Axis(tickCount=3, tickMinStep=1, format=",d")),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=list(PAIR_KINDS), range=[OTHER, "#9AA0A8"]),
                legend=alt.Legend(title=None, orient="top", labelLimit=400),
            ),
            tooltip=[alt.Tooltip("score:Q", format=".3f"), "kind:N", "pairs:Q"],
        )
    )
    rule = alt.Chart(pl.DataFrame({"at": [threshold]}).to_pandas()).mark_rule(color=FATES["dropped"], strokeWidth=2)
    return alt.layer(bars, rule.encode(x="at:Q")).properties(height=210)


def intervals(rows: Sequence[dict[str, Any]], *, title: str) -> alt.LayerChart:
    """Differences with their intervals and the line of no difference. Keys: name, low, value, high."""
    frame = pl.DataFrame(list(rows)).to_pandas()
    base = alt.Chart(frame).encode(y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=320)))
    spread = base.mark_rule(strokeWidth=2, color=FATES["kept"]).encode(
        x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=8)), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=80, color=FATES["kept"], opacity=1).encode(
        x="value:Q",
        tooltip=[
            "name:N",
            alt.Tooltip("value:Q", format="+.4f"),
            alt.Tooltip("low:Q", format="+.4f"),
            alt.Tooltip("high:Q", format="+.4f"),
        ],
    )
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]}).to_pandas()).mark_rule(strokeDash=[4, 4], color="#8A8A8A")
    return alt.layer(zero.encode(x="zero:Q"), spread, point).properties(height=max(90, 42 * len(rows) + 40))


def balance(frame: pl.DataFrame) -> alt.Chart:
    """Rows in each bin of instruction length before and after balancing. Columns: bin, set, rows."""
    order = frame["bin"].unique(maintain_order=True).to_list()
    return (
        alt.Chart(frame.to_pandas())
        .mark_bar()
        .encode(
            x=alt.X("bin:N", sort=order, title=None, axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("set:N", sort=["before", "after"]),
            y=alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, tickMinStep=1, format=",d")),
            color=alt.Color("set:N", scale=_SETS, legend=alt.Legend(title=None, orient="top")),
            tooltip=["bin:N", "set:N", "rows:Q"],
        )
        .properties(height=230)
    )
