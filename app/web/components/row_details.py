"""The reading pane: one row as a chat, what was measured on it, who resembles it, what was decided."""

from __future__ import annotations

from typing import Any

import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.errors import UserError
from siftune.curation.review.catalogue import Catalogue, Dossier, dossier
from siftune.curation.run.overrides import (
    Override,
    Wish,
    overrides_path,
    read_overrides,
    remove_override,
    write_override,
)


def pane(found: Catalogue, position: int) -> None:
    """Draw one row and everything that is known of it."""
    known = dossier(found, position)
    example = found.examples([position]).get(position)
    text, facts = st.columns([3, 2], gap="large")
    with text:
        _head(known.row)
        if example is None:
            markup.draw(markup.problem("This row could not be read as an example and was set aside; see its story."))
        else:
            markup.draw(markup.conversation(example["messages"]))
            _rest(example)
    with facts:
        by_hand(found, str(known.row["id"]), str(known.row["fate"]))
        _story(known)
        _neighbours(known)


def _head(row: dict[str, Any]) -> None:
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
    return [name for name, there in row.items() if name.startswith("arm:") and there]


def _rest(example: dict[str, Any]) -> None:
    if example["meta"] not in (None, "", "{}"):
        with st.expander("What else the row had"):
            markup.draw(markup.prose(str(example["meta"]), most=4_000))


def by_hand(found: Catalogue, row_id: str, fate: str) -> None:
    """Restore or drop a row; the next `siftune curate` obeys."""
    try:
        wish = read_overrides(overrides_path(found.run)).get(row_id)
    except UserError as fault:
        markup.draw(markup.problem(str(fault)))
        return
    if wish is not None:
        markup.draw(markup.problem(f"By hand: {wish.action}. The next `siftune curate` obeys, and the ledger says so."))
        if st.button("Let the stages decide again", key=f"undo {row_id}"):
            remove_override(found.run, row_id)
            st.rerun()
        return
    action: Wish | None = {"dropped": "restore", "kept": "drop"}.get(fate)  # type: ignore[assignment]
    if action is None:
        return
    note, button = st.columns([3, 1], vertical_alignment="bottom")
    why = note.text_input("Why, for the ledger", key=f"why {row_id}", placeholder="a note, if you like")
    if button.button(action.capitalize(), key=f"{action} {row_id}", width="stretch"):
        write_override(found.run, Override(row_id, action, why))
        st.rerun()


def _story(known: Dossier) -> None:
    markup.draw(markup.head("Its story"))
    for decision in known.decisions.to_dicts():
        markup.draw(markup.decision(decision))
    for match in known.matches.to_dicts():
        markup.draw(
            markup.facts(
                [("resembles", match["reference"]), ("rule", match["rule"]), ("score", f"{match['score']:.3f}")]
            )
        )
        markup.draw(markup.prose(str(match["span"]), most=400))
    for finding in known.findings.to_dicts():
        markup.draw(
            markup.facts([("check", finding["check"]), ("score", finding["score"]), ("", finding["detail"] or "")])
        )
    if known.decisions.is_empty() and known.matches.is_empty() and known.findings.is_empty():
        markup.draw(markup.note("No stage had anything to say about this row."))
    if not known.witnessed.is_empty():
        markup.draw(
            markup.note(f"{known.witnessed.height} rows were dropped or reported because they resemble this one.")
        )


def _neighbours(known: Dossier) -> None:
    if known.neighbours.is_empty():
        return
    markup.draw(markup.head("Rows like it"))
    rows = [
        (
            markup.named(line["id"], line["measure"] + (", guarded" if line["guarded"] else "")),
            markup.Markup(markup.tag(line["fate"] or "?", str(line["fate"]))),
            f"{line['score']:.3f}",
        )
        for line in known.neighbours.head(12).to_dicts()
    ]
    markup.draw(markup.table(["row", "fate", "similarity"], rows, numbers=(2,)))
    ids = known.neighbours["id"].unique(maintain_order=True).head(12).to_list()
    chosen = st.selectbox(
        "Compare with",
        ids,
        index=None,
        format_func=markup.line,
        placeholder="another row",
        key=f"with {known.row['id']}",
    )
    if chosen:
        st.session_state["pair"] = (str(known.row["id"]), chosen)
        state.go("Decisions")
