"""Decisions: every row that a stage took out, beside the row for whose sake it went."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import markup, queries, state
from siftune.app.web.components import layout
from siftune.app.web.components.row_details import by_hand
from siftune.curation.review.catalogue import Catalogue

PAGE = 12


def decisions() -> None:
    """Draw the page."""
    run = state.open_run()
    found = state.catalogue(run)
    pair = st.session_state.get("pair")
    if pair is not None:
        _compare(found, *pair)
        return
    view = st.segmented_control(
        "Show", ["One by one", "Families"], default="One by one", required=True, label_visibility="collapsed"
    )
    if view == "Families":
        _families(found)
    else:
        _one_by_one(found)


def _compare(found: Catalogue, left: str, right: str) -> None:
    if st.button("Back to all decisions", type="tertiary"):
        del st.session_state["pair"]
        st.rerun()
    layout.side_by_side(found, left, right)
    _by_hand(found, left)


def _one_by_one(found: Catalogue) -> None:
    kinds = queries.decision_kinds(found.run)
    if kinds.is_empty():
        markup.draw(markup.problem("No stage had anything to say about any row of this run."))
        return
    kind = _kind(kinds)
    number = layout.pager(f"decisions {kind['stage']} {kind['action']} {kind['reason']}", -(-kind["rows"] // PAGE))
    page = queries.decisions(
        found.run, stage=kind["stage"], action=kind["action"], reason=kind["reason"], page=number, size=PAGE
    )
    chosen = _list(found, page, key=f"{kind['stage']} {kind['action']} {kind['reason']} {number}")
    decision = page.row(chosen, named=True)
    st.divider()
    markup.draw(markup.decision(decision))
    if decision["witness"]:
        layout.side_by_side(found, decision["id"], decision["witness"])
    else:
        position = found.position(decision["id"])
        example = found.examples([position]).get(position) if position is not None else None
        text = markup.conversation(example["messages"]) if example else markup.problem("This row has no readable text.")
        markup.draw(text)
    _by_hand(found, decision["id"])


def _kind(kinds: pl.DataFrame) -> dict[str, Any]:
    lines = kinds.to_dicts()
    start = next(
        (place for place, line in enumerate(lines) if line["action"] == "drop" and line["stage"] == "near"), None
    )
    if start is None:
        start = next((place for place, line in enumerate(lines) if line["action"] == "drop"), 0)
    place = st.selectbox(
        "Stage, what it did, and why", range(len(lines)), index=start, format_func=lambda at: _kind_name(lines[at])
    )
    return lines[place]


def _kind_name(line: dict[str, object]) -> str:
    reason = str(line["reason"] or "no reason").replace("_", " ")
    return markup.line(f"{line['stage']} · {line['action']} · {reason} · {line['rows']:,} rows")


def _list(found: Catalogue, page: pl.DataFrame, *, key: str) -> int:
    places = [found.position(row_id) for row_id in page["id"]]
    previews = state.previews(found, [place for place in places if place is not None])
    shown = pl.DataFrame(
        {
            "row": [markup.line(row_id) for row_id in page["id"]],
            "instruction": [markup.line(previews.get(-1 if place is None else place, ("", ""))[0]) for place in places],
            "kept instead": [markup.line(witness or "") for witness in page["witness"]],
            "similarity": page["score"],
            "from threshold": page["margin"],
        }
    )
    event = st.dataframe(
        shown.to_pandas(),
        key=f"list {key}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [0]}},
        height=36 * (min(page.height, 6) + 1),
        column_config={
            "instruction": st.column_config.TextColumn(width="large"),
            "similarity": st.column_config.NumberColumn(format="%.3f"),
            "from threshold": st.column_config.NumberColumn(format="%.3f"),
        },
    )
    selected = event["selection"]["rows"]
    return int(selected[0]) if selected else 0


def _families(found: Catalogue) -> None:
    table = queries.families(found.run)
    if table.is_empty():
        markup.draw(markup.problem("No row was dropped for the sake of another one."))
        return
    markup.draw(markup.note("Rows for whose sake most others went, the largest family first."))
    places = [found.position(row_id) for row_id in table["witness"]]
    previews = state.previews(found, [place for place in places if place is not None])
    shown = pl.DataFrame(
        {
            "kept": [markup.line(row_id) for row_id in table["witness"]],
            "dropped for it": table["rows"],
            "instruction": [markup.line(previews.get(-1 if place is None else place, ("", ""))[0]) for place in places],
        }
    )
    event = st.dataframe(
        shown.to_pandas(), key="families", hide_index=True, on_select="rerun", selection_mode="single-row", height=300,
        selection_default={"selection": {"rows": [0]}},
        column_config={
            "kept": st.column_config.TextColumn(width=170),
            "dropped for it": st.column_config.NumberColumn(width=110),
            "instruction": st.column_config.TextColumn(width="large"),
        },
    )  # fmt: skip
    selected = event["selection"]["rows"]
    family = table.row(int(selected[0]) if selected else 0, named=True)
    options = [family["id"][place] for place in range(len(family["id"]))]
    scores = dict(zip(family["id"], family["score"], strict=True))
    member = st.selectbox(
        f"Its family (the first {len(options)} of {family['rows']:,})",
        options,
        format_func=lambda row_id: markup.line(f"{row_id}   {scores[row_id] or 0:.3f}"),
    )
    layout.side_by_side(found, member, family["witness"])
    _by_hand(found, member)


def _by_hand(found: Catalogue, row_id: str) -> None:
    position = found.position(row_id)
    if position is not None:
        with st.container(width=640):
            by_hand(found, row_id, str(found.frame["fate"][position]))
