"""Arms by selection: a part of the curated training rows, explained row by row, and controls of the same size.

The pool is the rows of the arm `curated`, each once: what is left for training after duplicates, contamination, splits
and balance. So every row of a selected arm is a curated one, and the arm differs from its controls, random draws of as
many rows from the same pool, by the selector alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.balance.coverage import nearest_chosen
from siftune.curation.decontamination.stage import Decontamination
from siftune.curation.embeddings.cosine import cosines
from siftune.curation.embeddings.store import embedder
from siftune.curation.ingest.references import read_reference
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.arm_sections import (
    AnySelection,
    Control,
    CoverageSelection,
    ScoreSelection,
    TargetedSelection,
)
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Contamination, Reference
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.schema import Key
from siftune.curation.selection.facility_location import closest_before, cover
from siftune.curation.selection.round_robin import take_turns
from siftune.curation.selection.scores import choose_by_score, read_numbers, scaled, strata_of
from siftune.curation.splits.stage import SplitResult
from siftune.curation.stages import measure_stage


@dataclass(frozen=True)
class SelectedRows:
    """The rows of a selected arm.

    Attributes:
        explained: SELECTION of every row of the pool, the rows taken first.
        why: `id` and `why` of the rows taken, in words.
        method: how they were chosen, in words.
        controls: the draws that the arm is compared with, by name.
    """

    explained: pl.DataFrame
    why: pl.DataFrame
    method: str
    controls: Mapping[str, Control]


def check_selected_arms(recipe: Recipe, *, base: Path) -> None:
    """Raise `UserError` where the examples of a selected arm cannot be read; `base` is the folder of the recipe."""
    for arm in recipe.training.selected_arms if recipe.training else []:
        if isinstance(arm.select, TargetedSelection):
            _read_examples(arm.select, base)


def select_arms(recorder: RunRecorder, prepared: Prepared, splits: SplitResult) -> dict[str, SelectedRows]:
    """Choose the rows of the selected arms of the recipe, by name.

    Raises:
        UserError: no row of the pool has a number in a column that the recipe names.
    """
    arms = recorder.recipe.training.selected_arms if recorder.recipe.training else []
    if not arms:
        return {}
    pool, selected = _Pool(recorder, prepared, splits.train()), {}
    for number, arm in enumerate(arms):
        if recorder.progress:
            recorder.progress(f"selecting the arm {arm.name}", number, len(arms))
        match arm.select:
            case CoverageSelection():
                choice = _by_coverage(pool, arm.select)
            case TargetedSelection():
                choice = _by_examples(pool, arm.select)
            case ScoreSelection():
                choice = _by_score(pool, arm.select)
        explained = choice.explained()
        taken = explained.filter(pl.col("rank").is_not_null()).select("id", why=pl.format(*choice.why))
        method = f"{taken.height:,} of {pool.rows.height:,} curated rows, by {choice.method}"
        selected[arm.name] = SelectedRows(explained, taken, method, arm.control_names)
    return selected


@dataclass(frozen=True)
class _Pool:
    """The rows to choose from, INDEX of n rows, and where their texts are."""

    recorder: RunRecorder
    prepared: Prepared
    rows: pl.DataFrame

    def vectors(self, text: Key) -> NDArray[np.float16]:
        """Embeddings [n, d] of a text of the rows; only those that were never embedded are computed."""
        texts = self.prepared.corpus.key_texts(text, self.rows["row"].to_numpy())
        return embedder(self.recorder.recipe.encoder or "").embed(texts, progress=self.recorder.progress)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """The numbers of a column, float64 [n]."""
        return read_numbers(self.prepared.corpus.examples, self.rows["row"].to_numpy(), column)

    def size(self, settings: AnySelection, available: int) -> int:
        """How many rows a selection takes of so many that it can take."""
        size = settings.rows or max(1, round((settings.share or 0) * self.rows.height))
        return min(size, available)


class _Choice:
    """What was chosen and why, filled in as it becomes known: columns of SELECTION over the rows of a pool.

    `why` are a format and its columns, for the rows taken.
    """

    def __init__(self, pool: _Pool, method: str) -> None:
        self.method, self._ids = method, pool.rows["id"]
        self.why: tuple[Any, ...] = ("{}", "detail")
        numbers = ("score", "gain", "quality", "similarity")
        self._columns: dict[str, np.ndarray] = {name: np.full(len(self._ids), np.nan) for name in numbers}
        self._columns |= {name: np.full(len(self._ids), None, object) for name in ("rank", "witness", "detail")}

    def take(self, rows: NDArray[np.int64]) -> None:
        """Rank the rows at these positions in their order."""
        self._columns["rank"][rows] = np.arange(1, len(rows) + 1)

    def note(self, rows: NDArray[np.int64], **columns: Any) -> None:
        """Fill in columns of the rows at these positions."""
        for name, values in columns.items():
            self._columns[name][rows] = values

    def explained(self) -> pl.DataFrame:
        """SELECTION, the rows taken first in their order, then the others in theirs."""
        columns = {name: column.tolist() for name, column in self._columns.items()}
        frame = pl.DataFrame({"id": self._ids, **columns})
        numbers = [pl.col(name).fill_nan(None) for name in ("score", "gain", "quality", "similarity")]
        frame = schema.conform(frame.with_columns(numbers), schema.SELECTION)
        return frame.sort("rank", nulls_last=True, maintain_order=True)


def _by_coverage(pool: _Pool, settings: CoverageSelection) -> _Choice:
    # Where quality counts, rows without a number are not in the pool.
    open_rows, quality = np.arange(pool.rows.height), None
    if settings.quality is not None:
        numbers = pool.numbers(settings.quality)
        open_rows = np.flatnonzero(~np.isnan(numbers))
        quality = scaled(numbers[open_rows])
    vectors = pool.vectors(settings.text)[open_rows]
    covering = cover(
        vectors,
        pool.size(settings, len(open_rows)),
        quality=quality,
        alpha=settings.alpha if settings.quality else 0.0,
        progress=pool.recorder.progress,
    )

    # Every row that is not taken is covered by the taken row closest to it.
    others = np.setdiff1d(np.arange(len(open_rows)), covering.chosen)
    covered_by, similarity = nearest_chosen(vectors, others, covering.chosen)
    covers = np.bincount(covered_by, minlength=len(open_rows))
    before, similarity_before = closest_before(vectors[covering.chosen])

    search = "" if covering.neighbours is None else f"; of each row only its {covering.neighbours:,} nearest rows count"
    weighted = f" and the quality {settings.quality!r} (alpha {settings.alpha:g})" if settings.quality else ""
    choice = _Choice(pool, f"coverage of {settings.text} embeddings (facility location{search}){weighted}")
    ids = pool.rows["id"].gather(open_rows).to_numpy()
    taken = open_rows[covering.chosen]
    choice.take(taken)
    choice.note(taken, score=covering.scores, gain=covering.gains, similarity=similarity_before)
    choice.note(taken, witness=[ids[covering.chosen[one]] if one >= 0 else None for one in before])
    beside = np.where(before >= 0, "closest row before it", "the first row")
    counts = zip(covers[covering.chosen].tolist(), beside, strict=True)
    choice.note(taken, detail=[f"covers {count:,} other rows; {what}" for count, what in counts])
    choice.note(open_rows[others], witness=ids[covered_by], similarity=similarity, detail="covered by")
    if settings.quality is not None:
        choice.note(np.arange(pool.rows.height), quality=numbers)
        left_out = np.flatnonzero(np.isnan(numbers))
        choice.note(left_out, detail=f"left out: no number in the column {settings.quality}")
    choice.why = ("taken as number {} by coverage, gain {}", "rank", pl.col("gain").round(2))
    return choice


def _by_examples(pool: _Pool, settings: TargetedSelection) -> _Choice:
    recipe, base = pool.recorder.recipe, pool.recorder.base
    examples = _read_examples(settings, base)

    # Rows that hold an example would be learnt by heart: the stage of contamination finds them, with its defaults.
    reference = Reference(path=settings.examples, format=settings.format, columns=settings.columns)
    stage = Decontamination(Contamination(references=[reference], related="off"), recipe.encoder, base)
    alive = pool.rows.with_columns(pinned=pl.lit(value=False))
    path, _ = measure_stage(stage, pool.recorder.run, pool.prepared.corpus, alive, progress=pool.recorder.progress)
    held = stage.decide(alive, pl.read_parquet(path, glob=False)).filter(pl.col("action") == "drop")
    held_rows = pool.rows["id"].to_frame().with_row_index("at").join(held, on="id", maintain_order="left")
    open_rows = np.setdiff1d(np.arange(pool.rows.height), held_rows["at"].to_numpy())

    vectors = pool.vectors(settings.text)[open_rows]
    asked = embedder(recipe.encoder or "").embed([_example_texts(examples, settings.text)])
    chosen, example, closest = take_turns(vectors, asked, pool.size(settings, len(open_rows)))
    closest[chosen] = example
    similarity = cosines(vectors, asked, np.arange(len(open_rows)), closest)

    choice = _Choice(
        pool,
        f"similarity of {settings.text} embeddings to {examples.height:,} examples in turn (RDS+), after "
        f"{held.height:,} rows that hold an example were left out",
    )
    names = examples["reference"].to_numpy()
    choice.take(open_rows[chosen])
    choice.note(open_rows, witness=names[closest], similarity=similarity, detail="its closest example")
    rounds = np.arange(len(chosen)) // examples.height + 1
    choice.note(open_rows[chosen], score=similarity[chosen], detail=[f"row {one} of the example" for one in rounds])
    held_at = held_rows["at"].to_numpy()
    details = [f"left out, since it holds an example ({detail})" for detail in held_rows["detail"]]
    choice.note(held_at, witness=held_rows["witness"].to_numpy(), detail=details)
    choice.why = ("taken for {}, cosine {}", "witness", pl.col("similarity").round(3))
    return choice


def _by_score(pool: _Pool, settings: ScoreSelection) -> _Choice:
    numbers = pool.numbers(settings.column)
    measured = np.flatnonzero(~np.isnan(numbers))
    count = pool.size(settings, len(measured)) if settings.rows or settings.share else None
    chosen = choose_by_score(pool.rows, numbers, count, settings=settings, seed=pool.recorder.recipe.seed)
    bounds = "" if settings.low is None else f", at least {settings.low:g}"
    bounds += "" if settings.high is None else f", at most {settings.high:g}"
    strata = f" of each {'source' if settings.strata == 'source' else 'bin of answer length'}"
    words = {"top": "the highest numbers", "range": "numbers", "stratified": f"the highest numbers{strata}"}
    choice = _Choice(pool, f"{words[settings.take]} in the column {settings.column!r}{bounds}")
    others = "inside of the range, not drawn" if settings.take == "range" else "not among the highest"
    choice.note(measured, quality=numbers[measured], detail=others)
    choice.note(np.flatnonzero(np.isnan(numbers)), detail=f"left out: no number in the column {settings.column}")
    if settings.low is not None:
        choice.note(np.flatnonzero(numbers < settings.low), detail=f"left out: below {settings.low:g}")
    if settings.high is not None:
        choice.note(np.flatnonzero(numbers > settings.high), detail=f"left out: above {settings.high:g}")
    choice.take(chosen)
    inside = "inside of the range" if settings.take == "range" else f"among the {len(chosen):,} highest"
    choice.note(chosen, score=numbers[chosen], detail=inside)
    if settings.take == "stratified":
        choice.note(
            chosen,
            detail=[f"among the highest of {one}" for one in strata_of(pool.rows, settings.strata).gather(chosen)],
        )
    choice.why = ("{} {}", pl.lit(settings.column), "score")
    return choice


def _read_examples(settings: TargetedSelection, base: Path) -> pl.DataFrame:
    """REFERENCE: the examples of a task."""
    return read_reference(settings.examples, base=base, format=settings.format, columns=settings.columns)


def _example_texts(examples: pl.DataFrame, text: str) -> pl.Series:
    """The texts of examples that rows are compared with; an example without a prompt is its answer."""
    prompt, answer = pl.col("prompt").fill_null(""), pl.col("answer").fill_null("")
    if text == "dialogue":
        return examples.select(pl.concat_str([prompt, answer], separator="\n")).to_series()
    return examples.select(pl.when(prompt != "").then(prompt).otherwise(answer)).to_series()
