"""The arms of a run in words and numbers: how many rows, how they were chosen, and what is known of that choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from siftune.curation.arms import LONGEST_QUANTILE
from siftune.curation.run.manifest import ArmRecord
from siftune.curation.split_names import HELD_OUT

#: What published results say of an arm, wherever it is shown. Figures: Ivison et al., Large-Scale Data Selection for
#: Instruction Tuning, arXiv 2503.01807, tables 1 (single tasks) and 2 (one set of 326,000 rows for all tasks).
_NOTES = {
    "balanced-random": (
        "balanced-random draws equal counts of every source; with one source it is another draw of random. In a study "
        "of 5.8 million rows it scored 47.5 on average where plain random scored 44.5, and four of seven selectors "
        "scored less than it (arXiv 2503.01807, table 2)."
    ),
    "longest": (
        "longest is a strong baseline in small pools (arXiv 2402.04833) and collapses where few rows are taken from a "
        "large one: the longest 10,000 of 5.8 million rows scored 17.8 on average, the longest of 200,000 rows 43.5, "
        "balanced-random of the large pool 41.1; the longest 326,000 scored as much as balanced-random (arXiv "
        "2503.01807, tables 1 and 2). Here, no answer is taken from beyond the "
        f"{LONGEST_QUANTILE} quantile of its source while there are others."
    ),
}


@dataclass(frozen=True)
class ArmLine:
    """An arm as a line of a table: its rows, those of them that curation kept, and the words of its answers."""

    name: str
    rows: int
    kept: int
    answer_words: int
    same_as: str
    left_out: str


def arm_lines(records: Mapping[str, ArmRecord]) -> list[ArmLine]:
    """The arms of a run, without its held-out sets."""
    return [
        ArmLine(name, arm.rows, arm.kept, arm.answer_words, ", ".join(arm.same_as), ", ".join(arm.left_out))
        for name, arm in records.items()
        if name not in HELD_OUT
    ]


def arm_notes(names: Iterable[str]) -> list[str]:
    """What published results say of these arms, a sentence or more for each that there is something to say of."""
    return [_NOTES[name] for name in names if name in _NOTES]


def left_out_sentences(records: Mapping[str, ArmRecord]) -> list[str]:
    """What is known and what is not of every arm by stage."""
    return [left_out_sentence(name, record) for name, record in records.items() if record.left_out]


def selection_sentences(records: Mapping[str, ArmRecord]) -> list[str]:
    """How the rows of every selected arm and of its controls were chosen."""
    return [f"{name}: {record.selection}." for name, record in records.items() if record.selection]


def left_out_sentence(name: str, record: ArmRecord) -> str:
    """The same of one arm by stage."""
    omitted = ", ".join(record.left_out)
    start = f"{name}: decided again without {omitted}, from stored measures and with the splits of this run."
    if not record.unmeasured:
        return f"{start} Every stage that still decides had measured all rows that reach it, so the choice is exact."
    counts = ", ".join(f"{count:,} that reach {stage}" for stage, count in record.unmeasured.items())
    return (
        f"{start} Rows that a later stage never measured: {counts}. It can drop none of them, nor another row for one "
        f"of them, so the arm may hold more rows than a recipe without {omitted} would keep, and duplicates that this "
        "recipe would find."
    )
