"""Actions on all rows that a filter shows: keep, drop, tag, export; the last one can be undone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import get_args

import polars as pl
import streamlit as st

from siftune.app.web import markup, state
from siftune.curation.errors import UserError
from siftune.curation.review.bulk_actions import BulkAction, changed_by, decide_all, tag_all, undo, untag_all
from siftune.curation.review.catalogue import Catalogue, Positions
from siftune.curation.review.row_export import ExportFormat, export_rows
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import OverrideAction

#: Rows up to which an export is downloaded through the browser; the file stands in the server's memory meanwhile.
MOST_DOWNLOADED = 100_000
_ACTIONS: dict[OverrideAction, str] = {"drop": "Drop", "restore": "Keep"}
_DONE = "bulk action"


def filter_actions(catalogue: Catalogue, positions: Positions) -> None:
    """Draw the actions on the rows at `positions`."""
    rows = f"{len(positions):,} row{'' if len(positions) == 1 else 's'}"
    with st.container(horizontal=True, vertical_alignment="center", key="filter_actions"):
        act = st.popover(f"Act on {rows}", on_change="rerun", key="act on filter", disabled=not len(positions))
        export = st.popover(f"Export {rows}", on_change="rerun", key="export filter", disabled=not len(positions))
        _undo(catalogue)
    if act.open:
        with act:
            _act(catalogue, positions)
    if export.open:
        with export:
            _export(catalogue, positions)


def _act(catalogue: Catalogue, positions: Positions) -> None:
    """Buttons that say how many rows they change; contents of an open popover only, since counting takes a moment."""
    run = catalogue.run
    part = catalogue.frame[positions].select("id", pl.col("fate").cast(pl.String))
    fates = dict(part.iter_rows())
    st.text_input("Reason for the ledger", key="bulk reason", placeholder="optional")
    for action, label in _ACTIONS.items():
        count = len(changed_by(fates, state.overrides(run), action))
        st.button(
            f"{label} {count:,} row{'' if count == 1 else 's'}",
            key=f"bulk {action}",
            disabled=not count,
            width="stretch",
            on_click=_do,
            args=(partial(_decide_all, run, fates, action),),
        )
    st.divider()
    tag = st.text_input("Tag", key="bulk tag", placeholder="such as: check again")
    add, remove = st.columns(2)
    count = sum(
        tag.strip() in state.row_annotations(run)[row_id].tags
        for row_id in fates
        if row_id in state.row_annotations(run)
    )
    add.button(
        f"Tag {len(fates) - count:,} rows",
        key="bulk add tag",
        disabled=not tag.strip() or count == len(fates),
        width="stretch",
        on_click=_do,
        args=(partial(tag_all, run, list(fates), tag),),
    )
    remove.button(
        f"Untag {count:,} rows",
        key="bulk remove tag",
        disabled=not count,
        width="stretch",
        on_click=_do,
        args=(partial(untag_all, run, list(fates), tag.strip()),),
    )
    note = "The next `siftune curate` applies keep and drop. Tags and notes stand in every export."
    markup.draw(markup.note(markup.with_code(note)))


def _decide_all(run: RunFolder, fates: dict[str, str], action: OverrideAction) -> BulkAction:
    # Read now: a text that was typed just before the click is not that of the last drawing.
    return decide_all(run, fates, action, note=str(st.session_state.get("bulk reason", "")).strip())


def _do(work: Callable[[], BulkAction]) -> None:
    try:
        st.session_state[_DONE] = work().sentence
    except UserError as fault:
        st.session_state[_DONE] = str(fault)


def _undo(catalogue: Catalogue) -> None:
    """What the last action did, and a button that takes it back; they outlive the browser tab."""
    message = st.session_state.pop(_DONE, None)
    action = state.last_action(catalogue.run)
    if message or action:
        markup.draw(markup.note(message or f"Last action: {action.sentence}" if action else message))
    if action:
        st.button("Undo", key="bulk undo", type="tertiary", on_click=_take_back, args=(catalogue,))


def _take_back(catalogue: Catalogue) -> None:
    try:
        count = undo(catalogue.run)
        st.session_state[_DONE] = f"Undone for {count:,} row{'' if count == 1 else 's'}."
    except UserError as fault:
        st.session_state[_DONE] = str(fault)


def _export(catalogue: Catalogue, positions: Positions) -> None:
    file_format: ExportFormat = st.segmented_control(
        "Format", get_args(ExportFormat), default="parquet", required=True, key="export format"
    )
    note = "Rows in the order of the run, with fate, tags, notes and messages."
    if file_format == "csv":
        note += " Cells that a spreadsheet would run as a formula begin with an apostrophe."
    markup.draw(markup.note(note))
    name = f"{catalogue.run.path.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.{file_format}"
    write = partial(
        export_rows, catalogue, positions, file_format=file_format, annotations=state.row_annotations(catalogue.run)
    )
    if len(positions) <= MOST_DOWNLOADED:
        st.download_button(
            "Download", partial(_contents, write), name, key=f"download {file_format}", on_click="ignore"
        )
        return
    target = catalogue.run.exports_folder / name
    if st.button("Save in the run folder", key="save export", help=f"More than {MOST_DOWNLOADED:,} rows"):
        with st.spinner("Writing"):
            write(target)
        markup.draw(markup.note(f"Saved: {target}"))


def _contents(write: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        write(path)
        return path.read_bytes()
