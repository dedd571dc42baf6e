"""The stages of curation, in order: each measures (slow, stored) and decides (fast, replayable), apart.

A stage is a frozen object that holds its parameters. It never deletes: it returns decisions, and the ledger works out
who is still alive. It also describes itself, so that reports, replays, splits and pages need no list of their own. A
new stage joins by standing in `STAGES`; the tests of the invariants run over that list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.decontamination.stage import Decontamination
from siftune.curation.dedup.conflicts import ConflictingAnswers
from siftune.curation.dedup.exact import ExactDuplicates
from siftune.curation.dedup.near import NearDuplicates
from siftune.curation.dedup.prefixes import DialoguePrefixes
from siftune.curation.dedup.repeated_answers import RepeatedAnswers
from siftune.curation.dedup.semantic import SemanticDuplicates
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.row_checks.stage import RowChecks
from siftune.curation.run.cache_key import measure_key, rows_key
from siftune.curation.run.folder import RunFolder
from siftune.curation.schema import Key


class Stage(Protocol):
    """One step of curation."""

    name: ClassVar[str]
    """How the stage is called in the ledger, in the file of its measure and by `what-if`."""

    title: ClassVar[str]
    """How the stage is called in a heading."""

    knobs: ClassVar[tuple[Knob, ...]]
    """The numbers of its section that `what-if` can change."""

    @property
    def compares(self) -> Key | None:
        """The text by which rows are compared with one another; its measure is then PAIRS. None: no such pairs."""

    @property
    def similarity(self) -> Similarity | None:
        """The score, threshold and floor of its pairs; None where there is no threshold to choose."""

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        """The stage as a recipe asks for it, or None; `base` is the folder that the recipe's paths are relative to."""

    def depends(self) -> dict[str, Any]:
        """What its measure depends on besides the rows: part of the cache key of the measure."""

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        """Measure the rows that are alive (INDEX). The result is stored, and never depends on a threshold."""

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        """DECISIONS on the rows that are alive, from what was measured on these rows or more."""


#: Every stage, in the order in which they run.
STAGES: tuple[type[Stage], ...] = (
    RowChecks,
    ExactDuplicates,
    DialoguePrefixes,
    NearDuplicates,
    RepeatedAnswers,
    ConflictingAnswers,
    SemanticDuplicates,
    Decontamination,
)


def stages(recipe: Recipe, *, base: Path) -> list[Stage]:
    """The stages that a recipe asks for, in their order; `base` is the folder that its paths are relative to.

    Cheap: no model is loaded and no file is read before a stage measures.
    """
    configured = (stage.from_recipe(recipe, base=base) for stage in STAGES)
    return [stage for stage in configured if stage is not None]


def knobs() -> dict[str, Knob]:
    """The numbers that `what-if` can change, by name, those of stages that a recipe leaves out too."""
    return {knob.name: knob for stage in STAGES for knob in stage.knobs}


def compared_rows(stage: Stage, alive: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """INDEX of the rows that a stage looks at: those that are alive, and where it compares rows, earlier ones too.

    Args:
        stage: the stage.
        alive: INDEX of rows of the run.
        earlier: INDEX of the rows of earlier sets: last in position, first in keep order.
    """
    if stage.compares is None or earlier.is_empty():
        return alive
    return pl.concat([alive.with_columns(pl.col("rank") + earlier.height), earlier])


def measure_stage(
    stage: Stage, run: RunFolder, corpus: Corpus, alive: pl.DataFrame, *, progress: Progress | None = None
) -> tuple[Path, bool]:
    """Let a stage measure the rows that are alive, unless the run holds that measure already.

    Args:
        stage: the stage.
        run: where the measure is stored, under a key of everything that it depends on.
        corpus: the texts.
        alive: INDEX of the rows to measure.
        progress: called while the stage works.

    Returns:
        The parquet file of the measure, and whether it was there.
    """
    key = measure_key(stage.name, stage.depends(), corpus.key, rows_key(alive["id"]))

    def measured() -> Measured:
        if corpus.cluster is not None:
            return corpus.cluster.measure(stage, corpus, alive, progress)
        return stage.measure(corpus, alive, progress)

    return run.measure(stage.name, key, lambda out: measured().write(out))
