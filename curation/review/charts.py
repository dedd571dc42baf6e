"""The charts of a run, for the report (as SVG) and for the pages of the app (as they are).

Labels are escaped by the renderer, and nothing is loaded from anywhere.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import altair as alt
import polars as pl
from altair.utils.schemapi import debug_mode

#: The palette of Okabe and Ito (2008) and a grey: rows before and after curation, pairs, a threshold.
BEFORE, AFTER = "#9AA0A8", "#0072B2"
PAIRS, GUARDED_PAIRS = "#56B4E9", "#9AA0A8"
THRESHOLD = "#D55E00"
_WIDTH, _HEIGHT = 420, 180  # of an SVG, in pixels
_SETS = alt.Color(
    "set:N",
    scale=alt.Scale(domain=["before", "after"], range=[BEFORE, AFTER]),
    legend=alt.Legend(title=None, orient="top", offset=2, padding=0),
)


def lengths(histogram: pl.DataFrame, *, title: str) -> alt.Chart:
    """Share of rows by length before and after curation, as steps on a logarithmic axis.

    Args:
        histogram: as `siftune.curation.review.lengths.length_histogram` returns it.
        title: the title of the length axis.
    """
    words = pl.format("{} to {}", pl.col("low"), pl.col("high") - 1).alias("words")
    steps = histogram.filter(pl.col("low") > 0).with_columns(words, left=pl.col("low").cast(pl.Float64))
    # A step line needs one more point where its last bin ends.
    ends = steps.group_by("set", maintain_order=True).last()
    ends = ends.with_columns(
        left=pl.col("high").cast(pl.Float64), share=pl.lit(0.0), rows=pl.lit(0).cast(steps["rows"].dtype)
    )
    steps = pl.concat([steps, ends.select(steps.columns)])
    return (
        alt.Chart(_data(steps))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "left:Q",
                title=title,
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(tickCount=6, format="~s", grid=False),
            ),
            y=alt.Y("share:Q", title="share of rows", axis=alt.Axis(format=".0%", tickCount=4)),
            color=_SETS,
            tooltip=[*_tooltips("set:N", "words:N", "rows:Q"), alt.Tooltip("share:Q", format=".1%")],
        )
    )


def balance(bins: pl.DataFrame) -> alt.Chart:
    """Rows in each bin of instruction length before and after balancing; `bins` of a `lengths.BalanceSummary`."""
    return (
        alt.Chart(_data(bins))
        .mark_bar()
        .encode(
            x=alt.X("bin:N", sort=bins["bin"].unique(maintain_order=True).to_list(), title=None),
            xOffset=alt.XOffset("set:N", sort=["before", "after"]),
            y=alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, tickMinStep=1, format=",d")),
            color=_SETS,
            tooltip=_tooltips("bin:N", "set:N", "rows:Q"),
        )
    )


def scores(histogram: pl.DataFrame, *, threshold: float) -> alt.LayerChart:
    """Stored pairs by similarity, and the threshold as a line.

    Args:
        histogram: as `siftune.curation.review.pairs.score_histogram` returns it.
        threshold: where the line stands.
    """
    low = min(threshold, float(histogram["score"].min() or 0.0))  # type: ignore[arg-type]
    high = max(1.0, float(histogram["to"].max() or 1.0))  # type: ignore[arg-type]
    bars = (
        alt.Chart(_data(histogram))
        .mark_bar()
        .encode(
            x=alt.X(
                "score:Q",
                bin="binned",
                title="similarity",
                scale=alt.Scale(domain=[low, high]),
                axis=alt.Axis(tickCount=6, format=".2f"),
            ),
            x2="to:Q",
            y=alt.Y("pairs:Q", title="pairs", axis=alt.Axis(tickCount=3, tickMinStep=1, format=",d")),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(
                    domain=histogram["kind"].unique(maintain_order=True).to_list(), range=[PAIRS, GUARDED_PAIRS]
                ),
                legend=alt.Legend(title=None, orient="top", offset=2, padding=0, labelLimit=400),
            ),
            tooltip=[alt.Tooltip("score:Q", format=".3f"), *_tooltips("kind:N", "pairs:Q")],
        )
    )
    line = alt.Chart(_data(pl.DataFrame({"at": [threshold]}))).mark_rule(color=THRESHOLD, strokeWidth=2)
    return alt.layer(bars, line.encode(x="at:Q"))


def unchecked() -> AbstractContextManager[None]:
    """Inside, Altair does not check each part of a chart against its schema, which is most of the time of drawing."""
    return debug_mode(False)


def svg(chart: alt.Chart | alt.LayerChart) -> str:
    """The chart as SVG text."""
    import vl_convert

    sized = chart.properties(width=_WIDTH, height=_HEIGHT).configure_view(stroke=None)
    return str(vl_convert.vegalite_to_svg(sized.to_dict(validate=False)))


def _tooltips(*columns: str) -> list[alt.Tooltip]:
    """Tooltips as objects: Altair looks bare names up in its schema, which takes longer than all else here."""
    return [alt.Tooltip(column) for column in columns]


def _data(frame: pl.DataFrame) -> alt.Data:
    return alt.Data(values=frame.to_dicts())
