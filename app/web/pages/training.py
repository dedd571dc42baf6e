"""Training: the loss curves of the arms, their settings, and which tokens of a row are trained."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import charts, markup, state, training_queries
from siftune.app.web.charts import CURVES
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.result import finished_trainings, training_folders

PURPOSE = "Whether every arm was trained alike: its curves, its settings, and which tokens of a row it learns."


def training() -> None:
    """Draw the page."""
    run = state.open_run()
    markup.draw(markup.purpose(PURPOSE))
    trainings = training_folders(run.path)
    if not trainings:
        markup.draw(markup.notice(markup.with_code(training_queries.next_command(run))))
        return
    if len(finished_trainings(run.path)) == len(trainings):
        _curves(run)
    else:
        st.fragment(_curves, run_every=state.REFRESH)(run)
    _settings(run)
    _mask(run)


def _curves(run: RunFolder) -> None:
    head = ["arm", "seed", "state", "steps", "trained tokens", "minutes", "last loss", "rows cut or left out"]
    rows = [(markup.Markup(markup.tag(arm, str(arm))), *rest) for arm, *rest in training_queries.progress(run)]
    markup.draw(markup.table(head, rows, numbers=(1, 3, 4, 5, 6, 7)))
    logs = training_queries.logs(run)
    if logs.is_empty():
        markup.draw(markup.note("No step has been logged yet."))
        return
    axis = st.segmented_control(
        "Horizontal axis",
        list(training_queries.AXES),
        default="steps",
        required=True,
        format_func=lambda name: f"over {name}",
        key="training axis",
        label_visibility="collapsed",
    )
    points = logs.rename({training_queries.AXES[str(axis)]: "x"})
    arms = logs["arm"].unique(maintain_order=True).to_list()
    curves = list(CURVES.items())
    for start in range(0, len(curves), 2):
        for column, (name, title) in zip(st.columns(2, gap="large"), curves[start : start + 2], strict=False):
            column.altair_chart(charts.curve(points, name, title=title, arms=arms))
    if (steps := charts.smoothed_steps(points)) > 1:
        markup.draw(markup.note(f"Bold: running mean over {steps} steps. Faint: single steps."))


def _settings(run: RunFolder) -> None:
    st.subheader("Settings")
    names, rows = training_queries.settings(run)
    cells = []
    for name, values in rows:
        same = len(set(values)) <= 1
        texts = (markup.escaped(value).replace("\n", "<br>") for value in values)
        cells.append((name, *(markup.Markup(text if same else f"<mark>{text}</mark>") for text in texts)))
    markup.draw(markup.table(["setting", *names], cells, wide_first=True))


def _mask(run: RunFolder) -> None:
    st.subheader("Completion mask of a row")
    row_id = st.text_input("Row", key="mask row", placeholder="an id, such as " + training_queries.example_id(run))
    if not row_id.strip():
        markup.draw(markup.note("Marked tokens enter the loss; the other tokens are only context."))
        return
    try:
        markup.draw(markup.trained_tokens(state.mask(run, row_id.strip())))
    except UserError as fault:
        markup.draw(markup.notice(str(fault)))
