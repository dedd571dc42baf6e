"""Training: how the arms learned, under which settings, and which tokens of a row were trained."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import charts, markup, state, training_queries
from siftune.app.web.charts import CURVES
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder


def training() -> None:
    """Draw the page."""
    run = state.open_run()
    begun = training_queries.trained(run)
    if not begun:
        markup.draw(markup.problem(training_queries.what_next(run)))
        return
    if all(training_queries.finished(folder) for _, _, folder in begun):
        _curves(run)
    else:
        st.fragment(_curves, run_every=state.REFRESH)(run)
    _settings(run)
    _mask(run)


def _curves(run: RunFolder) -> None:
    head = ["arm", "seed", "state", "steps", "trained tokens", "minutes", "last loss", "rows truncated"]
    rows = [(markup.Markup(markup.tag(arm, str(arm))), *rest) for arm, *rest in training_queries.progress(run)]
    markup.draw(markup.table(head, rows, numbers=(1, 3, 4, 5, 6, 7)))
    logs = training_queries.logs(run)
    if logs.is_empty():
        markup.draw(markup.note("No step has been logged yet."))
        return
    axis = st.segmented_control(
        "Over",
        list(training_queries.AXES),
        default="steps",
        required=True,
        format_func=lambda name: f"over {name}",
        key="training axis",
        label_visibility="collapsed",
    )
    shown = logs.rename({training_queries.AXES[str(axis)]: "x"})
    arms = logs["arm"].unique(maintain_order=True).to_list()
    for start in range(0, len(CURVES), 2):
        for column, (name, title) in zip(
            st.columns(2, gap="large"), list(CURVES.items())[start : start + 2], strict=False
        ):
            column.altair_chart(charts.curve(shown, name, title=title, arms=arms))
    if (steps := charts.smoothed_steps(shown)) > 1:
        markup.draw(markup.note(f"Bold: the mean of {steps} steps. Faint: each step."))


def _settings(run: RunFolder) -> None:
    st.subheader("Settings")
    names, rows = training_queries.settings(run)
    cells = []
    for name, values in rows:
        same = len(set(values)) <= 1
        cells.append(
            (
                name,
                *(value if same else markup.Markup(f"<mark>{markup.escaped(value)}</mark>") for value in values),
            )
        )
    markup.draw(markup.table(["", *names], cells))


def _mask(run: RunFolder) -> None:
    st.subheader("Which tokens are trained")
    row_id = st.text_input("Row", key="mask row", placeholder="an id, such as " + training_queries.example_id(run))
    if not row_id.strip():
        markup.draw(markup.note("The marked tokens of a row enter the loss; the rest is only read."))
        return
    try:
        markup.draw(markup.trained_tokens(state.mask(run, row_id.strip())))
    except UserError as fault:
        markup.draw(markup.problem(str(fault)))
