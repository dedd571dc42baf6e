"""Browse: every row of the run, searched, filtered, sorted; one of them read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import polars as pl
import streamlit as st

from siftune.app.web import markup, state
from siftune.app.web.components import layout, row_details
from siftune.curation.review.catalogue import Catalogue, Order, Positions, Query

PAGE = 25
_ORDERS = {
    "row": "as they came",
    "prompt_words": "instruction length",
    "answer_words": "answer length",
    "turns": "turns",
}
_CHOICES = ("source", "fate", "stage", "reason", "split")


def browse() -> None:
    """Draw the page."""
    run = state.open_run()
    found = state.catalogue(run)
    query = _ask(found, state.wanted())
    hits, searched = _hits(query)
    if not searched:
        query = replace(query, text="")
    if st.session_state.get("browse_asked") != query:
        st.session_state["browse_asked"], st.session_state["browse_page"] = query, 0
    positions = found.find(query, hits)
    _counts(found, positions)
    if not len(positions):
        markup.draw(markup.problem("No row is like this. Take a filter away, or search for fewer words."))
        return
    chosen = _list(found, positions)
    st.divider()
    row_details.pane(found, chosen)


def _ask(found: Catalogue, start: Query) -> Query:
    """The search box and the filters. `start` is what another page asked for; a new one resets the widgets."""
    version = st.session_state.get("browse_version", 0)
    words, order, more = st.columns([6, 2.4, 1.6], vertical_alignment="bottom")
    text = words.text_input(
        "Search",
        value=start.text,
        key=f"text {version}",
        placeholder='words, "a phrase", begin*, -without',
        help="All words must occur, in the instruction or the answer.",
    )
    by = order.selectbox("Order", get_args(Order), format_func=_ORDERS.__getitem__, key=f"order {version}")
    down = more.toggle("Largest first", key=f"down {version}", value=start.descending)
    with st.expander("Filters", expanded=_any_filter(start)):
        picked = _choices(found, start, version)
        ranges = _ranges(found, start, version)
        group = start.group
        if group is not None and not st.checkbox(f"Only the group {group}", value=True, key=f"group {version}"):
            group = None
    return replace(Query(text=text.strip(), order=by, descending=down, group=group), **picked, **ranges)  # type: ignore[arg-type]


def _any_filter(query: Query) -> bool:
    return replace(query, text="", order="row", descending=False) != Query()


def _choices(found: Catalogue, start: Query, version: int) -> dict[str, tuple[str, ...]]:
    columns = st.columns(3)
    picked: dict[str, tuple[str, ...]] = {}
    for place, name in enumerate((*_CHOICES, "arm")):
        options = list(found.arms) if name == "arm" else found.values(name)
        before = [value for value in getattr(start, name) if value in options]
        chosen = columns[place % 3].multiselect(
            name.capitalize(),
            options,
            default=before,
            format_func=markup.line,
            key=f"{name} {version}",
            placeholder="any",
        )
        picked[name] = tuple(chosen)
    return picked


def _ranges(found: Catalogue, start: Query, version: int) -> dict[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    labels: dict[Order, str] = {
        "prompt_words": "Instruction words",
        "answer_words": "Answer words",
        "turns": "Turns",
    }
    columns = st.columns(6, vertical_alignment="bottom")
    for place, (name, label) in enumerate(labels.items()):
        before = getattr(start, name) or (None, None)
        low = columns[2 * place].number_input(
            label, min_value=0, value=before[0], step=1, placeholder="any", key=f"{name} from {version}"
        )
        high = columns[2 * place + 1].number_input(
            "to", min_value=0, value=before[1], step=1, placeholder="any", key=f"{name} to {version}"
        )
        if low is not None or high is not None:
            ranges[name] = (low or 0, found.longest(name) if high is None else high)
    return ranges


def _hits(query: Query) -> tuple[Positions | None, bool]:
    """Where the text was found, and whether it could be searched."""
    if not query.text:
        return None, True
    building = state.text_index(state.open_run())
    if building.ready is not None:
        return building.ready.search(query.text), True
    if building.fault:
        markup.draw(markup.problem(f"The search index could not be made: {building.fault}"))
    else:
        _progress()
    return None, False


@st.fragment(run_every=1.0)
def _progress() -> None:
    """How far the index is; the page searches by itself when it is ready."""
    building = state.text_index(state.open_run())
    if building.ready is not None or building.fault:
        st.rerun()
    st.progress(building.share, text="Making the search index, once for this run. Filters work meanwhile.")


def _counts(found: Catalogue, positions: Positions) -> None:
    fates = found.counts(positions, "fate")
    tags = "".join(markup.tag(f"{count:,} {fate}", fate) for fate, count in fates.items())
    markup.draw(f'<div class="sf">{markup.escaped(f"{len(positions):,} of {len(found):,} rows")} &nbsp; {tags}</div>')


def _list(found: Catalogue, positions: Positions) -> int:
    """One page of rows as a table to choose from; returns the position of the chosen row."""
    number = layout.pager("browse", -(-len(positions) // PAGE))
    page = found.page(positions, number, PAGE)
    frame = _table(found, page)
    event = st.dataframe(
        frame.to_pandas(),
        key=f"rows {number} {hash(page['position'].to_numpy().tobytes())}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [0]}},
        height=36 * (min(PAGE, page.height) + 1) if page.height <= 10 else 396,
        column_config={
            "id": st.column_config.TextColumn("row", width=125),
            "fate": st.column_config.TextColumn(width=85),
            "instruction": st.column_config.TextColumn(width=285),
            "answer": st.column_config.TextColumn(width=175),
            "why": st.column_config.TextColumn(width=125),
            "split": st.column_config.TextColumn(width=60),
            "turns": st.column_config.NumberColumn(width=55),
            "in": st.column_config.NumberColumn(width=55, help="Words in the instruction"),
            "out": st.column_config.NumberColumn(width=55, help="Words in the answer"),
        },
    )
    selected = event["selection"]["rows"]
    return int(page["position"][selected[0] if selected else 0])


def _table(found: Catalogue, page: pl.DataFrame) -> pl.DataFrame:
    previews = state.previews(found, page["position"].to_list())
    shown: list[dict[str, Any]] = []
    for row in page.to_dicts():
        prompt, answer = previews.get(row["position"], ("", ""))
        shown.append(
            {
                "id": markup.line(row["id"]),
                "fate": row["fate"],
                "instruction": markup.line(prompt),
                "answer": markup.line(answer),
                "why": markup.line(str(row["reason"] or row["stage"] or "").replace("_", " ")),
                "split": row["split"] or "",
                "turns": row["turns"],
                "in": row["prompt_words"],
                "out": row["answer_words"],
            }
        )
    return pl.DataFrame(shown, infer_schema_length=None)
