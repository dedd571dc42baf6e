"""A verdict in words. Every sentence follows from numbers that stand beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from siftune.training.arm_names import BASE
from siftune.training.evaluation.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from siftune.training.evaluation.verdict import Comparison, Difference, Verdict, Word

_KINDS = {"length_bin": "length", "source": "source", "leaked": "twin in raw"}


def worded(found: Iterable[tuple[Comparison, float | None]]) -> Iterator[Comparison]:
    """The comparisons with adjusted p, word and sentence filled in."""
    for each, adjusted in found:
        word = word_of(each.difference, each.difference.p if adjusted is None else adjusted)
        yield replace(
            each, p_adjusted=adjusted, word=word, sentence=_sentence(replace(each, p_adjusted=adjusted, word=word))
        )


def word_of(difference: Difference, p: float) -> Word:
    """Better or worse only where the interval excludes zero and `p` is below 0.05; lower loss is better."""
    if not difference.per_token.excludes_zero or p >= LEVEL:
        return "not enough evidence"
    return "better" if difference.per_token.value < 0 else "worse"


def condition(seeds: Mapping[str, Sequence[int]]) -> str:
    """What the verdict is conditional on."""
    runs = {arm: len(each) for arm, each in seeds.items() if arm != BASE}
    fewest = min(runs.values(), default=1)
    if fewest == 1:
        return (
            "Conditional on one training run of each arm: another seed could give another answer, and the intervals "
            "do not hold that. Train three seeds or more to judge the method and not the run."
        )
    spread = "the intervals include the spread between runs"
    few = "" if fewest >= 3 else "; with two runs that spread is barely known, so they are wide"
    return f"Over {fewest} training runs of each arm; {spread}{few}."


def headline(comparisons: Sequence[Comparison]) -> str:
    """The verdict in one or two sentences, from the declared comparisons."""
    declared = [each for each in comparisons if each.declared]
    if not declared:
        return "Curation was not judged: that needs the arms curated and raw (and random) trained and evaluated."
    words = {each.against: each.word for each in declared}
    sentences = " ".join(each.sentence for each in declared)
    lesson = ""
    if words.get("raw") == "better" and words.get("random") == "better":
        lesson = " Curation helped, and not only by making the set smaller."
    elif words.get("raw") == "better" and words.get("random") == "not enough evidence":
        lesson = " It is not shown that curation did more than any subset of the same size."
    elif words.get("raw") == "better" and "random" not in words:
        lesson = " Without a random arm of the same size this says nothing about curation apart from size."
    return sentences + lesson


def interval(each: Estimate, *, digits: int = 4, signed: bool = True) -> str:
    """`−0.0600 [−0.0740, −0.0460]`."""
    shown = [number(x, digits=digits, signed=signed) for x in (each.value, each.low, each.high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def number(value: float | None, *, digits: int = 4, signed: bool = True) -> str:
    """A number with its sign and a true minus; an em dash for what is not known."""
    if value is None:
        return "—"
    return format(value, f"{'+' if signed else ''}.{digits}f").replace("-", "−")


def p_words(p: float | None) -> str:
    """`p < 0.001` and the like, without the letter."""
    if p is None:
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _sentence(each: Comparison) -> str:
    d = each.difference
    value = d.per_token
    if value.low is None or value.detectable is None:
        return f"Not enough evidence: all {d.rows} held-out rows are in one group of similar rows."
    p = f"p {_equals(d.p)}" + (f", Holm-adjusted {_equals(each.p_adjusted)}" if each.p_adjusted is not None else "")
    shown = f"{each.arm} − {each.against} = {interval(value)} nats per token (95 % interval; negative is better), {p}"
    if each.word == "not enough evidence":
        return (
            f"Not enough evidence that {each.arm} is better or worse than {each.against}: {shown}. "
            f"A true difference of {number(value.detectable, signed=False)} is found four times out of five."
        )
    return f"{each.arm.capitalize()} is {each.word} than {each.against} on held-out loss: {shown}."


def _equals(p: float | None) -> str:
    text = p_words(p)
    return text if text.startswith("<") else f"= {text}"


def markdown(verdict: Verdict) -> str:
    """The verdict as a page."""
    lines = ["# Verdict", "", verdict.headline, "", f"*{verdict.condition}*", ""]
    lines += [
        (
            f"Budget of every arm: **{verdict.budget}**. Judged on {verdict.rows:,} held-out rows in "
            f"{verdict.groups:,} groups of similar rows, {verdict.tokens:,} answer tokens, the same for all arms."
        ),
        "",
        (
            "Loss is the negative log-likelihood of the reference answers in nats; lower is better. A difference is "
            "first arm − second arm: **negative means that the first arm is better**."
        ),
        "",
        *_table(["arm", "loss per token"], [[arm, f"{loss:.4f}"] for arm, loss in verdict.losses.items()]),
        *_comparisons(verdict),
        *_strata(verdict),
        *_usage(verdict),
        *_emission(verdict),
        "## How it was computed",
        "",
        (
            f"Rows are paired; groups of similar rows are resampled ({verdict.bootstrap:,} draws, studentised) "
            f"and their signs flipped ({verdict.permutations:,} draws, or all patterns when these are fewer); seed "
            f"{verdict.seed}. Declared comparisons are adjusted together (Holm); exploratory ones are not, so "
            "they prove nothing. "
            "Better or worse is said only where the interval excludes zero and the p that counts is below 0.05. A "
            "lower loss means that reference answers are more expected, which need not be better answers to a person."
        ),
        "",
    ]
    return "\n".join(lines)


def _comparisons(verdict: Verdict) -> Iterator[str]:
    yield from ["## Differences", ""]
    head = ["comparison", "", "per token", "per row", "rows improved", "p", "Holm p", "detectable", "verdict"]
    rows = []
    for each in verdict.comparisons:
        d = each.difference
        kind = "declared" if each.declared else "exploratory"
        cells = [f"{each.arm} − {each.against}", kind, interval(d.per_token), interval(d.per_row)]
        cells += [f"{100 * d.improved.value:.0f} %", p_words(d.p), p_words(each.p_adjusted)]
        rows.append([*cells, number(d.per_token.detectable, signed=False), each.word])
    yield from _table(head, rows)


def _strata(verdict: Verdict) -> Iterator[str]:
    shown = [each for each in verdict.comparisons if each.declared]
    if not shown:
        return
    yield from ["## By kind of row (exploratory)", ""]
    rows = [
        [
            f"{each.arm} − {each.against}",
            _KINDS[part.column],
            _value(part.column, part.value),
            str(part.difference.rows),
            interval(part.difference.per_token),
        ]
        for each in shown
        for part in each.strata
    ]
    yield from _table(["comparison", "kind", "value", "rows", "per token"], rows)


def _usage(verdict: Verdict) -> Iterator[str]:
    yield from ["## What each arm used", ""]
    head = ["arm", "seed", "rows of the arm", "rows cut", "rows taken", "steps", "trained tokens", "minutes"]
    yield from _table(
        head,
        [
            [use.arm, str(use.seed)]
            + [f"{count:,}" for count in (use.arm_rows, use.truncated_rows, use.rows, use.steps, use.tokens)]
            + [f"{use.minutes:.1f}"]
            for use in verdict.usage
        ],
    )
    if any(use.truncated_rows for use in verdict.usage):
        yield from ["Cut to the longest length trained; which rows, and by how much, is in the ledger of the run.", ""]
    if verdict.curated_away:
        gone = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in verdict.curated_away.items())
        yield from [f"Curated away, of what raw holds: {gone}.", ""]


def _emission(verdict: Verdict) -> Iterator[str]:
    if not verdict.emission:
        return
    yield from [
        "## Repeated text",
        "",
        "The longest run of words of an answer to the prompt suite that stands in the arm's own training answers.",
        "",
    ]
    head = ["arm", "answers", "mean words", "longest", "mean share of the answer"]
    rows = [
        [e.arm, str(e.answers), f"{e.mean_words:.1f}", str(e.longest_words), f"{100 * e.mean_share:.0f} %"]
        for e in verdict.emission
    ]
    yield from _table(head, rows)


def length_range(value: str) -> str:
    """A length bin as people read it: it is filled with zeros so that it sorts."""
    return re.sub(r"\b0+(?=\d)", "", value).replace("-", "–", 1)


def _value(column: str, value: str) -> str:
    if column == "leaked":
        return {"true": "leaked", "false": "clean"}.get(value.lower(), value)
    return _plain(length_range(value) if column == "length_bin" else value)


def _plain(text: str) -> str:
    """Dataset text as a table cell: nothing in it is markup."""
    return "".join("\\" + sign if sign in "\\`*_[]<>|#!" else sign for sign in " ".join(text.split()))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
