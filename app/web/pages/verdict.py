"""Verdict: whether curation helped, how certain that is, and what may not be concluded."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from siftune.app.web import charts, markup, state, training_queries
from siftune.curation.review.arm_facts import arm_notes
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation import judge_report
from siftune.training.evaluation.formatting import format_interval, format_number, format_p, format_share
from siftune.training.evaluation.tasks.task_report import coverage_sentences
from siftune.training.evaluation.verdict import Comparison, Verdict
from siftune.training.evaluation.verdict_sentences import STAGES_NOTE, noise_sentence
from siftune.training.evaluation.votes import PairVotes, votes_by_pair

PURPOSE = "Whether curation helped, how certain that is, and what may not be concluded."
_AXIS = "difference in nats per token"
_BETWEEN_ARMS = "Left of zero the first arm is better; an interval across zero proves nothing"
_BY_STAGE = "Left of zero the stage helps; an interval across zero proves nothing"
_BY_STRATUM = "Left of zero the first arm is better on these rows; exploratory"


def verdict() -> None:
    """Draw the page."""
    run = state.open_run()
    markup.draw(markup.purpose(PURPOSE))
    document = Verdict.read(run)
    if document is None:
        markup.draw(markup.notice(markup.with_code(training_queries.next_command(run))))
    else:
        _verdict(document)
    _votes(run)
    if document is not None:
        _judge(document)


def _verdict(verdict: Verdict) -> None:
    markup.draw(markup.headline(verdict.headline))
    for comparison in verdict.declared:
        markup.draw(markup.prose(comparison.sentence))
    markup.draw(markup.note(verdict.condition))
    markup.draw(markup.note(noise_sentence(verdict.run_noise)))
    if verdict.noise_floor:
        markup.draw(markup.note(verdict.noise_floor.sentence))
    markup.draw(
        markup.facts(
            [
                ("budget of every arm", verdict.budget),
                ("held-out rows", f"{verdict.rows:,}"),
                ("groups of similar rows", f"{verdict.groups:,}"),
                ("answer tokens", f"{verdict.tokens:,}"),
                *((f"{name.replace('_', ' ')} removed from raw", f"{n:,}") for name, n in verdict.curated_away.items()),
            ]
        )
    )
    st.subheader("Difference in held-out loss")
    # The base is left out: its distance from every trained arm would hide the differences between the arms.
    # Arms without a stage have a chart of their own.
    apart = {BASE, *(stage.arm for stage in verdict.stages)}
    between_arms = [c for c in verdict.comparisons if c.against not in apart]
    intervals = map(training_queries.comparison_interval, between_arms or verdict.comparisons)
    if lines := [interval for interval in intervals if interval is not None]:
        st.altair_chart(charts.intervals(lines, title=_AXIS, headline=_BETWEEN_ARMS))
    _comparisons(verdict.comparisons)
    for sentence in arm_notes(verdict.losses):
        markup.draw(markup.note(sentence))
    _stages(verdict)
    _tasks(verdict)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader("Loss of each arm")
        losses = [(_arm_tag(arm), f"{loss:.4f}") for arm, loss in verdict.losses.items()]
        markup.draw(markup.table(["arm", "nats per token"], losses, numbers=(1,)))
    with right:
        st.subheader("Training of each arm")
        trainings = [
            (
                _arm_tag(usage.arm),
                usage.seed,
                f"{usage.tokens:,}",
                f"{usage.minutes:.1f}",
                f"{usage.steps:,}",
                f"{usage.rows:,}",
            )
            for usage in verdict.usage
        ]
        head = ["arm", "seed", "trained tokens", "minutes", "steps", "rows"]
        markup.draw(markup.table(head, trainings, numbers=(1, 2, 3, 4, 5)))
    _strata(verdict.comparisons)
    _memorization(verdict)
    _conclusions()


def _arm_tag(arm: str) -> markup.Markup:
    return markup.Markup(markup.tag(arm, arm))


def _comparisons(comparisons: Sequence[Comparison]) -> None:
    rows = []
    for comparison in comparisons:
        difference = comparison.difference
        rows.append(
            (
                markup.cell_with_note(comparison.name, "declared" if comparison.declared else "exploratory"),
                format_interval(difference.per_token),
                format_share(difference.improved),
                format_p(comparison.p_adjusted if comparison.declared else difference.p),
                format_number(difference.per_token.minimum_detectable_effect, signed=False),
                comparison.outcome,
            )
        )
    head = ["comparison", "nats per token [95 % interval]", "rows improved", "p (Holm where declared)"]
    head += ["minimum detectable effect", "outcome"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4)))
    markup.draw(
        markup.note("Minimum detectable effect: the smallest true difference that is detected with 80 % power.")
    )


def _stages(verdict: Verdict) -> None:
    if not verdict.stages:
        return
    st.subheader("What each stage contributes")
    intervals = map(training_queries.stage_interval, verdict.stages)
    if lines := [interval for interval in intervals if interval is not None]:
        st.altair_chart(charts.intervals(lines, title=_AXIS, headline=_BY_STAGE))
    rows = []
    for stage in verdict.stages:
        estimate = stage.difference.per_token if stage.difference else None
        rows.append(
            (
                markup.cell_with_note(stage.stage, f"against {stage.arm}"),
                format_number(stage.rows, digits=0),
                format_interval(estimate) if estimate else "the same rows",
                format_p(stage.difference.p if stage.difference else None),
                format_number(estimate.minimum_detectable_effect if estimate else None, signed=False),
                stage.outcome or "—",
            )
        )
    head = ["stage", "training rows, arm − curated", "curated − arm, nats per token [95 % interval]", "p"]
    head += ["minimum detectable effect", "outcome"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4)))
    markup.draw(markup.note(STAGES_NOTE))
    with st.expander("What is known of the rows of these arms"):
        for stage in verdict.stages:
            markup.draw(markup.note(stage.known))


def _tasks(verdict: Verdict) -> None:
    if not verdict.tasks:
        return
    st.subheader("Tasks")
    for sentence in coverage_sentences(verdict.tasks):
        markup.draw(markup.note(sentence))
    rows = [
        (
            markup.cell_with_note(comparison.name, f"{task.label}, {comparison.role}"),
            format_interval(comparison.difference),
            format_p(comparison.p if comparison.p_adjusted is None else comparison.p_adjusted),
            format_number(comparison.difference.minimum_detectable_effect, signed=False),
            comparison.outcome,
        )
        for task in verdict.tasks
        for comparison in task.comparisons
    ]
    head = ["comparison", "difference of the outcome [95 % interval]", "p (Holm unless exploratory)"]
    head += ["minimum detectable effect", "outcome"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3)))
    markup.draw(markup.note("Positive: the first arm is better."))


def _strata(comparisons: Sequence[Comparison]) -> None:
    with_strata = {comparison.name: comparison for comparison in comparisons if comparison.strata}
    if not with_strata:
        return
    st.subheader("Difference by stratum")
    names = list(with_strata)
    name = st.segmented_control("Comparison", names, default=names[0], required=True, label_visibility="collapsed")
    intervals = map(training_queries.stratum_interval, with_strata[str(name)].strata)
    if lines := [interval for interval in intervals if interval is not None]:
        st.altair_chart(charts.intervals(lines, title=_AXIS, headline=_BY_STRATUM))
    markup.draw(
        markup.note("These intervals are exploratory and not adjusted for multiple comparisons: they prove nothing.")
    )


def _memorization(verdict: Verdict) -> None:
    if not verdict.memorization:
        return
    st.subheader("Training text repeated in answers")
    rows = [
        (_arm_tag(arm.arm), arm.answers, f"{arm.mean_words:.1f}", arm.longest_words, f"{arm.mean_share:.0%}")
        for arm in verdict.memorization
    ]
    head = ["arm", "answers", "longest repeated passage in words, mean", "maximum", "mean share of the answer"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4)))


def _conclusions() -> None:
    with st.expander("What may and may not be concluded"):
        markup.draw(
            markup.prose(
                "May: that on held-out rows of this data, under this budget and with this base model, one arm assigns "
                "a higher probability to the reference answers than another, where the outcome says better or worse."
                "\n\n"
                "May not: that its answers are better to a person (vote blind in Chat for that); that another model, "
                "budget or data set would give the same result; that two arms are equal because no difference was "
                "found (see the minimum detectable effect); that a stratum or an exploratory comparison proves "
                "anything."
            )
        )


def _votes(run: RunFolder) -> None:
    st.subheader("Blind votes")
    counted = votes_by_pair(run)
    if not counted:
        markup.draw(markup.note("There are no votes yet. Turn on blind mode in Chat and vote."))
        return
    head = ["arms", "votes for the first", "for the second", "ties, both bad", "share for the first [exact 95 %]"]
    head += ["p", "more votes needed"]
    markup.draw(markup.table(head, map(_vote_row, counted), numbers=(1, 2, 3, 4, 5, 6)))
    markup.draw(
        markup.note(
            "More votes needed: to detect a share as large as the observed one with 80 % power at the 5 % level."
        )
    )


def _judge(verdict: Verdict) -> None:
    if verdict.judge is None:
        return
    st.subheader(f"Answers compared by {verdict.judge.model}")
    rows = map(judge_report.pair_cells, verdict.judge.pairs)
    markup.draw(markup.table(list(judge_report.HEAD), rows, numbers=tuple(range(1, len(judge_report.HEAD)))))
    markup.draw(markup.note(judge_report.NOTE))
    sentences = judge_report.shortage_sentence(verdict.judge) + judge_report.agreement_sentence(verdict.judge)
    markup.draw(markup.note(sentences))


def _vote_row(tally: PairVotes) -> tuple[object, ...]:
    result = tally.result
    share = "—" if result.share is None else f"{result.share:.0%} [{result.low:.0%}, {result.high:.0%}]"
    needed = "— (even)" if result.needed is None else f"{result.needed:,}"
    arms = f"{tally.first} against {tally.second}"
    return arms, result.wins, result.losses, result.ties, share, format_p(result.p), needed
