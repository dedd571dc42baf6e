"""Decisions: every decision of every stage, a dropped row beside the row that it duplicates or the item it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import markup, state
from siftune.app.web.components import layout
from siftune.app.web.components.hand_controls import hand_controls
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.decision_words import DecisionWords, decision_sentence, decision_words
from siftune.curation.review.pairs import threshold_stages
from siftune.curation.review.tables import decision_counts, duplicate_groups
from siftune.curation.review.tables import decisions as decisions_of_kind
from siftune.curation.review.wording import reason_text

PURPOSE = "Every decision of every stage with its evidence, so that you can overrule it: K keeps the row, D drops it."
PAGE = 12
_SCORE = st.column_config.NumberColumn(format="%.3f", width=90)
_COLUMNS = {
    "similarity": _SCORE,
    "score": _SCORE,
    "margin": st.column_config.NumberColumn(
        format="%.3f", width=80, help="Distance of the similarity from the threshold"
    ),
    "tokens": st.column_config.NumberColumn(format="localized", width=80),
    "limit": st.column_config.NumberColumn(format="localized", width=80),
}


def decisions() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    markup.draw(markup.purpose(PURPOSE))
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
    _by_hand(catalogue, row_id, side="the row on the left")


def _one_by_one(catalogue: Catalogue) -> None:
    kinds = decision_counts(catalogue.run)
    if kinds.is_empty():
        markup.draw(markup.notice("No stage of this run made a decision about any row."))
        return
    kind = _kind(kinds, [stage.name for stage in threshold_stages(catalogue.run)])
    walk = layout.Walk(f"decisions {kind['stage']} {kind['action']} {kind['reason']}", kind["rows"], PAGE)
    of_kind = {name: kind[name] for name in _ADDRESS}
    page = decisions_of_kind(catalogue.run, **of_kind, page=walk.page, size=PAGE)
    words = decision_words(catalogue.run, **of_kind)
    table = _table(catalogue, page, words)
    chosen = layout.choose_from(
        walk, table, what="decision", height=36 * (min(page.height, 6) + 1), columns=_columns(table)
    )
    decision = page.row(chosen - walk.page * PAGE, named=True)
    st.divider()
    markup.draw(markup.decision(decision_sentence(decision, words)))
    side = "the row on the left" if decision["witness"] else "this row"
    _by_hand(catalogue, decision["id"], side=side, after=lambda: walk.go_to(chosen + 1))
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


def _kind(kinds: pl.DataFrame, scored_stages: list[str]) -> dict[str, Any]:
    """The kind that the user chooses; at first that of the address, the drops of the first stage with a threshold, or
    any drops.
    """
    lines = kinds.to_dicts()
    linked = _linked(lines)
    drops = [index for index, line in enumerate(lines) if line["action"] == "drop"]
    scored = [index for index in drops if lines[index]["stage"] in scored_stages]
    start = next(iter([*linked, *scored, *drops]), 0)
    index = st.selectbox(
        "Stage, action and reason",
        range(len(lines)),
        index=start,
        format_func=lambda index: _kind_name(lines[index]),
        key=f"kind of decision {st.session_state.get('decisions_version', 0)}",
    )
    line = lines[index]
    state.show_address("Decisions", {name: [str(line[name])] for name in _ADDRESS if line[name]})
    return line


_ADDRESS = ("stage", "action", "reason")


def _linked(lines: list[dict[str, Any]]) -> list[int]:
    """The kinds that the address asks for; says so where this run has none."""
    params = state.arrived("Decisions")
    if params is not None:
        st.session_state["decisions_version"] = st.session_state.get("decisions_version", 0) + 1
        st.session_state["decisions_link"] = {name: values[0] for name, values in params.items() if values}
    linked = st.session_state.get("decisions_link", {})
    matching = [
        index
        for index, line in enumerate(lines)
        if linked and all(str(line.get(name)) == value for name, value in linked.items())
    ]
    if params is not None and not matching:
        markup.draw(markup.notice("This run has no decision of the kind that the address asks for."))
    return sorted(matching, key=lambda index: lines[index]["action"] != "drop")


def _kind_name(line: dict[str, Any]) -> str:
    reason = reason_text(line["reason"])
    rows = "1 row" if line["rows"] == 1 else f"{line['rows']:,} rows"
    return markup.line(f"{line['stage']} · {line['action']} · {reason} · {rows}")


def _table(catalogue: Catalogue, page: pl.DataFrame, words: DecisionWords) -> pl.DataFrame:
    """One page of decisions of a kind, to select from. The instruction stands last: a narrow window cuts it first."""
    columns: dict[str, Any] = {"row": [layout.short_id(row_id) for row_id in page["id"]]}
    if words.witness is not None:
        columns[words.witness] = [_witness(catalogue, witness) for witness in page["witness"]]
    if words.score is not None:
        columns[words.score] = page["score"]
    if words.threshold is not None:
        columns[words.threshold] = page["threshold"]
    if words.margin:
        columns["margin"] = page["margin"]
    if words.detail is not None:
        columns[words.detail] = [markup.line(detail or "") for detail in page["detail"]]
    return pl.DataFrame(columns | {"instruction": _instructions(catalogue, page["id"])})


def _witness(catalogue: Catalogue, witness: str | None) -> str:
    """The id of a witness, and which stage dropped it where one did."""
    position = None if witness is None else catalogue.position(witness)
    row = {} if position is None else catalogue.frame.row(position, named=True)
    dropped = f"  (dropped by {row['stage']})" if row.get("fate") == "dropped" else ""
    return f"{layout.short_id(witness or '')}{dropped}"


def _columns(table: pl.DataFrame) -> dict[str, Any]:
    """How the columns look: ids are read to their end, and the instruction has the room that is left."""
    texts = {
        name: st.column_config.TextColumn(width=layout.text_width(table[name]), pinned=name == "row")
        for name, kind in table.schema.items()
        if kind == pl.String and name != "instruction"
    }
    return texts | {name: column for name, column in _COLUMNS.items() if name in table.columns}


def _duplicate_groups(catalogue: Catalogue) -> None:
    groups = duplicate_groups(catalogue.run)
    if groups.is_empty():
        markup.draw(markup.notice("No row was dropped as a duplicate of another row."))
        return
    markup.draw(markup.note("Rows with the most duplicates, the largest group first."))
    table = pl.DataFrame(
        {
            "kept instead": [_witness(catalogue, row_id) for row_id in groups["witness"]],
            "duplicates": groups["rows"],
            "instruction": _instructions(catalogue, groups["witness"]),
        }
    )
    walk = layout.Walk("duplicate groups", groups.height, groups.height)
    columns = _columns(table) | {"duplicates": st.column_config.NumberColumn(width=100)}
    height = 36 * (min(groups.height, 7) + 1)
    chosen = layout.choose_from(walk, table, what="group", height=height, columns=columns)
    group = groups.row(chosen, named=True)
    scores = dict(zip(group["id"], group["score"], strict=True))
    listed = f"first {len(scores)} of {group['rows']:,}" if len(scores) < group["rows"] else f"{len(scores)}"
    duplicate = st.selectbox(
        f"Dropped duplicates of {markup.markdown(group['witness'])} ({listed}), with their similarity",
        list(scores),
        format_func=lambda row_id: markup.line(
            row_id if scores[row_id] is None else f"{row_id}   {scores[row_id]:.3f}"
        ),
    )
    _by_hand(catalogue, duplicate, side="the row on the left")
    layout.side_by_side(catalogue, duplicate, group["witness"])


def _instructions(catalogue: Catalogue, row_ids: pl.Series) -> list[str]:
    """The first words of the instruction of each row; empty for rows without readable text."""
    positions = [catalogue.position(row_id) for row_id in row_ids]
    previews = state.previews(catalogue, [position for position in positions if position is not None])
    return [markup.line(previews.get(-1 if position is None else position, ("", ""))[0]) for position in positions]


def _by_hand(catalogue: Catalogue, row_id: str, *, side: str = "", after: Callable[[], None] | None = None) -> None:
    """The controls to keep or drop a row, when the run has it.

    Args:
        catalogue: the rows of the run.
        row_id: the row.
        side: where the row stands, in words.
        after: called when the user has decided.
    """
    position = catalogue.position(row_id)
    if position is not None:
        with st.container(width=760):
            markup.draw(markup.section_head(f"Keep or drop {row_id}, {side}"))
            hand_controls(catalogue, row_id, str(catalogue.frame["fate"][position]), after=after)
