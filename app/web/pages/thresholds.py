"""Thresholds: what another threshold would do, replayed from stored pairs, and what the user's eye says of it."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import charts, markup, queries, state
from siftune.app.web.components import layout
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.labels import precision, propose, read_labels, write_label

_NAMES = {"near": "Near duplicates", "semantic": "Semantic duplicates", "answers": "Repeated answers"}


def thresholds() -> None:
    """Draw the page."""
    run = state.open_run()
    found = state.catalogue(run)
    names = queries.measures(run)
    if not names:
        markup.draw(
            markup.problem("This run has no stage with a threshold: the recipe set near, semantic and answers to null.")
        )
        return
    name = st.segmented_control(
        "Stage", names, default=names[0], required=True, format_func=_NAMES.__getitem__, label_visibility="collapsed"
    )
    settings = getattr(run.recipe.duplicates, str(name))
    chosen = st.slider(
        "Rows at least this similar are duplicates",
        min_value=float(settings.floor),
        max_value=1.0,
        value=float(settings.threshold),
        step=0.01,
        key=f"threshold {name}",
    )
    _change(found, str(name), chosen, float(settings.threshold))
    st.altair_chart(charts.threshold_line(queries.pair_histogram(run, str(name)), threshold=chosen))
    _labels(found, str(name), chosen)


def _change(found: Catalogue, name: str, chosen: float, present: float) -> None:
    counting = state.token_lengths(found.run)
    unit = "words" if counting.ready is None else "tokens"
    effect = state.replayed(found, name, chosen, counting.ready)
    numbers = (
        (f"Dropped by {name}", effect.dropped, effect.dropped_now, "rows"),
        ("Rows left", effect.left, effect.left_now, "rows"),
        (f"{unit.capitalize()} left", effect.length, effect.length_now, unit),
    )
    for column, (label, then, now, unit) in zip(st.columns(3), numbers, strict=True):
        change = f"{then - now:+,} {unit}" if then != now else None
        column.metric(label, f"{then:,}", change, delta_color="off", delta_arrow="off")
    told = "What is left is counted before splitting and balancing."
    if counting.ready is not None:
        told += f" Tokens of {counting.ready.tokenizer}, of instruction and answer."
    elif counting.fault:
        told += f" {counting.fault}"
    if chosen != present:
        told += f" Against the run's own threshold, {present:.2f}; nothing is measured anew."
    markup.draw(markup.note(told))
    if not counting.ended:
        _counting()
    if effect.unmeasured:
        markup.draw(
            markup.note(
                f"{effect.unmeasured:,} rows would reach a stage that did not measure them; it cannot drop them here."
            )
        )


@st.fragment(run_every=1.0)
def _counting() -> None:
    """How far the counting of tokens is; the page shows them by itself when they are there."""
    counting = state.token_lengths(state.open_run())
    if counting.ended:
        st.rerun()
    markup.draw(markup.note(f"Counting tokens, once for this run: {counting.done:,} of {counting.rows:,} rows."))


def _labels(found: Catalogue, name: str, chosen: float) -> None:
    run = found.run
    labels = read_labels(run, name)
    scored = queries.labelled(run, name, labels)
    st.subheader("Are they the same?")
    _precision(scored, chosen)
    pairs = queries.borderline(run, name, chosen)
    if pairs.is_empty():
        markup.draw(markup.note("There is no stored pair near this threshold."))
        return
    said = {(line["a"], line["b"]): bool(line["same"]) for line in labels.to_dicts()}
    lines = pairs.to_dicts()
    place = _which(name, lines, said)
    line = lines[place]
    side = "at or above" if line["score"] >= chosen else "below"
    markup.draw(
        markup.note(
            f"Pair {place + 1} of the {len(lines)} nearest to the threshold: similarity {line['score']:.4f}, {side} it."
        )
    )
    _ask(found, name, line, said, place, len(lines))
    layout.side_by_side(found, line["a"], line["b"])


def _which(name: str, lines: list[dict[str, Any]], said: dict[tuple[str, str], bool]) -> int:
    """The pair that is shown: the one the user turned to, or the first one without a label."""
    key = f"pair of {name}"
    if key not in st.session_state:
        fresh = [place for place, line in enumerate(lines) if (line["a"], line["b"]) not in said]
        st.session_state[key] = fresh[0] if fresh else 0
    return min(int(st.session_state[key]), len(lines) - 1)


def _ask(
    found: Catalogue, name: str, line: dict[str, Any], said: dict[tuple[str, str], bool], place: int, count: int
) -> None:
    before = said.get((line["a"], line["b"]))
    same, different, back, forth = st.columns([2, 2, 1, 1])
    for column, text, value in ((same, "Same", True), (different, "Different", False)):
        column.button(
            text,
            key=f"{text} {name}",
            type="primary" if before is value else "secondary",
            width="stretch",
            on_click=_label,
            args=(found, name, line, value, place, count),
        )
    back.button(
        "Back", key=f"back {name}", disabled=place == 0, width="stretch", on_click=_turn, args=(name, place - 1)
    )
    forth.button(
        "Next", key=f"next {name}", disabled=place >= count - 1, width="stretch", on_click=_turn, args=(name, place + 1)
    )


def _label(found: Catalogue, name: str, line: dict[str, Any], value: bool, place: int, count: int) -> None:  # noqa: FBT001
    write_label(found.run, a=line["a"], b=line["b"], measure=name, same=value)
    _turn(name, min(place + 1, count - 1))


def _turn(name: str, place: int) -> None:
    st.session_state[f"pair of {name}"] = place


def _precision(scored: pl.DataFrame, chosen: float) -> None:
    above = precision(scored, chosen)
    if above.value is None:
        markup.draw(markup.note("Label some pairs: the page then says how often the stage is right at this threshold."))
        return
    words = (
        f"Of {above.all} labelled pairs at or above {chosen:.2f}, {above.yes} are the same: "
        f"precision {above.value:.0%}, exact 95 % interval {above.low:.0%} to {above.high:.0%}."
    )
    better = propose(scored)
    hint = (
        f" From {better:.2f} on, the labels support a precision of at least 90 %."
        if better is not None
        else " The labels do not yet support 90 % at any threshold; with no mistake it takes 36."
    )
    markup.draw(markup.lead(words + hint))
    markup.draw(markup.note("Pairs close to the threshold are the hardest, so this is rather too low than too high."))
