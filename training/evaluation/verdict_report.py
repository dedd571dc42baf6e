"""A verdict as a page: verdict.md beside verdict.json."""

from __future__ import annotations

from collections.abc import Iterator

from siftune.curation.atomic_files import write_json, write_text
from siftune.curation.markdown import Raw, escape, table
from siftune.curation.review.arm_facts import arm_notes
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation import judge_report
from siftune.training.evaluation.formatting import (
    format_interval,
    format_number,
    format_p,
    format_share,
    format_stratum,
)
from siftune.training.evaluation.tasks import task_report
from siftune.training.evaluation.verdict import Verdict
from siftune.training.evaluation.verdict_sentences import STAGES_NOTE, noise_sentence


def write_verdict(verdict: Verdict, run: RunFolder) -> None:
    """Write verdict.json and verdict.md."""
    write_json(verdict.to_dict(), run.verdict_json)
    write_text(markdown(verdict), run.verdict_markdown)


def markdown(verdict: Verdict) -> str:
    """The verdict, the differences, the strata, what each arm used, repeated text, and how it was computed."""
    lines = ["# Verdict", "", f"**{verdict.headline}**", ""]
    lines += [f"- {comparison.sentence}" for comparison in verdict.declared]
    lines += ["", f"*{verdict.condition}*", "", noise_sentence(verdict.run_noise)]
    lines += ["", *([verdict.noise_floor.sentence, ""] if verdict.noise_floor else [])]
    lines += [
        (
            f"Budget of every arm: **{verdict.budget}**. Evaluated on {verdict.rows:,} held-out rows in "
            f"{verdict.groups:,} groups of similar rows, {verdict.tokens:,} answer tokens, the same for all arms."
        ),
        *_precision(verdict),
        "",
        (
            "Loss is the negative log-likelihood of the reference answers in nats; lower is better. A difference is "
            "first arm − second arm: **negative means that the first arm is better**."
        ),
        "",
        *table(["arm", "nats per token"], [[arm, f"{loss:.4f}"] for arm, loss in verdict.losses.items()]),
        *_differences(verdict),
        *_stages(verdict),
        *_strata(verdict),
        *task_report.markdown_lines(verdict.tasks),
        *judge_report.markdown_lines(verdict.judge),
        *_usage(verdict),
        *_memorization(verdict),
        "## How it was computed",
        "",
        (
            f"Rows are paired; groups of similar rows are resampled ({verdict.bootstrap:,} draws, studentised "
            f"bootstrap) and their signs flipped ({verdict.permutations:,} draws, or all patterns when these are "
            f"fewer); seed {verdict.seed}. The noise of training runs is that of an additive model of arm and seed "
            "with one variance for all arms; Student's t of its degrees of freedom is added to the noise of the rows. "
            "With one seed it is not known, and no arm is called better or worse. The p values of declared comparisons "
            "are adjusted together (Holm); those of exploratory ones are not, so they prove nothing. An arm is called "
            "better or worse only where the interval excludes zero and p (Holm's where declared) is below 0.05. The "
            "minimum detectable effect is the smallest true difference that is detected with 80 % power. A lower loss "
            "means that the arm assigns a higher probability to the reference answers; its own answers need not be "
            "better to a person."
        ),
        "",
    ]
    return "\n".join(lines)


def _precision(verdict: Verdict) -> Iterator[str]:
    """How exact the declared differences are, and what a limit on the rows costs."""
    errors = [(comparison.name, comparison.difference.per_token.se) for comparison in verdict.declared]
    stated = [f"{se:.4f} ({name})" for name, se in errors if se is not None]
    if stated:
        yield (
            f"Precision with these rows and runs: standard error {', '.join(stated)} nats per token. A limit on the "
            "rows (`compare.max_rows`) saves time: a quarter of the rows doubles the part of it that comes from rows."
        )


def _differences(verdict: Verdict) -> Iterator[str]:
    yield from ["## Differences", ""]
    head = ["comparison", "kind", "nats per token", "nats per token, mean over rows", "rows improved", "p", "Holm p"]
    head += ["minimum detectable effect", "outcome"]
    rows = []
    for comparison in verdict.comparisons:
        difference = comparison.difference
        rows.append(
            [
                comparison.name,
                "declared" if comparison.declared else "exploratory",
                Raw(format_interval(difference.per_token)),
                Raw(format_interval(difference.per_row)),
                Raw(format_share(difference.improved)),
                Raw(format_p(difference.p)),
                Raw(format_p(comparison.p_adjusted)),
                format_number(difference.per_token.minimum_detectable_effect, signed=False),
                comparison.outcome,
            ]
        )
    yield from table(head, rows)
    if notes := arm_notes(verdict.losses):
        yield from [*(f"- {escape(note)}" for note in notes), ""]


def _stages(verdict: Verdict) -> Iterator[str]:
    if not verdict.stages:
        return
    yield from ["## What each stage contributes (exploratory)", "", STAGES_NOTE, ""]
    rows = []
    for stage in verdict.stages:
        estimate = stage.difference.per_token if stage.difference else None
        rows.append(
            [
                stage.stage,
                stage.arm,
                format_number(stage.rows, digits=0),
                Raw(format_interval(estimate)) if estimate else "the same rows",
                Raw(format_p(stage.difference.p if stage.difference else None)),
                format_number(estimate.minimum_detectable_effect if estimate else None, signed=False),
                stage.outcome or "—",
            ]
        )
    head = ["stage", "arm without it", "training rows, arm − curated", "curated − arm, nats per token", "p"]
    yield from table([*head, "minimum detectable effect", "outcome"], rows)
    yield from [*(f"- {escape(stage.known)}" for stage in verdict.stages), ""]


def _strata(verdict: Verdict) -> Iterator[str]:
    if not verdict.declared:
        return
    yield from ["## By stratum (exploratory)", ""]
    rows = [
        [
            comparison.name,
            *format_stratum(stratum.column, stratum.value),
            f"{stratum.difference.rows:,}",
            Raw(format_interval(stratum.difference.per_token)),
        ]
        for comparison in verdict.declared
        for stratum in comparison.strata
    ]
    yield from table(["comparison", "stratum", "value", "rows", "nats per token"], rows)


def _usage(verdict: Verdict) -> Iterator[str]:
    yield from ["## What each arm used", ""]
    head = ["arm", "seed", "usable rows", "cut or left out", "rows trained on", "steps", "trained tokens", "minutes"]
    rows = []
    for usage in verdict.usage:
        counts = (usage.arm_rows, usage.truncated_rows, usage.rows, usage.steps, usage.tokens)
        rows.append([usage.arm, str(usage.seed), *(f"{count:,}" for count in counts), f"{usage.minutes:.1f}"])
    yield from table(head, rows)
    if any(usage.truncated_rows for usage in verdict.usage):
        yield from [
            "Rows are cut at `training.max_length`, and left out where no answer is left; the ledger lists them.",
            "",
        ]
    if verdict.curated_away:
        removed = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in verdict.curated_away.items())
        yield from [f"Removed from raw by curation: {removed}.", ""]


def _memorization(verdict: Verdict) -> Iterator[str]:
    if not verdict.memorization:
        return
    yield from [
        "## Memorization",
        "",
        "The longest run of words that an answer to the prompt suite shares with an answer the arm was trained on.",
        "",
    ]
    head = ["arm", "answers", "words, mean", "words, longest", "share of the answer, mean"]
    rows = [
        [arm.arm, str(arm.answers), f"{arm.mean_words:.1f}", str(arm.longest_words), f"{arm.mean_share:.0%}"]
        for arm in verdict.memorization
    ]
    yield from table(head, rows)
