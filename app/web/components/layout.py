"""What several pages draw: page buttons of a list, two rows side by side."""

from __future__ import annotations

from typing import Any

import streamlit as st

from siftune.app.web import markup
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.text.differences import cut_spans, word_differences


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


def side_by_side(catalogue: Catalogue, left: str, right: str) -> None:
    """Two rows with the words that differ marked. The whole conversations are compared, not turn with turn."""
    positions = [catalogue.position(row_id) for row_id in (left, right)]
    examples = catalogue.examples([position for position in positions if position is not None])
    turns = [_turns(examples.get(-1 if position is None else position)) for position in positions]
    columns = st.columns(2, gap="medium")
    for column, row_id, position in zip(columns, (left, right), positions, strict=True):
        row = catalogue.frame.row(position, named=True) if position is not None else None
        with column:
            markup.draw(markup.row_head(row_id, row))
    differences = word_differences(*["\n".join(text for _, text in conversation) for conversation in turns])
    for column, own_turns, parts in zip(columns, turns, differences, strict=True):
        with column:
            lengths = [len(text) + 1 for _, text in own_turns]
            for (role, _), piece in zip(own_turns, cut_spans(parts, lengths), strict=True):
                markup.draw(markup.bubble(role, "", body=markup.marked(piece)))


def _turns(example: dict[str, Any] | None) -> list[tuple[str, str]]:
    messages = (example or {}).get("messages") or []
    return [(str(turn["role"] or "?"), str(turn["content"] or "")) for turn in messages[: markup.MOST_TURNS]]
