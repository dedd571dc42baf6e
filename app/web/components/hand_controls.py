"""What the user does to a row by hand: keep or drop it, note something, tag it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.errors import UserError
from siftune.curation.review.annotations import Annotation, add_tag, remove_tag, write_note
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import OverrideAction, change_overrides, decided

#: What the user did last to a row that is no longer open, because the page stepped on.
_DONE = "done by hand"
_VERBS: dict[OverrideAction, str] = {"restore": "kept", "drop": "dropped"}
_LABELS: dict[OverrideAction, tuple[str, str]] = {"restore": ("Keep", "K"), "drop": ("Drop", "D")}


def hand_controls(catalogue: Catalogue, row_id: str, fate: str, *, after: Callable[[], None] | None = None) -> None:
    """Keep or drop a row, note something about it, tag it. The next `siftune curate` obeys keep and drop.

    Args:
        catalogue: the rows of the run.
        row_id: the row.
        fate: what became of it in the run.
        after: called when the user has decided: to step to the next row.
    """
    run = catalogue.run
    if done := st.session_state.pop(_DONE, None):
        markup.draw(markup.note(markup.with_code(done)))
    override = state.overrides(run).get(row_id)
    present = override.action if override else {"kept": "restore", "dropped": "drop"}.get(fate)
    if present is not None:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("Reason for the ledger", key=f"reason {row_id}", placeholder="optional")
            for action, (label, shortcut) in _LABELS.items():
                st.button(
                    label,
                    key=f"{action} {row_id}",
                    type="primary" if action == present else "secondary",
                    shortcut=shortcut,
                    on_click=_decide,
                    args=(run, row_id, fate, action, after),
                )
    if override is not None:
        verb = _VERBS[override.action]
        because = f", because: {override.note}" if override.note else ""
        applied = markup.with_code(f"The next `siftune curate` applies it; in this run the row is {fate}.")
        with st.container(horizontal=True, vertical_alignment="center"):
            by_hand = markup.escaped(f"By hand: {verb}{because}.")
            markup.draw(markup.note(markup.Markup(f"{by_hand} {applied}")))
            undo = st.button("Undo", key=f"undo {row_id}", type="tertiary")
        if undo:
            change_overrides(run, {row_id: None})
            st.rerun()
    _annotate(run, row_id)


def _decide(run: RunFolder, row_id: str, fate: str, action: OverrideAction, after: Callable[[], None] | None) -> None:
    # Read now: a text that was typed just before the click is not that of the last drawing.
    reason = str(st.session_state.get(f"reason {row_id}", ""))
    override = decided(row_id, fate, action, reason.strip())
    change_overrides(run, {row_id: override})
    if after is not None:
        # The id of a row holds no backtick that would be code: what it does hold stays text.
        name = row_id.replace("`", "'")
        applied = "as in this run" if override is None else "the next `siftune curate` applies it"
        st.session_state[_DONE] = f"{name}: {_VERBS[action]} by hand, {applied}."
        after()


def _annotate(run: RunFolder, row_id: str) -> None:
    annotation = state.row_annotations(run).get(row_id, Annotation())
    with st.expander(_summary(annotation), expanded=annotation != Annotation()):
        fault = st.session_state.pop("annotation fault", None)
        st.multiselect(
            "Tags",
            sorted({*state.tag_counts(run), *annotation.tags}),
            default=list(annotation.tags),
            key=f"tags {row_id} {' '.join(annotation.tags)}",
            accept_new_options=True,
            format_func=markup.line,
            placeholder="choose or type",
            on_change=_set_tags,
            args=(run, row_id, annotation),
        )
        st.text_area(
            "Note",
            value=annotation.note,
            key=f"note {row_id}",
            height=90,
            max_chars=2_000,
            on_change=_set_note,
            args=(run, row_id),
        )
        if fault:
            markup.draw(markup.notice(fault))


def _summary(annotation: Annotation) -> str:
    tags = markup.markdown(", ".join(annotation.tags))
    return f"Notes and tags: {tags}" if annotation.tags else "Notes and tags"


def _set_tags(run: RunFolder, row_id: str, before: Annotation) -> None:
    chosen = st.session_state[f"tags {row_id} {' '.join(before.tags)}"]
    try:
        for tag in chosen:
            add_tag(run, [row_id], tag)
    except UserError as fault:
        st.session_state["annotation fault"] = str(fault)
        return
    for tag in set(before.tags) - set(chosen):
        remove_tag(run, [row_id], tag)


def _set_note(run: RunFolder, row_id: str) -> None:
    write_note(run, row_id, st.session_state[f"note {row_id}"])
