"""Overview: what went in, what came out, and why."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import charts, markup, queries, state, training_queries
from siftune.curation.review.catalogue import Catalogue, Query

#: Widths of name, bar, count and button.
_FUNNEL = [2.4, 6.5, 2.6, 1.2]


def overview() -> None:
    """Draw the page."""
    run = state.open_run()
    found = state.catalogue(run)
    _headline(found)
    _funnel(found)
    _lengths(found)
    left, right = st.columns(2, gap="large")
    with left:
        _leaks(found)
    with right:
        _contamination(found)
        _sources(found)
    _balance(found)
    with st.expander("The recipe of this run"):
        st.code(run.manifest.get("recipe", ""), language="yaml", wrap_lines=True)


def _headline(found: Catalogue) -> None:
    name = str(found.run.manifest.get("recipe_name", found.run.path.name))
    kept = int(queries.training_rows(found).sum())
    markup.draw(markup.title(name))
    said_so = training_queries.verdict(found.run)
    sentence = None if said_so is None else training_queries.sentence(said_so)
    said = f"{len(found):,} rows went in, {kept:,} are left to train on."
    markup.draw(markup.lead(f"{said} {sentence}" if sentence else said))


def _funnel(found: Catalogue) -> None:
    st.subheader("What each stage took out")
    for step in queries.funnel(found):
        name, drawn, count, button = st.columns(_FUNNEL, vertical_alignment="center")
        with name:
            markup.draw(markup.strong(step.stage))
        with drawn:
            markup.draw(markup.bar(step.rows / max(1, len(found)), "kept", over=step.dropped / max(1, len(found))))
        with count:
            markup.draw(markup.note(f"− {step.dropped:,} of {step.rows:,}"))
        if button.button("Rows", key=f"funnel {step.stage}", help="See these rows", type="tertiary"):
            state.browse(Query(stage=(step.stage,)))
            state.go("Browse")
    kept = found.counts(found.find(Query()), "fate").get("kept", 0)
    name, drawn, count, button = st.columns(_FUNNEL, vertical_alignment="center")
    with name:
        markup.draw(markup.strong("kept"))
    with drawn:
        markup.draw(markup.bar(kept / max(1, len(found)), "kept"))
    with count:
        markup.draw(markup.note(f"{kept:,}"))
    if button.button("Rows", key="funnel kept", help="See these rows", type="tertiary"):
        state.browse(Query(fate=("kept",)))
        state.go("Browse")


def _sources(found: Catalogue) -> None:
    st.subheader("Sources")
    rows = [
        (line["source"], f"{line['rows']:,}", f"{line['kept']:,}", f"{line['share']:.0%}")
        for line in queries.sources(found).head(20).to_dicts()
    ]
    markup.draw(markup.table(["source", "rows", "kept", "share"], rows, numbers=(1, 2, 3)))


def _lengths(found: Catalogue) -> None:
    st.subheader("Length, before and after")
    left, right = st.columns(2, gap="large")
    for column, side, title in (
        ("prompt_words", left, "words in the instruction"),
        ("answer_words", right, "words in the answer"),
    ):
        side.altair_chart(charts.histogram(queries.lengths(found, column), title=title))


def _leaks(found: Catalogue) -> None:
    st.subheader("Leaks a careless split would have made")
    rows = queries.naive_leaks(found.run)
    if not rows:
        markup.draw(markup.note("This run made no splits, so nothing could leak."))
        return
    markup.draw(
        markup.table(
            ["measure", "test rows with a twin", "share", "90 % of splits"],
            [
                (
                    line["measure"],
                    f"{line['expected']:,.1f} of {line['test_rows']:,}",
                    f"{line['share']:.1%}",
                    f"{line['low']:.1%} to {line['high']:.1%}",
                )
                for line in rows
            ],
            numbers=(1, 2, 3),
        )
    )
    markup.draw(markup.note(queries.certificate_sentence(found.run)))


def _contamination(found: Catalogue) -> None:
    st.subheader("Rows that resemble a benchmark")
    table = queries.contamination(found.run)
    if table.is_empty():
        markup.draw(markup.note(queries.no_contamination(found.run)))
        return
    rows = [(line["reference"], line["rule"], f"{line['rows']:,}", f"{line['items']:,}") for line in table.to_dicts()]
    markup.draw(markup.table(["benchmark", "rule", "rows", "its items"], rows, numbers=(2, 3)))


def _balance(found: Catalogue) -> None:
    report = queries.balance(found.run)
    if report is None:
        return
    st.subheader("Balance of instruction length")
    markup.draw(markup.facts(report.facts))
    st.altair_chart(charts.balance(report.bins))
