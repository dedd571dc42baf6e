"""Map: all rows in two dimensions by what they ask, coloured by their fate; an outline or a click opens rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import streamlit as st

from siftune.app.web import markup, state
from siftune.app.web.components import row_details
from siftune.app.web.components.map_chart import MOST_POINTS, Drawing, draw_map
from siftune.app.web.components.verb_chart import verb_chart
from siftune.curation.review.catalogue import Catalogue, Positions, Query
from siftune.curation.review.charts import unchecked
from siftune.curation.review.diversity import diversity_sentence
from siftune.curation.review.instruction_verbs import sampled_instructions, verb_tree
from siftune.curation.review.row_map import Polygon, RowMap, Window
from siftune.curation.review.tables import sources_text, topic_table
from siftune.curation.review.wording import percent

PURPOSE = "See what the rows are about, what became of them, and which rows were dropped for which."
_COLOURS = ("fate", "source", "topic", "stage", "length")
#: Selected rows that are listed; a smaller selection shows the others.
_MOST_LISTED = 200
_MOST_TOPICS = 100
_NO_MAP = (
    "This run has no map. Topics and the map need embeddings of the prompts: add `topics: {}` to the recipe and run "
    "`siftune curate` again; what is measured already is used again."
)
_OUTLINE, _ROW, _WINDOW = "map outline", "map row", "map window"


def row_map() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    markup.draw(markup.purpose(PURPOSE))
    places = _row_map(str(run.path), state.run_version(run), _catalogue=catalogue)
    if places is None:
        markup.draw(markup.notice(markup.with_code(_NO_MAP)))
        _verbs(catalogue)
        return
    # What is chosen on the map changes nothing below it, so that only the map is drawn again.
    st.fragment(_map)(catalogue, places)
    _verbs(catalogue)
    _topics(catalogue)


def _map(catalogue: Catalogue, places: RowMap) -> None:
    """The map with its filters, and the rows that are selected on it."""
    colour, query, names, lines = _controls(catalogue)
    shown = catalogue.find(query)
    window = st.session_state.get(_WINDOW) or places.everything
    inside = places.inside(window, shown)
    points = places.sample(inside, MOST_POINTS)

    # The chart stands above the list, and is drawn after it: the row that is chosen there is marked on it.
    _buttons(places, window)
    chart = st.container()
    markup.draw(markup.note(_count_sentence(len(inside), len(points), catalogue.run.manifest.notes)))
    outline = st.session_state.get(_OUTLINE)
    row = st.session_state.get(_ROW) if outline is None else _list(catalogue, places.within(outline, inside))
    with chart:
        drawing = Drawing(places, window, inside, points, colour, names, lines, outline, row)
        draw_map(drawing, "map chart", selected=_take_outline, clicked=_take_row)
    if row is not None:
        _show_row(catalogue, places, row)


@st.cache_resource(max_entries=1, show_spinner="Reading the map of this run")
def _row_map(path: str, version: str, _catalogue: Catalogue) -> RowMap | None:
    del path, version
    return RowMap.open(_catalogue)


@st.cache_data(max_entries=1, show_spinner=False)
def _topic_table(path: str, version: str, _catalogue: Catalogue) -> pl.DataFrame:
    del path, version
    return topic_table(_catalogue.frame)


def _controls(catalogue: Catalogue) -> tuple[str, Query, bool, bool]:
    """What points are coloured by, which rows are shown, whether topics are named, whether witnesses are joined."""
    colours = [*_COLOURS, *catalogue.arms]
    columns = st.columns([1.5, 1.5, 2, 3], vertical_alignment="bottom")
    colour = columns[0].selectbox(
        "Colour by", colours, format_func=lambda name: markup.line(name if name in _COLOURS else f"arm {name}")
    )
    chosen: dict[str, tuple[str, ...]] = {}
    for column, name in zip(columns[1:], ("fate", "source", "topic"), strict=True):
        options = catalogue.values(name)
        picked = column.multiselect(name.capitalize(), options, format_func=markup.line, placeholder="any")
        chosen[name] = tuple(picked)
    with st.container(horizontal=True):
        named = st.toggle("Names of topics", value=True)
        joined = st.toggle("Lines from dropped rows to the rows that they resemble", value=False)
    return colour, Query(**chosen), named, joined  # type: ignore[arg-type]


def _buttons(places: RowMap, window: Window) -> None:
    """Zoom, and forget the selection."""
    outline: Polygon | None = st.session_state.get(_OUTLINE)
    whole, wider = places.everything, window.scaled(2)
    is_whole = window == whole
    out = None if wider.right - wider.left >= whole.right - whole.left else wider
    is_nothing_selected = outline is None and st.session_state.get(_ROW) is None
    with st.container(horizontal=True):
        around = None if outline is None else Window.around(outline)
        st.button("Zoom into the selection", disabled=around is None, on_click=_zoom, args=(around,))
        st.button("Zoom out", disabled=is_whole, on_click=_zoom, args=(out,))
        st.button("Whole map", disabled=is_whole, on_click=_zoom, args=(None,))
        st.button("Clear the selection", disabled=is_nothing_selected, on_click=_select, args=(None, None))


def _zoom(window: Window | None) -> None:
    st.session_state[_WINDOW] = window
    _select(None, st.session_state.get(_ROW))


def _select(outline: Polygon | None, row: int | None) -> None:
    """Set what is selected: the rows in an outline, or a row."""
    st.session_state[_OUTLINE], st.session_state[_ROW] = outline, row


def _take_outline(sent: Any) -> None:
    """Keep the outline that the user drew, unless it is none."""
    corners = np.asarray(sent or [], dtype=np.float64)
    if corners.ndim == 2 and corners.shape[1] == 2 and len(corners) > 2 and np.isfinite(corners).all():
        _select(tuple((float(x), float(y)) for x, y in corners), None)


def _take_row(sent: Any) -> None:
    """Keep the row that the user clicked on."""
    if isinstance(sent, int):
        _select(None, sent)


def _count_sentence(inside: int, points: int, notes: dict[str, dict[str, str]]) -> str:
    drawn = "each is a point" if points == inside else f"{points:,} of them are points, the others are shading"
    projection = notes.get("topics", {}).get("projection", "")
    advice = "Draw a line around points to list their rows (with Shift: a box), or click on a point."
    return f"{inside:,} rows in view; {drawn}. {advice} Projection: {projection}."


def _list(catalogue: Catalogue, selected: Positions) -> int | None:
    """The rows in the outline as a table; the position of the one that is chosen."""
    counts = catalogue.counts(selected, "fate")
    tags = "".join(markup.tag(f"{count:,} {fate}", fate) for fate, count in counts.items())
    markup.draw(f'<div class="sf">{markup.escaped(f"{len(selected):,} rows selected")} &nbsp; {tags}</div>')
    if not len(selected):
        return None
    listed = np.sort(selected)[:_MOST_LISTED]
    if len(listed) < len(selected):
        markup.draw(
            markup.note(f"The first {len(listed)} are listed. A smaller selection, or a filter, shows the others.")
        )
    rows, previews = catalogue.frame[listed], state.previews(catalogue, listed.tolist())
    table = pl.DataFrame(
        {
            "row": [markup.line(row_id) for row_id in rows["id"]],
            "fate": rows["fate"].cast(pl.String),
            "instruction": [markup.line(previews.get(int(position), ("", ""))[0]) for position in listed],
            "topic": [markup.line(topic or "") for topic in rows["topic"]],
            "reason": [markup.line(str(reason or "").replace("_", " ")) for reason in rows["reason"]],
        }
    )
    event = st.dataframe(
        table.to_pandas(),
        key=f"map list {hash(listed.tobytes())}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        height=36 * (min(len(listed), 8) + 1),
        placeholder="",
        column_config={"instruction": st.column_config.TextColumn(width="large")},
    )
    chosen = event["selection"]["rows"]
    return int(listed[chosen[0]]) if chosen else None


def _show_row(catalogue: Catalogue, places: RowMap, row: int) -> None:
    """The row that is chosen, and a button that opens it beside its witness."""
    st.divider()
    witness = int(places.witness[row])
    if witness >= 0:
        ids, stage = catalogue.frame["id"], str(catalogue.frame["stage"][row])
        if st.button("Open in Decisions beside its witness"):
            st.session_state["pair"] = (ids[row], ids[witness], stage)
            state.switch_to("Decisions")
    row_details.show_row(catalogue, row)


def _topics(catalogue: Catalogue) -> None:
    """Rows by topic, fate and source."""
    table = _topic_table(str(catalogue.run.path), state.run_version(catalogue.run), _catalogue=catalogue)
    st.subheader("Rows by topic")
    if sentence := diversity_sentence(catalogue.run):
        markup.draw(markup.note(sentence))
    rows = [
        (
            line["topic"],
            f"{line['rows']:,}",
            f"{line['kept']:,}",
            f"{line['dropped']:,}",
            percent(line["kept"], line["rows"]),
            sources_text(line["sources"]),
        )
        for line in table.head(_MOST_TOPICS).to_dicts()
    ]
    head = ["topic", "rows", "kept", "dropped", "share kept", "sources (kept of rows)"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4)))
    if table.height > _MOST_TOPICS:
        markup.draw(markup.note(f"The {table.height - _MOST_TOPICS:,} smallest topics are left out."))


def _verbs(catalogue: Catalogue) -> None:
    """Verbs of the instructions and what they act on, raw beside curated; counted when the user asks for it."""
    st.subheader("What the instructions ask for")
    if not st.toggle("Count verbs and nouns", help="English instructions. Needs the extra verbs."):
        return
    tree, raw, curated = _verb_tree(str(catalogue.run.path), state.run_version(catalogue.run), _catalogue=catalogue)
    if tree.is_empty():
        markup.draw(markup.note("No English instruction with a verb and a noun was found."))
        return
    for column, name, rows in zip(st.columns(2), ("raw", "curated"), (raw, curated), strict=True):
        share = float(tree.filter(pl.col("set") == name)["share"].sum())
        with column, unchecked():
            st.altair_chart(verb_chart(tree, name))
            markup.draw(markup.note(f"Drawn: {share:.0%} of {rows:,} {name} instructions."))
    note = (
        "Inside the 20 most frequent verbs of the raw rows, outside the four nouns that each acts on most; of a sample."
    )
    markup.draw(markup.note(note))


@st.cache_data(max_entries=1, show_spinner="Reading the instructions")
def _verb_tree(path: str, version: str, _catalogue: Catalogue) -> tuple[pl.DataFrame, int, int]:
    del path, version
    raw, curated = sampled_instructions(_catalogue)
    return verb_tree(raw, curated), len(raw), len(curated)
