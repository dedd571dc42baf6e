"""Decisions: every decision of every stage, a dropped row beside the row that it duplicates or the item it holds."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import markup, state
from siftune.app.web.components import layout
from siftune.app.web.components.row_details import override_controls
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import threshold_stages
from siftune.curation.review.tables import decision_counts, duplicate_groups
from siftune.curation.review.tables import decisions as decisions_of_kind
from siftune.curation.review.wording import reason_text

PAGE = 12


def decisions() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    pair = st.session_state.get("pair")
    if pair is not None:
        _compare(catalogue, *pair)
        return
    view = st.segmented_control(
        "Show", ["One by one", "Duplicate groups"], default="One by one", required=True, label_visibility="collapsed"
    )
    if view == "Duplicate groups":
        _duplicate_groups(catalogue)
    else:
        _one_by_one(catalogue)


def _compare(catalogue: Catalogue, row_id: str, other: str, stage: str | None) -> None:
    if st.button("Back to all decisions", type="tertiary"):
        del st.session_state["pair"]
        st.rerun()
    layout.side_by_side(catalogue, row_id, other, stage=stage)
    _override(catalogue, row_id)


def _one_by_one(catalogue: Catalogue) -> None:
    kinds = decision_counts(catalogue.run)
    if kinds.is_empty():
        markup.draw(markup.notice("No stage of this run made a decision about any row."))
        return
    kind = _kind(kinds, [stage.name for stage in threshold_stages(catalogue.run)])
    number = layout.pager(f"decisions {kind['stage']} {kind['action']} {kind['reason']}", -(-kind["rows"] // PAGE))
    page = decisions_of_kind(
        catalogue.run, stage=kind["stage"], action=kind["action"], reason=kind["reason"], page=number, size=PAGE
    )
    chosen = _choose_decision(catalogue, page, key=f"{kind['stage']} {kind['action']} {kind['reason']} {number}")
    decision = page.row(chosen, named=True)
    st.divider()
    markup.draw(markup.decision(decision))
    if decision["witness"]:
        layout.side_by_side(catalogue, decision["id"], decision["witness"], stage=decision["stage"])
    else:
        position = catalogue.position(decision["id"])
        example = catalogue.examples([position]).get(position) if position is not None else None
        text = (
            markup.conversation(example["messages"])
            if example
            else markup.notice("The text of this row could not be read.")
        )
        markup.draw(text)
    _override(catalogue, decision["id"])


def _kind(kinds: pl.DataFrame, scored_stages: list[str]) -> dict[str, Any]:
    """The kind that the user chooses; at first the drops of the first stage with a threshold, or any drops."""
    lines = kinds.to_dicts()
    drops = [index for index, line in enumerate(lines) if line["action"] == "drop"]
    scored = [index for index in drops if lines[index]["stage"] in scored_stages]
    start = next(iter([*scored, *drops]), 0)
    index = st.selectbox(
        "Stage, action and reason", range(len(lines)), index=start, format_func=lambda index: _kind_name(lines[index])
    )
    return lines[index]


def _kind_name(line: dict[str, Any]) -> str:
    reason = reason_text(line["reason"])
    return markup.line(f"{line['stage']} · {line['action']} · {reason} · {line['rows']:,} rows")


def _choose_decision(catalogue: Catalogue, page: pl.DataFrame, *, key: str) -> int:
    """One page of decisions as a table to select from; returns the index of the selected one."""
    witness = "benchmark item" if page["stage"].eq(CONTAMINATION).any() else "kept instead"
    table = pl.DataFrame(
        {
            "row": [markup.line(row_id) for row_id in page["id"]],
            "instruction": _instructions(catalogue, page["id"]),
            witness: [markup.line(witness or "") for witness in page["witness"]],
            "similarity": page["score"],
            "margin": page["margin"],
        }
    )
    event = st.dataframe(
        table.to_pandas(),
        key=f"list {key}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [0]}},
        height=36 * (min(page.height, 6) + 1),
        column_config={
            "instruction": st.column_config.TextColumn(width="large"),
            "similarity": st.column_config.NumberColumn(format="%.3f"),
            "margin": st.column_config.NumberColumn(
                format="%.3f", help="Distance of the similarity from the threshold"
            ),
        },
    )
    selected = event["selection"]["rows"]
    return int(selected[0]) if selected else 0


def _duplicate_groups(catalogue: Catalogue) -> None:
    groups = duplicate_groups(catalogue.run)
    if groups.is_empty():
        markup.draw(markup.notice("No row was dropped as a duplicate of another row."))
        return
    markup.draw(markup.note("Kept rows with the most duplicates, the largest group first."))
    table = pl.DataFrame(
        {
            "kept": [markup.line(row_id) for row_id in groups["witness"]],
            "duplicates": groups["rows"],
            "instruction": _instructions(catalogue, groups["witness"]),
        }
    )
    event = st.dataframe(
        table.to_pandas(),
        key="duplicate groups",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        height=300,
        selection_default={"selection": {"rows": [0]}},
        column_config={
            "kept": st.column_config.TextColumn(width=170),
            "duplicates": st.column_config.NumberColumn(width=110),
            "instruction": st.column_config.TextColumn(width="large"),
        },
    )
    selected = event["selection"]["rows"]
    group = groups.row(int(selected[0]) if selected else 0, named=True)
    scores = dict(zip(group["id"], group["score"], strict=True))
    listed = f"first {len(scores)} of {group['rows']:,}" if len(scores) < group["rows"] else f"{len(scores)}"
    duplicate = st.selectbox(
        f"Dropped duplicates of {markup.markdown(group['witness'])} ({listed})",
        list(scores),
        format_func=lambda row_id: markup.line(f"{row_id}   {scores[row_id] or 0:.3f}"),
    )
    layout.side_by_side(catalogue, duplicate, group["witness"])
    _override(catalogue, duplicate)


def _instructions(catalogue: Catalogue, row_ids: pl.Series) -> list[str]:
    """The first words of the instruction of each row; empty for rows without readable text."""
    positions = [catalogue.position(row_id) for row_id in row_ids]
    previews = state.previews(catalogue, [position for position in positions if position is not None])
    return [markup.line(previews.get(-1 if position is None else position, ("", ""))[0]) for position in positions]


def _override(catalogue: Catalogue, row_id: str) -> None:
    """The controls to restore or drop a row, when the run has it."""
    position = catalogue.position(row_id)
    if position is not None:
        with st.container(width=640):
            override_controls(catalogue, row_id, str(catalogue.frame["fate"][position]))
