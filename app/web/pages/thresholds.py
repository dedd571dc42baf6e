"""Thresholds: what another threshold would drop, replayed from stored pairs, and its precision by the user's labels."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import charts, markup, state
from siftune.app.web.components import layout
from siftune.curation.dedup.near import NearDuplicates
from siftune.curation.dedup.repeated_answers import RepeatedAnswers
from siftune.curation.review import charts as shared_charts
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.labels import precision, propose, read_labels, write_label
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import ThresholdStage, threshold_stages, with_scores
from siftune.curation.review.tables import benchmark_table
from siftune.curation.review.wording import (
    false_discovery_note,
    false_discovery_text,
    score_text,
    threshold_text,
)
from siftune.curation.run.folder import RunFolder

PURPOSE = "Move a threshold, see what it would drop, and label the pairs next to it to measure how often it is right."
#: Pairs next to the threshold that can be labelled, half of them on each side: 36 without a mistake prove 90 %.
MOST_PAIRS = 50
#: Pairs without a mistake that prove a precision of 90 %.
_NEEDED = 36
_QUESTIONS = {CONTAMINATION: "Is the row this item?", RepeatedAnswers.name: "Is this the same answer?"}


def thresholds() -> None:
    """Draw the page."""
    run = state.open_run()
    catalogue = state.catalogue(run)
    markup.draw(markup.purpose(PURPOSE))
    stages = {stage.name: stage for stage in threshold_stages(run)}
    if not stages:
        markup.draw(
            markup.notice(
                markup.with_code(
                    "No stage of this run has a threshold: the recipe turns off all of them under `duplicates:`."
                )
            )
        )
        return
    # Two fixed parts: what is drawn above may grow and shrink while a label is on its way to the part below.
    above, below = st.container(), st.container()
    with above:
        stage, chosen = _threshold(run, stages)
    with below:
        # A label changes nothing above, so that only this part is drawn again and the next pair is there at once.
        st.fragment(_labels)(catalogue, stage, chosen)


def _threshold(run: RunFolder, stages: dict[str, ThresholdStage]) -> tuple[str, float]:
    """The slider of the chosen stage and what its threshold does; returns the stage and the threshold."""
    stage = stages[_stage_name(stages)]
    chosen = st.slider(
        f"Threshold: {stage.similarity.measure}",
        min_value=float(stage.similarity.floor),
        max_value=1.0,
        value=float(stage.similarity.threshold),
        step=0.01,
        key=f"threshold {stage.name}",
    )
    _effect(run, stage.name, chosen, stage.similarity.threshold)
    pairs = "Matches" if stage.name == CONTAMINATION else "Stored pairs"
    histogram = state.score_histogram(run, stage.name, chosen)
    guarded = "" if stage.name == CONTAMINATION else state.reached_pairs(run, stage.name, chosen).sentence
    but = ", except guarded pairs" if guarded else ""
    headline = f"{pairs} by similarity: what stands right of the line is decided as the same{but}"
    with shared_charts.unchecked():
        chart = shared_charts.scores(histogram, threshold=chosen)
        st.altair_chart(chart.properties(height=230, title=charts.heading(headline)))
    for sentence in filter(None, (guarded, *_conditions(run, stage.name))):
        markup.draw(markup.note(markup.with_code(sentence)))
    if stage.name == CONTAMINATION:
        _benchmarks(run, chosen)
    return stage.name, chosen


def _conditions(run: RunFolder, stage: str) -> list[str]:
    """What else the recipe asks of two rows before one of them is dropped."""
    duplicates = run.recipe.duplicates
    if stage == NearDuplicates.name and duplicates.near is not None:
        lowest = f"{duplicates.near.answers:g} (`near: answers:`)"
        if run.recipe.keys.duplicates == "dialogue":
            return [f"Answers have to be alike, too: at least {lowest}, however low the threshold is."]
        return [f"Rows less similar than {lowest} are no duplicates, however low the threshold is."]
    if stage == RepeatedAnswers.name and duplicates.answers is not None:
        most = duplicates.answers.max_per_answer
        rows = "1 row" if most == 1 else f"{most} rows"
        return [f"Up to {rows} may have the same answer (`answers: max_per_answer:`); what is above is dropped."]
    return []


def _stage_name(stages: dict[str, ThresholdStage]) -> str:
    """The stage that the user chooses; at first the one of the address."""
    version = st.session_state.get("thresholds_version", 0)
    start = st.session_state.get("thresholds_link")
    if (params := state.arrived("Thresholds")) is not None:
        version += 1
        start = next(iter(params.get("stage", [])), None)
        st.session_state["thresholds_version"], st.session_state["thresholds_link"] = version, start
        if start not in stages:
            markup.draw(markup.notice("The address asks for a stage that has no threshold in this run."))
    name = st.segmented_control(
        "Stage",
        list(stages),
        default=start if start in stages else next(iter(stages)),
        required=True,
        format_func=lambda name: stages[name].title,
        label_visibility="collapsed",
        key=f"stage of thresholds {version}",
    )
    state.show_address("Thresholds", {"stage": [str(name)]})
    return str(name)


def _effect(run: RunFolder, stage: str, chosen: float, current: float) -> None:
    """Rows dropped and left at the chosen threshold, with the difference from the run's own."""
    count = state.token_lengths(run)
    unit = "words" if count.ready is None else "tokens"
    effect = state.threshold_effect(run, stage, chosen, count.ready)
    settings = run.recipe.contamination
    if stage == CONTAMINATION and settings is not None and settings.action == "report":
        decided = (f"Reported by {stage}", effect.chosen.reported, effect.current.reported, "rows")
    else:
        decided = (f"Dropped by {stage}", effect.chosen.dropped, effect.current.dropped, "rows")
    numbers = (
        decided,
        ("Rows left", effect.chosen.left, effect.current.left, "rows"),
        (f"{unit.capitalize()} left", effect.chosen.length, effect.current.length, unit),
    )
    for column, (label, number, before, name) in zip(st.columns(3), numbers, strict=True):
        change = f"{number - before:+,} {name}" if number != before else None
        column.metric(label, f"{number:,}", change, delta_color="off", delta_arrow="off")
    sentences = ["Rows left are counted before splits and balance."]
    if count.ready is not None:
        sentences.append(f"Tokens of instruction and answer by the tokenizer of {count.ready.tokenizer}.")
    elif count.fault:
        sentences.append(count.fault)
    if chosen != current:
        sentences.append(f"Compared with the run's own threshold, {current:.2f}; replayed from stored pairs.")
    markup.draw(markup.note(" ".join(sentences)))
    if count.fault == state.WORDS_ONLY:
        st.button("Count tokens", on_click=state.ask_for_tokens, type="tertiary")
    if not count.finished:
        _count_progress()
    if effect.unmeasured:
        markup.draw(
            markup.note(
                f"{effect.unmeasured:,} more rows would reach a later stage that did not measure them in this run; "
                "here they count as kept. Curate again for the exact result."
            )
        )


def _benchmarks(run: RunFolder, chosen: float) -> None:
    """For each benchmark the rows that match it at the chosen threshold, and how many are estimated to be false."""
    lines = benchmark_table(run, chosen).to_dicts()
    rows = [
        (
            line["benchmark"],
            f"{line['same']:,}",
            f"{line['related']:,}",
            threshold_text(line["threshold"]),
            false_discovery_text(line),
        )
        for line in lines
    ]
    columns = ["benchmark", "rows: same item", "rows: related item", "threshold", "estimated false discovery rate"]
    markup.draw(markup.table(columns, rows, numbers=(1, 2, 3)))
    settings = run.recipe.contamination
    markup.draw(markup.note(false_discovery_note(settings.max_false_discovery if settings else None)))


@st.fragment(run_every=1.0)
def _count_progress() -> None:
    """Progress of the token count; the page shows the tokens by itself when they are counted."""
    count = state.token_lengths(state.open_run())
    if count.finished:
        st.rerun()
    markup.draw(markup.note(f"Counting tokens, once for this run: {count.done:,} of {count.rows:,} rows."))


def _labels(catalogue: Catalogue, stage: str, chosen: float) -> None:
    """The pairs nearest to the threshold, one at a time, for the user to label."""
    run = catalogue.run
    labels = read_labels(run, stage)
    st.subheader(_QUESTIONS.get(stage, "Are these rows duplicates?"))
    pairs = state.borderline(run, stage, chosen, MOST_PAIRS).to_dicts()
    guarded = state.borderline(run, stage, chosen, MOST_PAIRS, guarded=True).to_dicts()
    if not pairs and not guarded:
        markup.draw(markup.note("This stage stored no pair: no two rows are so alike."))
        return
    if guarded:
        shows_guarded = not pairs
        if pairs:
            names = {False: f"Pairs to label ({len(pairs)})", True: f"Guarded pairs ({len(guarded)})"}
            shows_guarded = bool(
                st.segmented_control(
                    "Pairs",
                    list(names),
                    default=False,
                    required=True,
                    format_func=names.__getitem__,
                    key=f"pairs of {stage}",
                    label_visibility="collapsed",
                )
            )
        if shows_guarded:
            _guarded(catalogue, stage, guarded)
            return
    reaching = sum(pair["score"] >= pair["threshold"] for pair in pairs)
    _precision(with_scores(run, stage, labels, threshold=chosen), chosen, reaching=reaching)
    labelled = {(label["a"], label["b"]): bool(label["same"]) for label in labels.to_dicts()}
    index = _pair_index(stage, pairs, labelled)
    pair = pairs[index]
    side = "at or above" if pair["score"] >= pair["threshold"] else "below"
    markup.draw(
        markup.note(
            f"Pair {index + 1} of the {len(pairs)} nearest to the threshold: similarity {score_text(pair['score'])}, "
            f"{side} the threshold {threshold_text(pair['threshold'])}."
        )
    )
    if pair["detail"]:
        markup.draw(markup.note(pair["detail"]))
    _label_buttons(run, stage, pair, label=labelled.get((pair["a"], pair["b"])), index=index, count=len(pairs))
    layout.side_by_side(catalogue, pair["a"], pair["b"], stage=stage)


def _guarded(catalogue: Catalogue, stage: str, pairs: list[dict[str, Any]]) -> None:
    """The guarded pairs nearest to the threshold, one at a time; without labels: no threshold decides about them."""
    walk = layout.Walk(f"guarded {stage}", len(pairs), len(pairs))
    pair = pairs[walk.at]
    markup.draw(
        markup.note(
            "Guarded pairs differ in a number, a name, a negation or what is asked: they stay whatever the threshold. "
            "So there is nothing to label, and the precision leaves them out."
        )
    )
    walk.draw(walk.at, "guarded pair")
    detail = f"; {pair['detail']}" if pair["detail"] else ""
    markup.draw(markup.note(f"Similarity {score_text(pair['score'])}{detail}"))
    layout.side_by_side(catalogue, pair["a"], pair["b"], stage=stage)


def _pair_index(stage: str, pairs: list[dict[str, Any]], labelled: dict[tuple[str, str], bool]) -> int:
    """The index of the pair that is shown: the one the user moved to, else the first without a label."""
    key = f"pair of {stage}"
    if key not in st.session_state:
        unlabelled = [index for index, pair in enumerate(pairs) if (pair["a"], pair["b"]) not in labelled]
        st.session_state[key] = unlabelled[0] if unlabelled else 0
    return min(int(st.session_state[key]), len(pairs) - 1)


def _label_buttons(
    run: RunFolder, stage: str, pair: dict[str, Any], *, label: bool | None, index: int, count: int
) -> None:
    """Buttons to label a pair and to move to another one.

    Args:
        run: the run.
        stage: the stage that measured the pair.
        pair: a row of PAIRS.
        label: the present label, None without one.
        index: the index of the pair.
        count: how many pairs there are.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        for text, value, key in (("Same", True, "S"), ("Different", False, "D")):
            st.button(
                text,
                key=f"{text} {stage}",
                type="primary" if label is value else "secondary",
                width=170,
                shortcut=key,
                on_click=_write_label,
                args=(run, stage, pair, value, min(index + 1, count - 1)),
            )
        for text, name, key, target in (("Skip", "next", "N", index + 1), ("Previous", "back", "P", index - 1)):
            st.button(
                text,
                key=f"{name} {stage}",
                disabled=not 0 <= target < count,
                width=130,
                shortcut=key,
                on_click=_move_to,
                args=(stage, target),
            )


def _write_label(run: RunFolder, stage: str, pair: dict[str, Any], same: bool, following: int) -> None:  # noqa: FBT001
    write_label(run, a=pair["a"], b=pair["b"], measure=stage, same=same)
    _move_to(stage, following)


def _move_to(stage: str, index: int) -> None:
    st.session_state[f"pair of {stage}"] = index


def _precision(labelled: pl.DataFrame, chosen: float, *, reaching: int) -> None:
    """What the labels say of the stage; `reaching` pairs at or above the threshold can be labelled on this page."""
    above = precision(labelled.filter("decided"), chosen)
    if above.value is None:
        markup.draw(markup.note("Label some pairs to estimate the precision of the stage at this threshold."))
        return
    is_one = above.labelled == 1
    judged = (
        f"The one labelled pair at or above {chosen:.2f} is {'the same' if above.same else 'different'}: "
        if is_one
        else f"Of {above.labelled} labelled pairs at or above {chosen:.2f}, {above.same} "
        f"{'is' if above.same == 1 else 'are'} the same: "
    )
    sentence = f"{judged}precision {above.value:.0%}, exact 95 % interval {above.low:.0%} to {above.high:.0%}."
    proposed = propose(labelled)
    advice = (
        f"The labels support a precision of at least 90 % at thresholds of {proposed:.2f} and above."
        if proposed is not None
        else "The labels do not yet support a precision of 90 % at any threshold; that takes 36 pairs without a mistake"
        + (f", and this threshold has only {reaching}." if reaching < _NEEDED and reaching < MOST_PAIRS // 2 else ".")
    )
    markup.draw(markup.headline(f"{sentence} {advice}"))
    markup.draw(
        markup.note("Pairs near the threshold are the hardest, so this estimate is more likely too low than too high.")
    )
