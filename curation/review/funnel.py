"""The funnel of a run: rows into and out of every stage, what is kept in the end, and what a person should know."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

import polars as pl

from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.wording import percent, reason_text
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import Manifest, StageRecord

_NO_ENCODER = (
    "`encoder: auto` went without an encoder, since sentence-transformers is not installed: rows were compared by "
    "words alone, not by meaning. Install it with: pip install 'siftune[semantic]'"
)
_SPLITS_OF_DATA = (
    "the data came with splits, and these were kept apart; a section `splits` sets how leaks are found, and "
    "`splits: null` makes all of them training rows"
)
#: Steps of a run that decide on no row.
_MEASURES = ("topics", "diversity")
#: Decisions that leave a row in the set, as words.
_OTHER_ACTIONS = {
    "report": "reported",
    "guard": "guarded",
    "repair": "repaired",
    "mask": "masked",
    "restore": "restored",
    "truncate": "truncated",
}


def funnel(manifest: Manifest) -> list[StageRecord]:
    """The stages of a run in the order in which they decided; each takes in what the one before it let through.

    What measures and decides on no row (topics, diversity) is no step. Rows that were dropped by hand before the first
    stage are a step of their own, `overrides`.
    """
    steps: list[StageRecord] = []
    for record in manifest.stages:
        if record.stage in _MEASURES:
            continue
        if steps and steps[-1].stage == "ingest" and record.rows < steps[-1].kept:
            by_hand = {"drop": steps[-1].kept - record.rows}
            steps.append(StageRecord(stage="overrides", rows=steps[-1].kept, kept=record.rows, actions=by_hand))
        steps.append(record)
    return steps


GUARDED_MEANING = "guarded rows stay, though they are like another row: a number, a name or the question differs"
#: What the words of `other_decisions` mean that do not say it themselves.
_MEANINGS = {"report": "reported rows stay, with a remark", "guard": GUARDED_MEANING}


def meaning_of_decisions(manifest: Manifest) -> str:
    """What the words of `other_decisions` mean that the steps of a run use; empty where they use none."""
    used = {action for step in manifest.stages for action, count in step.actions.items() if count}
    sentences = [sentence for action, sentence in _MEANINGS.items() if action in used]
    return f"{'; '.join(sentences).capitalize()}. The app lists them under Decisions." if sentences else ""


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
        f"{counts.train:,} to train on" + (f", {held_out:,} held out." if held_out else ".")
    )


def by_hand_sentence(run: RunFolder) -> str:
    """How many rows the user kept or dropped by hand; empty where none."""
    of_hand = run.ledger().filter(pl.col("stage") == "overrides")
    counts = {"kept": "restore", "dropped": "drop"}
    rows = {word: of_hand.filter(pl.col("action") == action).height for word, action in counts.items()}
    listed = ", ".join(f"{count:,} {word}" for word, count in rows.items() if count)
    return f"By hand: {listed}." if listed else ""


def words_sentence(run: RunFolder) -> str:
    """How many words of the input are in no kept row."""
    words = run.manifest.finished_counts().words
    return f"The removed rows hold {words.removed:,} of {words.input:,} words."


def against_sentences(run: RunFolder) -> list[str]:
    """For each earlier set how many of its rows the run was compared with, and how many rows it cost."""
    manifest = run.manifest
    if not manifest.against:
        return []
    is_of_row = (pl.col("action") == "drop") & (pl.col("stage") != CONTAMINATION)
    drops, lines = run.ledger().filter(is_of_row), []
    named = [earlier.name + ":" for earlier in manifest.against if earlier.kind != "index"]
    proposed = run.earlier().filter(
        ~pl.any_horizontal(pl.lit(value=False), *[pl.col("id").str.starts_with(n) for n in named])
    )["id"]
    for earlier in manifest.against:
        is_its = pl.col("witness").is_in(proposed.implode())
        if earlier.kind != "index":
            is_its = pl.col("witness").str.starts_with(earlier.name + ":")
        counts = drops.filter(is_its).group_by("stage", maintain_order=True).len()
        of_stages = ", ".join(f"{rows:,} by {stage}" for stage, rows in counts.iter_rows())
        dropped = f"{counts['len'].sum():,} rows ({of_stages})" if of_stages else "no row"
        lines.append(
            f"Compared with {earlier.rows:,} rows of the {earlier.kind} {earlier.name}: {dropped} dropped for them."
        )
    return lines


def warnings(run: RunFolder) -> list[str]:
    """What a person should know of a finished run, one sentence each.

    A missing encoder, odd sources, quarantined rows, sources that lost more than half of their rows, searches that may
    have missed pairs.
    """
    manifest = run.manifest
    lines = [_NO_ENCODER] if manifest.without_encoder else []
    if manifest.splits_of_data:
        lines.append(_SPLITS_OF_DATA)
    if manifest.merged_held_out:
        lines.append(
            f"{manifest.merged_held_out:,} rows are of held-out splits of the data and stand among the training rows, "
            "since the recipe says `splits: null`"
        )
    lines += [f"{source.name}: {text}" for source in manifest.inputs for text in source.warnings]
    lines += [f"{earlier.name}: {text}" for earlier in manifest.against for text in earlier.warnings]
    for source in manifest.inputs:
        if source.quarantined:
            reasons = ", ".join(f"{count:,} {reason_text(reason)}" for reason, count in source.quarantined.items())
            lines.append(f"{source.name}: rows that cannot be used are in quarantine.jsonl: {reasons}")
    if run.rows_path.is_file():
        by_source = run.rows().group_by("source").agg(pl.len().alias("rows"), (pl.col("fate") == "dropped").sum())
        for name, rows, dropped in by_source.sort("source").iter_rows():
            if dropped > rows / 2:
                lines.append(f"{name}: curation dropped {percent(dropped, rows)} of its {rows:,} rows")
    return lines + [_search_sentence(stage, notes) for stage, notes in manifest.notes.items() if _may_miss_pairs(notes)]


def _may_miss_pairs(notes: Mapping[str, str]) -> bool:
    return notes.get("search", "exact") != "exact" or "prompts" in notes


def _search_sentence(stage: str, notes: Mapping[str, str]) -> str:
    """How a stage searched that did not compare every pair of rows, and how many pairs it is estimated to find."""
    if "prompts" in notes:
        stage = f"{stage}: {notes['prompts']}; the answers of the others were not compared"
    if notes.get("search", "exact") == "exact":
        return stage
    recall, sampled = float(notes.get("recall", "nan")), int(notes.get("sampled", "0"))
    if isnan(recall):
        estimate = f"none of {sampled:,} sampled rows has a similar row, so its recall is not known"
    else:
        estimate = f"an estimated {percent(recall, 1)} of the pairs were found, by {sampled:,} sampled rows"
    return f"{stage}: not every pair of rows was compared (search: {notes['search']}); {estimate}"
