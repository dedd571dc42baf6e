"""What several pages draw: a list to step through, two rows side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import markup
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.matched_items import CONTAMINATION, matched_items
from siftune.curation.text.differences import cut_spans, word_differences

_NO_TEXT = "This run did not keep the texts of benchmark items. Curate again to see them."


@dataclass(frozen=True)
class Walk:
    """Where the user stands in a list that is shown page by page: keys and buttons step through it."""

    name: str
    count: int
    size: int

    @property
    def _key(self) -> str:
        return f"{self.name}_at"

    @property
    def at(self) -> int:
        """The index of the item that the user stepped to, from 0."""
        return max(0, min(int(st.session_state.get(self._key, 0)), self.count - 1))

    @property
    def page(self) -> int:
        """The index of the page that holds it, from 0."""
        return self.at // self.size

    def go_to(self, index: int) -> None:
        """Stand at another item."""
        st.session_state[self._key] = index

    def draw(self, chosen: int, what: str) -> None:
        """Buttons to the next and the previous item and page.

        Args:
            chosen: the index of the item that is open; a click in the list may have opened another than `at`.
            what: what an item is called.
        """
        pages = -(-self.count // self.size)
        with st.container(horizontal=True, vertical_alignment="center", key=f"{self.name}_walk"):
            self._button("Previous", chosen - 1, shortcut="P", suffix="previous")
            self._button("Next", chosen + 1, shortcut="N", suffix="next")
            if pages > 1:
                page = chosen // self.size
                self._button("Page back", (page - 1) * self.size, shortcut="Shift+P", suffix="back")
                self._button("Page on", (page + 1) * self.size, shortcut="Shift+N", suffix="on")
                markup.draw(markup.note(f"{what} {chosen + 1:,} of {self.count:,}, page {page + 1:,} of {pages:,}"))
            else:
                markup.draw(markup.note(f"{what} {chosen + 1:,} of {self.count:,}"))

    def _button(self, label: str, index: int, *, shortcut: str, suffix: str) -> None:
        st.button(
            label,
            key=f"{self.name}_page {suffix}",
            disabled=not 0 <= index < self.count,
            shortcut=shortcut,
            on_click=self.go_to,
            args=(index,),
        )


#: Characters of an id that a column of a table shows.
_LONGEST_ID = 24


def short_id(row_id: str) -> str:
    """An id as one line that can be told from others: a long one loses its middle, never its end."""
    text = markup.line(row_id)
    if len(text) <= _LONGEST_ID:
        return text
    end = _LONGEST_ID // 2
    return f"{text[: _LONGEST_ID - end - 1]}…{text[-end:]}"


def text_width(texts: Iterable[str]) -> int:
    """The width of a column of a table in pixels, so that its texts are read to their end up to 40 characters."""
    longest = max((len(text) for text in texts), default=0)
    return 30 + 7 * max(8, min(40, longest))


def choose_from(walk: Walk, table: pl.DataFrame, *, what: str, height: int, columns: Mapping[str, Any]) -> int:
    """One page of a list as a table to select from, and the buttons to step through it; the index of the chosen item.

    Args:
        walk: where the user stands.
        table: the items of the page.
        what: what an item is called.
        height: pixels of the table.
        columns: how its columns look, as in `st.dataframe`.
    """
    buttons = st.container()
    # A step makes a new table, in which the item stepped to is selected; a click selects within the table.
    event = st.dataframe(
        table.to_pandas(),
        key=f"{walk.name} table {walk.at} {walk.count}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [walk.at % walk.size]}},
        height=height,
        column_config=dict(columns),
        placeholder="",
    )
    selected = event["selection"]["rows"]
    inside = int(selected[0]) if selected else walk.at % walk.size
    chosen = walk.page * walk.size + min(inside, table.height - 1)
    with buttons:
        walk.draw(chosen, what)
    return chosen


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
        row, messages = None, catalogue.earlier_messages(row_id)
    else:
        row = catalogue.frame.row(position, named=True)
        messages = (catalogue.examples([position]).get(position) or {}).get("messages") or []
    turns = [(str(turn["role"] or "?"), str(turn["content"] or "")) for turn in messages[: markup.MOST_TURNS]]
    return _Side(markup.row_head(row_id, row), turns)


def _item_side(catalogue: Catalogue, reference: str) -> _Side:
    item = matched_items(catalogue.run, [reference]).get(reference)
    if item is None:
        return _Side(markup.item_head(reference) + markup.note(_NO_TEXT), [])
    return _Side(markup.item_head(reference), item.turns)
