"""Another threshold, from stored measures: the same decisions again, nothing measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.prepare import rank
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.replay import Replay, decide_again, first_index
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import knobs, stages


def replay(run: RunFolder, settings: Mapping[str, float]) -> Replay:
    """Decide again with other thresholds, exactly as a run with them would from the same measures.

    Raises:
        UserError: no stage has a number of that name, the recipe leaves the stage out, a threshold lies below the
            floor down to which pairs were stored, or a cap is no whole number.
    """
    recipe = adjusted(run.recipe, settings)
    configured = stages(recipe, base=Path(run.manifest.recipe_folder))
    return decide_again(
        configured, first=index(run), ledger=run.ledger(), measure=run.file, earlier=run.earlier_index()
    )


def index(run: RunFolder) -> pl.DataFrame:
    """INDEX of a run as its first stage saw it: ranked, restored rows pinned, rows dropped by hand left out."""
    return first_index(rank(pl.read_parquet(run.file("index"), glob=False), run.recipe), run.ledger())


def adjusted(recipe: Recipe, settings: Mapping[str, float]) -> Recipe:
    """`recipe` with other numbers, by the names of `siftune.curation.stages.knobs`. Raises `UserError` as `replay`."""
    document = recipe.model_dump()
    accepted = knobs()
    for name, value in settings.items():
        if name not in accepted:
            hint = did_you_mean(name, accepted)
            raise UserError(f"what-if does not know {name!r}.{hint} Accepted: {', '.join(accepted)}.")
        knob = accepted[name]
        section: dict[str, Any] | None = document
        for key in knob.section:
            section = section[key] if section else None
        path = ".".join(knob.section)
        if section is None:
            raise UserError(f"This run has no {knob.section[-1]} stage, so {name} cannot be replayed. Set {path}.")
        if knob.whole_number and (value < 1 or value != int(value)):
            raise UserError(f"{name}={value:g} cannot be replayed: it is a whole number from 1 on.")
        floor = section.get("floor", knob.lowest)
        if not knob.whole_number and not floor <= value <= 1:
            hint = f" Set {path}.floor lower and curate again." if "floor" in section else ""
            raise UserError(
                f"{name}={value} cannot be replayed: scores were stored from the floor {floor} up to 1.{hint}"
            )
        section[knob.field] = int(value) if knob.whole_number else value
    return Recipe.model_validate(document)
