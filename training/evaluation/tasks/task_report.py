"""The results of tasks in words and tables, the same in verdict.md and on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from siftune.curation.markdown import Raw, table
from siftune.training.evaluation.formatting import format_interval, format_number, format_p
from siftune.training.evaluation.tasks.comparisons import TaskComparison, TaskResult


def markdown_lines(results: Sequence[TaskResult]) -> Iterator[str]:
    """The section on tasks of verdict.md; nothing where there are no tasks."""
    if not results:
        return
    yield from ["## Tasks", "", *(f"- {sentence}" for sentence in coverage_sentences(results)), ""]
    arms = list(dict.fromkeys(arm for result in results for arm in result.outcomes))
    rows = []
    for result in results:
        rows.append([result.label, result.measure, *_cells(result.outcomes, arms)])
        if result.second_measure:
            rows.append([result.label, result.second_measure, *_cells(result.accuracies, arms)])
    yield from table(["task", "mean over items and runs", *arms], rows)
    head = ["task", "comparison", "kind", "difference", "second measure", "p", "Holm p"]
    head += ["minimum detectable effect", "outcome"]
    yield from table(head, [_row(result, comparison) for result in results for comparison in result.comparisons])
    yield (
        "A difference is first arm − second arm: **positive means that the first arm is better**. Items are paired and "
        "clusters of items resampled, as rows and their groups are; where there are several training runs, their noise "
        "is in every interval and p. Declared comparisons of all secondary outcomes are adjusted together (Holm), "
        "those of the primary outcome by themselves. Exploratory ones, and the second measure (accuracy, or prompts "
        "followed loosely), are not adjusted."
    )
    yield ""


def coverage_sentences(results: Sequence[TaskResult]) -> list[str]:
    """For each task how many items count, and why others do not."""
    sentences = []
    for result in results:
        reasons = []
        if result.contaminated:
            reasons.append(f"{result.contaminated:,} that a training row of an arm holds")
        if result.left_out:
            unchecked = ", or that need data of nltk" if result.kind == "ifeval" else ""
            reasons.append(f"{result.left_out:,} that do not fit into the model's context{unchecked}")
        without = f"; left out: {' and '.join(reasons)}" if reasons else ""
        related = f"; {result.related:,} resemble a training row and stay" if result.related else ""
        primary = ", the primary outcome" if result.primary else ""
        sentences.append(
            f"{result.label}{primary}: {result.items:,} items in {result.clusters:,} clusters{without}{related}."
        )
    return sentences


def comparison_text(result: TaskResult, comparison: TaskComparison) -> str:
    """One comparison on one line: `quiz, curated − raw: +0.0120 [+0.0010, +0.0230], Holm p 0.031, better`."""
    p = format_p(comparison.p if comparison.p_adjusted is None else comparison.p_adjusted)
    kind = "p" if comparison.p_adjusted is None else "Holm p"
    difference = format_interval(comparison.difference)
    return f"{result.label}, {comparison.name}: {difference}, {kind} {p}, {comparison.outcome}"


def _cells(means: dict[str, float], arms: Sequence[str]) -> list[str]:
    return [format_number(means.get(arm), signed=False) for arm in arms]


def _row(result: TaskResult, comparison: TaskComparison) -> list[str]:
    difference = comparison.difference
    return [
        result.label,
        comparison.name,
        comparison.role,
        Raw(format_interval(difference)),
        Raw(format_interval(comparison.accuracy)) if comparison.accuracy else "",
        Raw(format_p(comparison.p)),
        Raw(format_p(comparison.p_adjusted)),
        format_number(difference.minimum_detectable_effect, signed=False),
        comparison.outcome,
    ]
