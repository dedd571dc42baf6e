"""The rows of the run that are most similar to an answer, and whether curation kept them."""

from __future__ import annotations

import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.review.nearest_rows import nearest_rows
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.votes import StoredTurn


def nearest_rows_button(run: RunFolder, turn: StoredTurn) -> None:
    """A button under an answer that opens the rows most similar to it."""
    if not run.rows_path.is_file():
        return
    if st.button("Similar rows", key=f"similar rows {turn.round} {turn.arm}", type="tertiary"):
        _show(run, turn)


@st.dialog("Rows most similar to this answer", width="large")
def _show(run: RunFolder, turn: StoredTurn) -> None:
    index_build = state.text_index(run)
    if index_build.ready is None:
        markup.draw(markup.notice("The search index of this run is still being built. Try again in a minute."))
        return
    catalogue = state.catalogue(run)
    embeddings = state.row_embeddings(run)
    with st.spinner("Searching for similar rows"):
        matches = nearest_rows(catalogue, index_build.ready, turn.answer, embeddings=embeddings)
    if not matches:
        markup.draw(markup.note("No row shares three consecutive words with this answer."))
        return
    markup.draw(markup.note(_method(by_embedding=embeddings is not None)))
    for match in matches:
        row = catalogue.frame.row(match.position, named=True)
        markup.draw(markup.row_head(str(row["id"]), row))
        values = [] if match.cosine is None else [("cosine", f"{match.cosine:.3f}")]
        values.append(("shared word 3-grams", f"{match.share:.0%}"))
        if turn.arm in catalogue.arms:
            values.append((f"in the training data of {turn.arm}", "yes" if row[f"arm:{turn.arm}"] else "no"))
        markup.draw(markup.facts(values))
        markup.draw(markup.bubble("user", markup.clip(match.prompt, 500)))
        markup.draw(markup.bubble("assistant", markup.clip(match.text, 900)))


def _method(*, by_embedding: bool) -> str:
    caution = "Similarity does not prove that the answer came from this row."
    if by_embedding:
        return f"Ranked by cosine of sentence embeddings over all rows of the run. {caution}"
    return f"Ranked by shared word 3-grams, since embeddings of this run are not available. {caution}"
