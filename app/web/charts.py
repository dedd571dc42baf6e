"""The charts that only pages have; those that a report shows too are in `siftune.curation.review.charts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from siftune.app.web.theme import FATES, arm_colour
from siftune.curation.run.manifest import StageRecord

#: The columns of a training log that are drawn, and their titles.
CURVES = {
    "loss": "loss, nats per token",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
}
#: What to see in each of them.
HEADINGS = {
    "loss": "Loss: the lower, the better",
    "learning_rate": "Learning rate: alike in every arm",
    "grad_norm": "Gradient norm: a spike is instability",
    "tokens_per_second": "Speed: a dip is a busy machine",
}
#: Curves that vary with every batch: drawn faintly, with their running mean over them.
_NOISY = ("loss", "grad_norm", "tokens_per_second")


_LEGEND = alt.Legend(title=None, orient="top", offset=2, padding=0)
#: The name of the selection of `funnel`, and the field of its points.
FUNNEL_CLICK, FUNNEL_STAGE = "stage", "stage"


def heading(text: str) -> alt.TitleParams:
    """The title of a chart: what to see in it."""
    return alt.TitleParams(text, offset=6)


def funnel(steps: Sequence[StageRecord], *, kept: int) -> alt.Chart:
    """The whole run in one chart: for each stage that removed rows, how many it let through and how many it removed.

    A click on a bar selects its stage; that of the last bar is empty, for the rows that were kept.

    Args:
        steps: as `siftune.curation.review.funnel.funnel` returns them.
        kept: rows that are left in the end.
    """
    rows = [
        {
            "bar": f"{step.stage.replace('_', ' ')}  − {step.removed:,}",
            FUNNEL_STAGE: step.stage,
            "rows": rows,
            "part": part,
        }
        for step in steps
        if step.removed
        for part, rows in (("passed on", step.kept), ("removed", step.removed))
    ]
    rows.append({"bar": f"kept  {kept:,}", FUNNEL_STAGE: "", "rows": kept, "part": "passed on"})
    bars = list(dict.fromkeys(str(row["bar"]) for row in rows))
    colours = alt.Scale(domain=["passed on", "removed"], range=[FATES["kept"], FATES["dropped"]])
    return (
        alt.Chart(pl.DataFrame(rows).to_pandas())
        .mark_bar(cursor="pointer")
        .encode(
            x=alt.X("rows:Q", title="rows", axis=alt.Axis(tickCount=6, format="~s", grid=False)),
            y=alt.Y(
                "bar:N",
                title=None,
                sort=bars,
                axis=alt.Axis(labelLimit=240, labelOverlap=False, domain=False, ticks=False),
            ),
            color=alt.Color("part:N", scale=colours, legend=_LEGEND),
            order=alt.Order("part:N", sort="ascending"),
            tooltip=[alt.Tooltip("bar:N", title="stage"), "part:N", alt.Tooltip("rows:Q", format=",")],
        )
        .add_params(alt.selection_point(name=FUNNEL_CLICK, fields=[FUNNEL_STAGE]))
        .properties(height=26 * len(bars) + 110, title=heading("What each stage removed from the rows that reached it"))
    )


def smoothed_steps(frame: pl.DataFrame) -> int:
    """The window of the running mean in steps: about a tenth of the longest training, odd."""
    longest = frame.group_by("arm", "seed").len()["len"].max() if frame.height else 0
    return 2 * (int(longest or 0) // 20) + 1  # type: ignore[arg-type]


def curve(frame: pl.DataFrame, column: str, *, title: str, arms: Sequence[str]) -> alt.LayerChart:
    """One quantity over training, a line for each arm and seed.

    Args:
        frame: training logs with the columns arm, seed, x and `column`.
        column: the quantity.
        title: the title of its axis.
        arms: the arms in the order of the legend.
    """
    half = smoothed_steps(frame) // 2 if column in _NOISY else 0
    legend = alt.Legend(title=None, orient="top", offset=2, padding=0, symbolOpacity=1, symbolStrokeWidth=3)
    colours = alt.Scale(domain=list(arms), range=[arm_colour(arm) for arm in arms])
    # Dashes need a legend where there is more than one kind of them.
    dashes = alt.Legend(title=None, orient="top", offset=2, padding=0, labelExpr="'seed ' + datum.label")
    seeds = dashes if frame["seed"].n_unique() > 1 else None
    whole_steps = {"tickMinStep": 1, "format": "~s"} if frame["x"].dtype.is_integer() else {}
    axis_of_x = alt.Axis(tickCount=6, grid=False, **whole_steps)
    scale = alt.Scale(zero=column in ("learning_rate", "tokens_per_second"), nice=True)
    base = (
        alt.Chart(frame.to_pandas())
        .transform_window(smooth=f"mean({column})", frame=[-half, half], groupby=["arm", "seed"], sort=[{"field": "x"}])
        .encode(
            x=alt.X("x:Q", title=None, axis=axis_of_x),
            color=alt.Color("arm:N", scale=colours, legend=legend),
            strokeDash=alt.StrokeDash("seed:N", legend=seeds),
            tooltip=["arm:N", "seed:N", "x:Q", alt.Tooltip(f"{column}:Q", format=".4g")],
        )
    )
    axis = alt.Axis(tickCount=4, format=".3~g")
    bold = base.mark_line(strokeWidth=2).encode(y=alt.Y("smooth:Q", title=title, scale=scale, axis=axis))
    faint = base.mark_line(strokeWidth=1, opacity=0.3).encode(y=alt.Y(f"{column}:Q", title=title, scale=scale))
    layers = (faint, bold) if half else (bold,)
    return alt.layer(*layers).properties(height=270, title=heading(HEADINGS[column]))


def intervals(rows: Sequence[dict[str, Any]], *, title: str, headline: str) -> alt.LayerChart:
    """Differences with their intervals, and a line at no difference.

    Args:
        rows: the differences, with the keys name, low, value and high.
        title: the title of the horizontal axis.
        headline: what to see in the chart.
    """
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
    layers = (zero.encode(x="zero:Q"), spread, point)
    return alt.layer(*layers).properties(height=42 * len(rows) + 110, title=heading(headline))
