"""Where does this come from: the rows nearest to an answer, in meaning and in words, and whether curation kept them."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.review.nearest_rows import nearest_rows
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.votes import Turn


def button(run: RunFolder, turn: Turn) -> None:
    """A button under an answer that shows its nearest rows."""
    if not (run.path / "rows.parquet").is_file():
        return
    if st.button("Where does this come from?", key=f"origin {turn.round} {turn.arm}", type="tertiary"):
        _show(run, turn)


@st.dialog("The rows nearest to this answer", width="large")
def _show(run: RunFolder, turn: Turn) -> None:
    building = state.text_index(run)
    if building.ready is None:
        markup.draw(markup.problem("The search index of this run is still being made. Try again in a minute."))
        return
    found = state.catalogue(run)
    nearness = state.nearness(run)
    with st.spinner("Looking for the nearest rows"):
        sources = nearest_rows(found, building.ready, turn.answer, nearness=nearness)
    if not sources:
        markup.draw(markup.note("No row of the data shares a run of three words with this answer."))
        return
    markup.draw(markup.note(_how(by_meaning=nearness is not None)))
    for source in sources:
        row = found.frame.row(source.position, named=True)
        inside = f"in the data of {turn.arm}" if row.get(f"arm:{turn.arm}") else f"not in the data of {turn.arm}"
        markup.draw(markup.row_head(str(row["id"]), row))
        cosine = [] if source.cosine is None else [("cosine", f"{source.cosine:.3f}")]
        shared = ("shared", f"{source.share:.0%} of its three-word runs")
        markup.draw(markup.facts([*cosine, shared, *([("", inside)] if turn.arm in found.arms else [])]))
        markup.draw(markup.bubble("user", markup.clip(source.prompt, 500)))
        markup.draw(markup.bubble("assistant", markup.clip(source.text, 900)))


def _how(*, by_meaning: bool) -> str:
    alike = "To resemble is not to come from: an answer may owe a row nothing."
    if by_meaning:
        return f"By cosine of embeddings, over all rows of the run; beside it, the words they share. {alike}"
    return f"By shared runs of words: this run has no embeddings, or their model is not on this machine. {alike}"
