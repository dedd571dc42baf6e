"""Another threshold, from stored measures: the same decisions again, nothing measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.prepare import rank
from siftune.curation.recipe.sections import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.curation.schema import LEAST_CHANCE
from siftune.curation.stages import stages

#: What can be asked: a name, and the field of the recipe it stands for.
KNOBS = {
    "near": ("duplicates", "near", "threshold"),
    "semantic": ("duplicates", "semantic", "threshold"),
    "answers": ("duplicates", "answers", "threshold"),
    "max_per_answer": ("duplicates", "answers", "max_per_answer"),
    "contamination": ("contamination", "threshold"),
}


@dataclass(frozen=True)
class Replay:
    """What the duplicate stages would do: DECISIONS by stage in order, and the rows (INDEX) left after them.

    `unmeasured` counts, for each stage, rows that reach it now but did not when it measured: it cannot drop them.
    """

    decisions: dict[str, pl.DataFrame]
    left: pl.DataFrame
    unmeasured: dict[str, int]

    def dropped(self) -> pl.DataFrame:
        """id and stage of every row that a stage drops."""
        frames = [
            frame.filter(pl.col("action") == "drop").select("id", pl.lit(stage).alias("stage"))
            for stage, frame in self.decisions.items()
        ]
        return pl.concat(frames)


def replay(run: RunFolder, settings: Mapping[str, float]) -> Replay:
    """Decide again with other thresholds, exactly as a run with them would from the same measures.

    Raises:
        UserError: a name is not one of `KNOBS`, the recipe has no such stage, a threshold lies below the floor
            down to which pairs were stored, or a cap is no whole number.
    """
    recipe = adjusted(run.recipe, settings)
    then = now = index(run)
    decisions: dict[str, pl.DataFrame] = {}
    unmeasured: dict[str, int] = {}
    for stage in stages(recipe, base=Path(run.manifest["recipe_folder"])):
        unmeasured[stage.name] = now.join(then.select("id"), on="id", how="anti").height
        decisions[stage.name] = stage.decide(now, pl.read_parquet(run.file(stage.name)))
        now = _without(now, decisions[stage.name])
        then = _without(then, run.ledger().filter(pl.col("stage") == stage.name))
    return Replay(decisions, now, {name: count for name, count in unmeasured.items() if count})


def _without(alive: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    gone = decisions.filter(pl.col("action") == "drop").select("id")
    return alive.join(gone, on="id", how="anti", maintain_order="left")


def index(run: RunFolder) -> pl.DataFrame:
    """INDEX of a run as its first stage saw it: ranked, restored rows pinned, rows dropped by hand left out."""
    rows = pl.read_parquet(run.file("index"))
    ranked = rank(rows, run.recipe)
    obeyed = run.ledger().filter(pl.col("stage") == "overrides")
    restored = obeyed.filter(pl.col("action") == "restore")["id"]
    gone = obeyed.filter(pl.col("action") == "drop")["id"]
    pinned = ranked.with_columns(pl.col("id").is_in(restored.implode()).alias("pinned"))
    return pinned.filter(~pl.col("id").is_in(gone.implode()))


def adjusted(recipe: Recipe, settings: Mapping[str, float]) -> Recipe:
    """`recipe` with other thresholds. Raises `UserError` as `replay` does."""
    document = recipe.model_dump()
    for name, value in settings.items():
        if name not in KNOBS:
            raise UserError(f"what-if does not know {name!r}.{did_you_mean(name, KNOBS)} Accepted: {', '.join(KNOBS)}.")
        *sections, field = KNOBS[name]
        stage: dict[str, Any] | None = document
        for section in sections:
            stage = stage[section] if stage else None
        place = ".".join(sections)
        if stage is None:
            raise UserError(f"This run has no {sections[-1]} stage, so {name} cannot be replayed. Set {place}.")
        floor = stage.get("floor", LEAST_CHANCE)
        if field == "threshold" and not floor <= value <= 1:
            hint = f" Set {place}.floor lower and curate again." if "floor" in stage else ""
            raise UserError(
                f"{name}={value} cannot be replayed: scores were stored from the floor {floor} up to 1.{hint}"
            )
        if field == "max_per_answer" and (value < 1 or value != int(value)):
            raise UserError(f"{name}={value:g} cannot be replayed: it is a whole number from 1 on.")
        stage[field] = int(value) if field == "max_per_answer" else value
    return Recipe.model_validate(document)
