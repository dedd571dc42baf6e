"""What several pages draw: page buttons of a list, two rows side by side."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from siftune.app.web import markup
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.matched_items import CONTAMINATION, matched_items
from siftune.curation.text.differences import cut_spans, word_differences

_NO_TEXT = "This run did not keep the texts of benchmark items. Curate again to see them."


def pager(name: str, pages: int) -> int:
    """Buttons for the pages of the list `name`; returns the index of the open page, from 0."""
    key = f"{name}_page"
    number = min(int(st.session_state.get(key, 0)), max(0, pages - 1))
    if pages <= 1:
        return number
    back, forward, label, _ = st.columns([1.3, 1.3, 2.4, 5], vertical_alignment="center")
    back.button(
        "Previous", key=f"{key} back", disabled=number == 0, width="stretch", on_click=_set, args=(key, number - 1)
    )
    forward.button(
        "Next", key=f"{key} on", disabled=number >= pages - 1, width="stretch", on_click=_set, args=(key, number + 1)
    )
    with label:
        markup.draw(markup.note(f"page {number + 1:,} of {pages:,}"))
    return number


def _set(key: str, number: int) -> None:
    st.session_state[key] = number


@dataclass(frozen=True)
class _Side:
    """One side of a comparison: its heading as HTML, and its turns (role, text)."""

    head: str
    turns: list[tuple[str, str]]


def side_by_side(catalogue: Catalogue, row_id: str, witness: str, *, stage: str | None = None) -> None:
    """A row beside its witness with the words that differ marked. Whole conversations are compared, not turns.

    Args:
        catalogue: the rows of the run.
        row_id: the row.
        witness: another row, or for the stage `contamination` an item of a benchmark.
        stage: the stage that compared the two; None: the user.
    """
    other = _item_side(catalogue, witness) if stage == CONTAMINATION else _row_side(catalogue, witness)
    sides = (_row_side(catalogue, row_id), other)
    differences = word_differences(*["\n".join(text for _, text in side.turns) for side in sides])
    for column, side, parts in zip(st.columns(2, gap="medium"), sides, differences, strict=True):
        with column:
            markup.draw(side.head)
            lengths = [len(text) + 1 for _, text in side.turns]
            for (role, _), piece in zip(side.turns, cut_spans(parts, lengths), strict=True):
                markup.draw(markup.bubble(role, "", body=markup.marked(piece)))


def _row_side(catalogue: Catalogue, row_id: str) -> _Side:
    position = catalogue.position(row_id)
    if position is None:
        return _Side(markup.row_head(row_id, None), [])
    example = catalogue.examples([position]).get(position)
    messages = (example or {}).get("messages") or []
    turns = [(str(turn["role"] or "?"), str(turn["content"] or "")) for turn in messages[: markup.MOST_TURNS]]
    return _Side(markup.row_head(row_id, catalogue.frame.row(position, named=True)), turns)


def _item_side(catalogue: Catalogue, reference: str) -> _Side:
    item = matched_items(catalogue.run, [reference]).get(reference)
    if item is None:
        return _Side(markup.item_head(reference) + markup.note(_NO_TEXT), [])
    return _Side(markup.item_head(reference), item.turns)
