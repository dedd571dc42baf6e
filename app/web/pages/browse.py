"""Browse: search, filter and sort all rows of the run, read one of them, act on all that the filter shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import polars as pl
import streamlit as st

from siftune.app.web import links, markup, queries, state
from siftune.app.web.components import filter_actions, layout, row_details
from siftune.curation.review.catalogue import Catalogue, Order, Positions, Query
from siftune.curation.review.wording import reason_text

PURPOSE = "Find rows by words, fate, source or length, read them, and act on all that a filter shows."
PAGE = 25
_ORDERS = {
    "row": "input order",
    "prompt_words": "instruction length",
    "answer_words": "answer length",
    "turns": "turns",
}
_CHOICES = ("source", "fate", "stage", "reason", "split", "topic")
_BY_HAND = {"restore": "kept by hand", "drop": "dropped by hand", "note": "with a note"}
_COLUMNS = {
    "fate": st.column_config.TextColumn(width=85),
    "instruction": st.column_config.TextColumn(width=215),
    "reason": st.column_config.TextColumn(width=130),
    "split": st.column_config.TextColumn(width=60),
    "turns": st.column_config.NumberColumn(width=55),
    "instruction words": st.column_config.NumberColumn(width=125),
    "answer words": st.column_config.NumberColumn(width=100),
}


def browse() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    markup.draw(markup.purpose(PURPOSE))
    link = _follow_link(catalogue)
    query = _query(catalogue, state.browse_query())
    state.remember_browse(query)
    hits, searched = _search(catalogue, query)
    by_hand = queries.rows_by_hand(catalogue, query, state.row_annotations(run), state.overrides(run))
    if by_hand is not None:
        hits = by_hand if hits is None else np.intersect1d(hits, by_hand)
    positions = catalogue.find(query if searched else replace(query, text=""), hits)
    walk = layout.Walk("browse", len(positions), PAGE)
    if st.session_state.get("browse_shown") != query:
        st.session_state["browse_shown"] = query
        walk.go_to(0)
    if link is not None and link.row is not None:
        _open_row(catalogue, positions, walk, link.row)
    _counts(catalogue, positions)
    filter_actions.filter_actions(catalogue, positions)
    if not len(positions):
        state.show_address("Browse", links.parameters(query))
        markup.draw(markup.notice("No rows match. Remove a filter, or search for fewer words."))
        return
    chosen = _choose_row(catalogue, positions, walk)
    position = int(positions[chosen])
    state.show_address("Browse", links.parameters(query, str(catalogue.frame["id"][position])))
    st.divider()
    row_details.show_row(catalogue, position, after=lambda: walk.go_to(chosen + 1))


def _follow_link(catalogue: Catalogue) -> links.Link | None:
    """What the address asks for, when somebody opened a link; it becomes the query of the widgets.

    Without an address, the last query does: the user comes back from another page.
    """
    params = state.arrived("Browse")
    if params is None:
        state.return_to_browse()
        return None
    link = links.parse(params, catalogue)
    state.show_in_browse(link.query)
    for fault in link.faults:
        markup.draw(markup.notice(fault))
    return link


def _open_row(catalogue: Catalogue, positions: Positions, walk: layout.Walk, row_id: str) -> None:
    """Stand at the row of a link, if the filter shows it."""
    at = np.flatnonzero(positions == catalogue.position(row_id))
    if len(at):
        walk.go_to(int(at[0]))
    else:
        markup.draw(markup.notice(f"The filter of this link does not show its row {row_id!r}."))


def _query(catalogue: Catalogue, start: Query) -> Query:
    """The search box and the filters. `start` is the query that another page set; a new one resets the widgets."""
    version = st.session_state.get("browse_version", 0)
    search, order, more = st.columns([6, 2.4, 1.6], vertical_alignment="bottom")
    text = search.text_input(
        "Search",
        value=start.text,
        key=f"text {version}",
        placeholder='words, "a phrase", prefix*, -excluded, or the id of a row',
        help="Rows match when all words occur in the instruction or the answer. An id finds its row alone.",
    )
    orders = get_args(Order)
    by = order.selectbox(
        "Sort by", orders, index=orders.index(start.order), format_func=_ORDERS.__getitem__, key=f"order {version}"
    )
    descending = more.toggle("Descending", key=f"down {version}", value=start.descending)
    with st.expander("Filters", expanded=_any_filter(start)):
        picked = _choices(catalogue, start, version)
        picked |= _own_choices(catalogue, start, version)
        ranges = _ranges(catalogue, start, version)
        group = start.group
        if group is not None and not st.checkbox(
            f"Only group {group} of similar rows", value=True, key=f"group {version}"
        ):
            group = None
        st.button("Clear all filters", key=f"clear {version}", on_click=state.show_in_browse, args=(Query(),))
    return replace(Query(text=text.strip(), order=by, descending=descending, group=group), **picked, **ranges)  # type: ignore[arg-type]


def _any_filter(query: Query) -> bool:
    return replace(query, text="", order="row", descending=False) != Query()


def _choices(catalogue: Catalogue, start: Query, version: int) -> dict[str, tuple[str, ...]]:
    columns = st.columns(3)
    picked: dict[str, tuple[str, ...]] = {}
    choices = [name for name in _CHOICES if name != "topic" or catalogue.values("topic")]
    for index, name in enumerate((*choices, "arm")):
        options = list(catalogue.arms) if name == "arm" else catalogue.values(name)
        before = [value for value in getattr(start, name) if value in options]
        chosen = columns[index % 3].multiselect(
            name.capitalize(),
            options,
            default=before,
            format_func=_reason if name == "reason" else markup.line,
            key=f"{name} {version}",
            placeholder="any",
        )
        picked[name] = tuple(chosen)
    return picked


def _reason(reason: str) -> str:
    """A reason as the table writes it."""
    return markup.line(reason_text(reason))


def _own_choices(catalogue: Catalogue, start: Query, version: int) -> dict[str, tuple[str, ...]]:
    """Filters by what the user did: tags and decisions by hand."""
    tags, by_hand = st.columns(2)
    known = list(state.tag_counts(catalogue.run))
    chosen_tags = tags.multiselect(
        "Tags (rows with all of them)",
        list(dict.fromkeys([*known, *start.tag])),
        default=list(start.tag),
        format_func=markup.line,
        key=f"tag {version}",
        placeholder="any",
    )
    chosen = by_hand.multiselect(
        "By hand",
        list(_BY_HAND),
        default=list(start.by_hand),
        format_func=_BY_HAND.__getitem__,
        key=f"by hand {version}",
        placeholder="any",
    )
    return {"tag": tuple(chosen_tags), "by_hand": tuple(chosen)}


def _ranges(catalogue: Catalogue, start: Query, version: int) -> dict[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    labels: dict[Order, str] = {
        "prompt_words": "Instruction words",
        "answer_words": "Answer words",
        "turns": "Turns",
    }
    columns = st.columns(6, vertical_alignment="bottom")
    for index, (name, label) in enumerate(labels.items()):
        before = getattr(start, name) or (None, None)
        low = columns[2 * index].number_input(
            label, min_value=0, value=before[0], step=1, placeholder="any", key=f"{name} from {version}"
        )
        high = columns[2 * index + 1].number_input(
            "to", min_value=0, value=before[1], step=1, placeholder="any", key=f"{name} to {version}"
        )
        if low is not None or high is not None:
            ranges[name] = (low or 0, catalogue.longest(name) if high is None else high)
    return ranges


def _search(catalogue: Catalogue, query: Query) -> tuple[Positions | None, bool]:
    """Positions of the rows that hold the query's text or have it as their id (None: any row), and whether the index
    could be searched.
    """
    if not query.text:
        return None, True
    position = catalogue.position(query.text)
    if position is not None:
        return np.array([position], np.uint32), True
    index_build = state.text_index(state.open_run())
    if index_build.ready is not None:
        return index_build.ready.search(query.text), True
    if index_build.fault:
        markup.draw(markup.notice(f"The search index could not be built: {index_build.fault}"))
    else:
        _progress()
    return None, False


@st.fragment(run_every=1.0)
def _progress() -> None:
    """Progress of the index; the page searches by itself when it is ready."""
    index_build = state.text_index(state.open_run())
    if index_build.ready is not None or index_build.fault:
        st.rerun()
    st.progress(index_build.progress, text="Building the search index, once for this run. Filters work meanwhile.")


def _counts(catalogue: Catalogue, positions: Positions) -> None:
    fates = catalogue.counts(positions, "fate")
    tags = "".join(markup.tag(f"{count:,} {fate}", fate) for fate, count in fates.items())
    markup.draw(
        f'<div class="sf">{markup.escaped(f"{len(positions):,} of {len(catalogue):,} rows")} &nbsp; {tags}</div>'
    )


def _choose_row(catalogue: Catalogue, positions: Positions, walk: layout.Walk) -> int:
    """One page of rows as a table to select from; returns the index of the selected row in the list."""
    page = catalogue.page(positions, walk.page, PAGE)
    height = 36 * (page.height + 1) if page.height <= 10 else 396
    table = _table(catalogue, page)
    ids = st.column_config.TextColumn("row", width=layout.text_width(table["id"]), pinned=True)
    return layout.choose_from(walk, table, what="row", height=height, columns={"id": ids} | _COLUMNS)


def _table(catalogue: Catalogue, page: pl.DataFrame) -> pl.DataFrame:
    previews = state.previews(catalogue, page["position"].to_list())
    lines: list[dict[str, Any]] = []
    for row in page.to_dicts():
        prompt, answer = previews.get(row["position"], ("", ""))
        lines.append(
            {
                "id": layout.short_id(row["id"]),
                "fate": row["fate"],
                "instruction": markup.line(prompt),
                "reason": _reason(str(row["reason"] or row["stage"])) if row["reason"] or row["stage"] else "",
                "split": row["split"] or "",
                "turns": row["turns"],
                "instruction words": row["prompt_words"],
                "answer words": row["answer_words"],
                # A narrow window cuts what stands last.
                "answer": markup.line(answer),
            }
        )
    return pl.DataFrame(lines, infer_schema_length=None)
