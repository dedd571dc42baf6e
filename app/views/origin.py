"""Where does this come from: the rows that an answer shares most words with, and whether curation kept them."""

from __future__ import annotations

import streamlit as st

from app import plain, state
from curation.review.origin import nearest_rows
from curation.runfolder import RunFolder
from training.votes import Turn


def button(run: RunFolder, turn: Turn) -> None:
    """A button under an answer that shows its nearest rows."""
    if not (run.path / "rows.parquet").is_file():
        return
    if st.button("Where does this come from?", key=f"origin {turn.round} {turn.arm}", type="tertiary"):
        _show(run, turn)


@st.dialog("Rows that share most words with this answer", width="large")
def _show(run: RunFolder, turn: Turn) -> None:
    building = state.text_index(run)
    if building.ready is None:
        plain.draw(plain.problem("The search index of this run is still being made. Try again in a minute."))
        return
    found = state.catalogue(run)
    sources = nearest_rows(found, building.ready, turn.answer)
    if not sources:
        plain.draw(plain.note("No row of the data shares a run of three words with this answer."))
    for source in sources:
        row = found.frame.row(source.position, named=True)
        inside = "in the data of this arm" if row.get(f"arm:{turn.arm}") else "not in the data of this arm"
        plain.draw(plain.row_head(str(row["id"]), row))
        plain.draw(plain.facts([("shared", f"{source.share:.0%} of its three-word runs"), ("", inside)]))
        plain.draw(plain.bubble("user", plain.clip(source.prompt, 500)))
        plain.draw(plain.bubble("assistant", plain.clip(source.text, 900)))
