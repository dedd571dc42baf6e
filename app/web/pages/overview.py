"""Overview: rows in, rows removed by each stage, rows out; lengths, leakage, contamination, sources, balance."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.review import charts
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.funnel import funnel, warnings
from siftune.curation.review.leakage import certificate_sentence
from siftune.curation.review.lengths import balance_summary, is_trained, length_histogram
from siftune.curation.review.tables import contamination_table, no_contamination_sentence, source_table
from siftune.curation.review.wording import percent
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.verdict import Verdict

#: Relative widths of name, bar, count and button.
_FUNNEL_COLUMNS = [2.4, 6.5, 2.6, 1.2]


def overview() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    _headline(catalogue)
    _funnel(catalogue)
    _lengths(catalogue)
    left, right = st.columns(2, gap="large")
    with left:
        _leakage(run)
    with right:
        _contamination(run)
        _sources(catalogue)
    _balance(run)
    with st.expander("Recipe of this run"):
        st.code(run.manifest.recipe, language="yaml", wrap_lines=True)


def _headline(catalogue: Catalogue) -> None:
    run = catalogue.run
    trained = int(is_trained(catalogue.frame).sum())
    markup.draw(markup.title(run.manifest.recipe_name or run.path.name))
    sentences = [f"{len(catalogue):,} rows in, {trained:,} training rows after curation."]
    if (verdict := Verdict.read(run)) is not None:
        sentences.append(verdict.headline)
    markup.draw(markup.headline(" ".join(sentences)))
    for warning in warnings(run):
        markup.draw(markup.note(warning))


def _funnel(catalogue: Catalogue) -> None:
    st.subheader("Rows removed by each stage")
    for step in funnel(catalogue.run.manifest):
        if step.removed:
            query = Query(stage=(step.stage,))
            _funnel_line(catalogue, step.stage, step.rows, step.removed, f"− {step.removed:,} of {step.rows:,}", query)
    kept = catalogue.counts(catalogue.find(Query()), "fate").get("kept", 0)
    _funnel_line(catalogue, "kept", kept, 0, f"{kept:,}", Query(fate=("kept",)))


def _funnel_line(catalogue: Catalogue, name: str, rows: int, removed: int, count: str, query: Query) -> None:
    """One line of the funnel: name, bar, count, and a button that opens its rows in Browse.

    Args:
        catalogue: the rows of the run.
        name: the stage, or "kept".
        rows: rows that came in.
        removed: rows that the stage took out.
        count: the numbers as text.
        query: the rows that the button opens.
    """
    total = max(1, len(catalogue))
    label, bar, number, button = st.columns(_FUNNEL_COLUMNS, vertical_alignment="center")
    with label:
        markup.draw(markup.row_label(name))
    with bar:
        markup.draw(markup.bar(rows / total, "kept", dropped=removed / total))
    with number:
        markup.draw(markup.note(count))
    if button.button("Rows", key=f"funnel {name}", help="Show these rows in Browse", type="tertiary"):
        state.show_in_browse(query)
        state.switch_to("Browse")


def _lengths(catalogue: Catalogue) -> None:
    st.subheader("Length before and after curation")
    left, right = st.columns(2, gap="large")
    for column, container, title in (
        ("prompt_words", left, "instruction length in words"),
        ("answer_words", right, "answer length in words"),
    ):
        histogram = length_histogram(catalogue.frame, column)
        container.altair_chart(charts.lengths(histogram, title=title).properties(height=260))


def _leakage(run: RunFolder) -> None:
    st.subheader("Leakage under a random split")
    leaks = run.manifest.naive_split
    if leaks:
        rows = [
            (
                leak.measure,
                f"{leak.expected:,.1f} of {leak.test_rows:,}",
                percent(leak.share, 1),
                f"{percent(leak.low, 1)} to {percent(leak.high, 1)}",
            )
            for leak in leaks
        ]
        markup.draw(markup.table(["measure", "leaked test rows", "share", "90 % interval"], rows, numbers=(1, 2, 3)))
    markup.draw(markup.note(certificate_sentence(run)))


def _contamination(run: RunFolder) -> None:
    st.subheader("Benchmark contamination")
    table = contamination_table(run).sort("rows", descending=True, maintain_order=True)
    if table.is_empty():
        markup.draw(markup.note(no_contamination_sentence(run)))
        return
    columns = ["benchmark", "rule", "rows", "items hit"]
    rows = [
        (line["benchmark"], line["rule"], f"{line['rows']:,}", f"{line['items hit']:,}") for line in table.to_dicts()
    ]
    markup.draw(markup.table(columns, rows, numbers=(2, 3)))


def _sources(catalogue: Catalogue) -> None:
    st.subheader("Sources")
    rows = [
        (line["source"], f"{line['rows']:,}", f"{line['kept']:,}", percent(line["kept"], line["rows"]))
        for line in source_table(catalogue.frame).head(20).to_dicts()
    ]
    markup.draw(markup.table(["source", "rows", "kept", "share kept"], rows, numbers=(1, 2, 3)))


def _balance(run: RunFolder) -> None:
    summary = balance_summary(run)
    if summary is None:
        return
    st.subheader("Balance of instruction lengths")
    markup.draw(markup.facts(summary.facts))
    st.altair_chart(charts.balance(summary.bins).properties(height=230))
