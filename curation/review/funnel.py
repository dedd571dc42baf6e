"""The funnel of a run: rows into and out of every stage, what is kept in the end, and what a person should know."""

from __future__ import annotations

from siftune.curation.review.wording import percent
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import StageRecord

#: Decisions that leave a row in the set, as words.
_OTHER_ACTIONS = {
    "report": "reported",
    "guard": "guarded",
    "repair": "repaired",
    "restore": "restored",
    "truncate": "truncated",
}


def funnel(run: RunFolder) -> list[StageRecord]:
    """The stages in the order in which they decided; each takes in what the one before it let through.

    Rows that were dropped by hand before the first stage are a step of their own, `overrides`.
    """
    steps: list[StageRecord] = []
    for record in run.manifest.stages:
        if steps and steps[-1].stage == "ingest" and record.rows < steps[-1].kept:
            by_hand = {"drop": steps[-1].kept - record.rows}
            steps.append(StageRecord(stage="overrides", rows=steps[-1].kept, kept=record.rows, actions=by_hand))
        steps.append(record)
    return steps


def other_decisions(step: StageRecord) -> str:
    """The decisions of a stage that took no row out, in words."""
    counts = step.actions.items()
    return ", ".join(f"{count:,} {_OTHER_ACTIONS[action]}" for action, count in counts if action in _OTHER_ACTIONS)


def kept_sentence(run: RunFolder) -> str:
    """How many rows were kept, to train on and held out."""
    counts = run.manifest.finished_counts()
    held_out = counts.test + counts.validation
    share = percent(counts.kept, counts.input)
    return (
        f"{counts.kept:,} of {counts.input:,} rows kept{f' ({share})' if share else ''}: "
        f"{counts.train:,} to train on" + (f", {held_out:,} held out" if held_out else "")
    )


def words_sentence(run: RunFolder) -> str:
    """How many words of the input are not trained on any more."""
    words = run.manifest.finished_counts().words
    return f"{words.saved:,} of {words.input:,} words are not trained on any more."


def warnings(run: RunFolder) -> list[str]:
    """What ingest and the searches want a person to know: odd sources, quarantined rows, approximate searches."""
    manifest = run.manifest
    lines = [f"{source.name}: {text}" for source in manifest.inputs for text in source.warnings]
    for source in manifest.inputs:
        if source.quarantined:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in source.quarantined.items())
            lines.append(f"{source.name}: rows in quarantine.jsonl: {reasons}")
    for stage, notes in manifest.notes.items():
        if "recall" in notes and notes["search"] != "exact":
            lines.append(
                f"{stage}: the search was approximate ({notes['search']}); it found an estimated "
                f"{percent(float(notes['recall']), 1)} of the pairs, by {int(notes['sampled']):,} sampled rows"
            )
    return lines
