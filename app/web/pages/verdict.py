"""Verdict: whether curation helped, how sure that is, and what may not be concluded."""

from __future__ import annotations

from typing import Any

import streamlit as st

from siftune.app.web import charts, markup, state, training_queries
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.statistics import Estimate
from siftune.training.evaluation.verdict_report import interval, number, p_words
from siftune.training.evaluation.votes import tallies


def verdict() -> None:
    """Draw the page."""
    run = state.open_run()
    said = training_queries.verdict(run)
    if said is None:
        markup.draw(markup.problem(training_queries.what_next(run)))
    else:
        _judged(said)
    _votes(run)


def _judged(said: dict[str, Any]) -> None:
    markup.draw(markup.lead(training_queries.sentence(said)))
    markup.draw(markup.prose(said["headline"]))
    markup.draw(markup.note(said["condition"]))
    markup.draw(
        markup.facts(
            [
                ("budget of every arm", said["budget"]),
                ("held-out rows", f"{said['rows']:,}"),
                ("groups of similar rows", f"{said['groups']:,}"),
                ("answer tokens", f"{said['tokens']:,}"),
                *((f"{name.replace('_', ' ')} curated away", f"{n:,}") for name, n in _away(said).items()),
            ]
        )
    )
    st.subheader("Difference in held-out loss, nats per token")
    # Any training moves the loss so far from the base's that the arms would fall together beside it.
    between = [each for each in said["comparisons"] if BASE not in (each["arm"], each["against"])]
    lines = [line for each in between or said["comparisons"] if (line := training_queries.plotted(each))]
    if lines:
        st.altair_chart(charts.intervals(lines, title="left of zero: the first arm is better"))
    _table(said["comparisons"])
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader("Loss of each arm")
        losses = [(markup.Markup(markup.tag(arm, arm)), f"{loss:.4f}") for arm, loss in said["losses"].items()]
        markup.draw(markup.table(["arm", "per token"], losses, numbers=(1,)))
    with right:
        st.subheader("What each arm used")
        used = [
            (
                markup.Markup(markup.tag(each["arm"], each["arm"])),
                each["seed"],
                f"{each['tokens']:,}",
                f"{each['minutes']:.1f}",
                f"{each['steps']:,}",
                f"{each['rows']:,}",
            )
            for each in said["usage"]
        ]
        markup.draw(
            markup.table(["arm", "seed", "trained tokens", "minutes", "steps", "rows"], used, numbers=(1, 2, 3, 4, 5))
        )
    _strata(said["comparisons"])
    _beside(said)
    _conclusions()


def _table(comparisons: list[dict[str, Any]]) -> None:
    rows = []
    for each in comparisons:
        difference = each["difference"]
        kind = "declared" if each["declared"] else "exploratory"
        rows.append(
            (
                markup.named(f"{each['arm']} − {each['against']}", kind),
                interval(Estimate(**difference["per_token"])),
                training_queries.percent(difference["improved"]),
                p_words(each["p_adjusted"] if each["declared"] else difference["p"]),
                number(difference["per_token"]["detectable"], signed=False),
                each["word"],
            )
        )
    head = ["comparison", "per token [95 %]", "rows improved", "p (Holm where declared)", "detectable", "verdict"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4)))
    markup.draw(markup.note("Detectable: the smallest true difference that would be found four times out of five."))


def _strata(comparisons: list[dict[str, Any]]) -> None:
    with_strata = [each for each in comparisons if each["strata"]]
    if not with_strata:
        return
    st.subheader("On which rows")
    names = [f"{each['arm']} − {each['against']}" for each in with_strata]
    chosen = st.segmented_control("Comparison", names, default=names[0], required=True, label_visibility="collapsed")
    each = with_strata[names.index(str(chosen))]
    lines = [line for stratum in each["strata"] if (line := training_queries.plotted_stratum(stratum))]
    if lines:
        st.altair_chart(charts.intervals(lines, title="difference per token; left of zero: the first arm is better"))
    markup.draw(
        markup.note("Strata are looked at after the fact and not adjusted: they raise questions, they settle none.")
    )


def _away(said: dict[str, Any]) -> dict[str, int]:
    return dict(said["curated_away"] or {})


def _beside(said: dict[str, Any]) -> None:
    if said["emission"]:
        st.subheader("Training text repeated in answers")
        rows = [
            (markup.Markup(markup.tag(each["arm"], each["arm"])), each["answers"], f"{each['mean_words']:.1f}",
             each["longest_words"], f"{each['mean_share']:.0%}")
            for each in said["emission"]
        ]  # fmt: skip
        head = ["arm", "answers", "longest run of words, mean", "most", "share of the answer"]
        markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4)))


def _conclusions() -> None:
    with st.expander("What may and may not be concluded"):
        markup.draw(
            markup.prose(
                "May: that on held-out rows of this data, under this budget and with this base model, one arm expects "
                "the reference answers more than another, where the verdict says so.\n\n"
                "May not: that its answers are better to a person (vote blind in Chat for that); that another model, "
                "budget or data set would say the same; that two arms are equal because no difference was found: "
                "compare with the detectable difference; that a stratum or an exploratory comparison proves anything."
            )
        )


def _votes(run: RunFolder) -> None:
    st.subheader("Blind votes")
    found = tallies(run)
    if not found:
        markup.draw(markup.note("Nobody has voted yet. Turn on blind mode in Chat and vote."))
        return
    rows = []
    for each in found:
        result = each.result
        share = (
            f"{result.share:.0%} [{result.low:.0%}, {result.high:.0%}]"
            if result.share is not None
            else "no side chosen"
        )
        more = "even so far" if result.needed is None else f"{result.needed:,}"
        rows.append(
            (
                f"{each.first} against {each.second}",
                result.wins,
                result.losses,
                result.ties,
                share,
                p_words(result.p),
                more,
            )
        )
    head = [
        "arms",
        "for the first",
        "for the second",
        "ties, both bad",
        "share for the first [exact 95 %]",
        "p",
        "more votes needed",
    ]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4, 5, 6)))
    markup.draw(
        markup.note("More votes needed: to find the share seen so far, if it is the true one, four times out of five.")
    )
