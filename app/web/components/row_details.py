"""One row in full: its messages, lengths, decisions, benchmark matches and similar rows."""

from __future__ import annotations

from typing import Any

import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.errors import UserError
from siftune.curation.review.catalogue import Catalogue, Dossier, dossier
from siftune.curation.review.pairs import GUARDED
from siftune.curation.run.overrides import (
    Override,
    OverrideAction,
    read_overrides,
    remove_override,
    write_override,
)


def show_row(catalogue: Catalogue, position: int) -> None:
    """Draw one row and everything that the run holds about it."""
    details = dossier(catalogue, position)
    example = catalogue.examples([position]).get(position)
    text, facts = st.columns([3, 2], gap="large")
    with text:
        _summary(details.row)
        if example is None:
            markup.draw(
                markup.notice(
                    "This row could not be read as an example and was quarantined; its history gives the reason."
                )
            )
        else:
            markup.draw(markup.conversation(example["messages"]))
            _other_columns(example)
    with facts:
        override_controls(catalogue, str(details.row["id"]), str(details.row["fate"]))
        _history(details)
        _similar_rows(details)


def _summary(row: dict[str, Any]) -> None:
    tags = markup.tag(row["fate"], str(row["fate"]))
    tags += markup.tag(f"split {row['split']}") if row["split"] else ""
    tags += "".join(markup.tag(name.removeprefix("arm:"), name.removeprefix("arm:")) for name in _arms(row))
    markup.draw(f'<div class="sf"><b>{markup.escaped(row["id"])}</b> &nbsp; {tags}</div>')
    words = (
        ("turns", row["turns"]),
        ("instruction", f"{row['prompt_words']} words"),
        ("answer", f"{row['answer_words']} words"),
    )
    markup.draw(markup.facts([*words, ("group", row["group"])] if row["group"] is not None else words))


def _arms(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if name.startswith("arm:") and value]


def _other_columns(example: dict[str, Any]) -> None:
    if example["meta"] not in (None, "", "{}"):
        with st.expander("Other columns of the row"):
            markup.draw(markup.prose(str(example["meta"]), limit=4_000))


def override_controls(catalogue: Catalogue, row_id: str, fate: str) -> None:
    """Restore or drop a row by hand; the next `siftune curate` applies it."""
    try:
        override = read_overrides(catalogue.run.overrides_path).get(row_id)
    except UserError as fault:
        markup.draw(markup.notice(str(fault)))
        return
    if override is not None:
        markup.draw(markup.notice(f"Override: {override.action}. The next `siftune curate` applies it."))
        if st.button("Remove the override", key=f"undo {row_id}"):
            remove_override(catalogue.run, row_id)
            st.rerun()
        return
    action: OverrideAction | None = {"dropped": "restore", "kept": "drop"}.get(fate)  # type: ignore[assignment]
    if action is None:
        return
    note, button = st.columns([3, 1], vertical_alignment="bottom")
    reason = note.text_input("Reason for the ledger", key=f"reason {row_id}", placeholder="optional")
    if button.button(action.capitalize(), key=f"{action} {row_id}", width="stretch"):
        write_override(catalogue.run, Override(row_id, action, reason))
        st.rerun()


def _history(details: Dossier) -> None:
    markup.draw(markup.section_head("History"))
    for decision in details.decisions.to_dicts():
        markup.draw(markup.decision(decision))
    for match in details.matches.to_dicts():
        markup.draw(
            markup.facts([("matches", match["reference"]), ("rule", match["rule"]), ("score", f"{match['score']:.3f}")])
        )
        markup.draw(markup.prose(str(match["span"]), limit=400))
    for finding in details.findings.to_dicts():
        markup.draw(
            markup.facts([("check", finding["check"]), ("score", finding["score"]), ("", finding["detail"] or "")])
        )
    if details.decisions.is_empty() and details.matches.is_empty() and details.findings.is_empty():
        markup.draw(markup.note("No stage made a decision about this row."))
    if not details.witnessed.is_empty():
        markup.draw(markup.note(f"Rows dropped or reported as similar to this row: {details.witnessed.height:,}."))


def _similar_rows(details: Dossier) -> None:
    if details.neighbours.is_empty():
        return
    markup.draw(markup.section_head("Similar rows"))
    rows = [
        (
            markup.cell_with_note(line["id"], f"{line['measure']}, {GUARDED}" if line["guarded"] else line["measure"]),
            markup.Markup(markup.tag(line["fate"] or "?", str(line["fate"]))),
            f"{line['score']:.3f}",
        )
        for line in details.neighbours.head(12).to_dicts()
    ]
    markup.draw(markup.table(["row", "fate", "similarity"], rows, numbers=(2,)))
    ids = details.neighbours["id"].unique(maintain_order=True).head(12).to_list()
    other = st.selectbox(
        "Compare with",
        ids,
        index=None,
        format_func=markup.line,
        placeholder="another row",
        key=f"compare {details.row['id']}",
    )
    if other:
        st.session_state["pair"] = (str(details.row["id"]), other)
        state.switch_to("Decisions")
