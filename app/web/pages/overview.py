"""Overview: rows in, rows removed by each stage, rows out; lengths, leakage, contamination, sources, balance."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import charts, markup, queries, state
from siftune.curation.review import charts as shared_charts
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.charts import unchecked
from siftune.curation.review.funnel import funnel
from siftune.curation.review.leakage import certificate_sentence, given_split_sentence
from siftune.curation.review.lengths import balance_summary, is_trained
from siftune.curation.review.tables import contamination_table, no_contamination_sentence, source_table
from siftune.curation.review.wording import percent
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.verdict import Verdict

PURPOSE = "What went in, what came out, and where to look for the reason."


def overview() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    _headline(catalogue)
    _figures(catalogue)
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
    markup.draw(markup.purpose(PURPOSE))
    sentences = [f"{len(catalogue):,} rows in, {trained:,} training rows after curation."]
    if (verdict := Verdict.read(run)) is not None:
        sentences.append(verdict.headline)
    markup.draw(markup.headline(" ".join(sentences)))
    for warning in state.warnings(run):
        markup.draw(markup.note(warning))


def _figures(catalogue: Catalogue) -> None:
    with st.container(horizontal=True, key="figures"):
        for figure in queries.figures(catalogue, state.token_lengths(catalogue.run).ready):
            with st.container(border=True, height="stretch"):
                markup.draw(markup.figure(figure.label, figure.value, figure.note))
                state.page_link(figure.page, f"{figure.link} →", figure.params)


def _funnel(catalogue: Catalogue) -> None:
    kept = catalogue.counts(catalogue.find(Query()), "fate").get("kept", 0)
    with unchecked():
        chart = charts.funnel(funnel(catalogue.run.manifest), kept=kept)
        event = st.altair_chart(chart, on_select="rerun", key="funnel")
    markup.draw(markup.note("Click a bar to see its rows in Browse."))
    clicked = event["selection"].get(charts.FUNNEL_CLICK) or []
    if clicked:
        stage = clicked[0][charts.FUNNEL_STAGE]
        state.show_in_browse(Query(stage=(stage,)) if stage else Query(fate=("kept",)))
        state.switch_to("Browse")


def _lengths(catalogue: Catalogue) -> None:
    left, right = st.columns(2, gap="large")
    for column, container, name in (("prompt_words", left, "Instructions"), ("answer_words", right, "Answers")):
        (before, after), histogram = state.length_summary(catalogue, column)
        headline = f"{name}: median {before:,.0f} → {after:,.0f} words"
        with unchecked():
            chart = shared_charts.lengths(histogram, title="length in words")
            container.altair_chart(chart.properties(height=280, title=charts.heading(headline)))


def _leakage(run: RunFolder) -> None:
    given = given_split_sentence(run)
    st.subheader("Leakage between splits" if given else "Leakage under a random split")
    leaks = run.manifest.naive_split
    if given:
        comparison = " A random split into as many test rows would have leaked:" if leaks else ""
        markup.draw(markup.note(f"{given}{comparison}"))
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
        markup.draw(markup.note("Leaked: test rows with a similar training row, on average over random splits."))
    markup.draw(markup.note(certificate_sentence(run)))


def _contamination(run: RunFolder) -> None:
    st.subheader("Benchmark contamination")
    table = contamination_table(run).sort("rows", descending=True, maintain_order=True)
    if table.is_empty():
        markup.draw(markup.note(markup.with_code(no_contamination_sentence(run))))
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
    headline = "Rows of each instruction length: balancing lowers the high bars and leaves the low ones"
    with unchecked():
        st.altair_chart(shared_charts.balance(summary.bins).properties(height=280, title=charts.heading(headline)))
