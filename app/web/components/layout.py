"""Pieces that several pages draw: turning pages, two rows side by side."""

from __future__ import annotations

from typing import Any

import streamlit as st

from siftune.app.web import markup
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.text.differences import by_length, word_differences


def pager(name: str, pages: int) -> int:
    """Buttons to turn the pages of the list called `name`; returns the page (from 0) that is open."""
    key = f"{name}_page"
    number = min(int(st.session_state.get(key, 0)), max(0, pages - 1))
    if pages <= 1:
        return number
    back, forth, where, _ = st.columns([1.3, 1.3, 2.4, 5], vertical_alignment="center")
    back.button(
        "Previous", key=f"{key} back", disabled=number == 0, width="stretch", on_click=_set, args=(key, number - 1)
    )
    forth.button(
        "Next", key=f"{key} on", disabled=number >= pages - 1, width="stretch", on_click=_set, args=(key, number + 1)
    )
    with where:
        markup.draw(markup.note(f"page {number + 1:,} of {pages:,}"))
    return number


def _set(key: str, number: int) -> None:
    st.session_state[key] = number


def side_by_side(found: Catalogue, left: str, right: str) -> None:
    """Two rows with their differences marked, word by word; text that stands in another turn is still the same."""
    places = [found.position(row_id) for row_id in (left, right)]
    examples = found.examples([place for place in places if place is not None])
    turns = [_turns(examples.get(-1 if place is None else place)) for place in places]
    columns = st.columns(2, gap="medium")
    for column, row_id, place in zip(columns, (left, right), places, strict=True):
        row = found.frame.row(place, named=True) if place is not None else None
        with column:
            markup.draw(markup.row_head(row_id, row))
    parts = word_differences(*["\n".join(text for _, text in each) for each in turns])
    for column, own, side in zip(columns, turns, parts, strict=True):
        with column:
            for (role, _), piece in zip(own, by_length(side, [len(text) + 1 for _, text in own]), strict=True):
                markup.draw(markup.bubble(role, "", body=markup.marked(piece)))


def _turns(example: dict[str, Any] | None) -> list[tuple[str, str]]:
    messages = (example or {}).get("messages") or []
    return [(str(each["role"] or "?"), str(each["content"] or "")) for each in messages[: markup.MOST_TURNS]]
