"""Another threshold, from stored measures: the same decisions again, nothing measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.prepare import rank
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.replay import Replay, ReplayInput, decide_again, first_index
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import Stage, knobs, stages


def replay(run: RunFolder, settings: Mapping[str, float]) -> Replay:
    """Decide again with other thresholds, exactly as a run with them would from the same measures.

    Raises:
        UserError: no stage has a number of that name, the recipe leaves the stage out, a threshold lies below the
            floor down to which pairs were stored, or a cap is no whole number.
    """
    return decide_again(
        stages_with(run, settings), first=index(run), ledger=run.ledger(), measure=run.file, earlier=run.earlier_index()
    )


@dataclass
class ThresholdReplays:
    """Replays of one run, for somebody who tries one threshold after the other.

    What the measures name is read once, and what the stages before the first changed one decide is kept: it is
    replayed too, and not taken from the ledger, so that all decisions are of the same measures. As exact as `replay`.
    """

    run: RunFolder
    stored: ReplayInput
    _before: dict[int, Replay] = field(default_factory=dict)

    @classmethod
    def open(cls, run: RunFolder) -> ThresholdReplays:
        """Read what the stages of a run decide again on."""
        names = [stage.name for stage in stages_with(run, {})]
        stored = ReplayInput.read(
            names, first=index(run), ledger=run.ledger(), measure=run.file, earlier=run.earlier_index()
        )
        return cls(run, stored)

    def replay(self, settings: Mapping[str, float]) -> Replay:
        """Decide again with other thresholds; `left` are those of `stored.rows`. Raises `UserError` as `replay`."""
        recorded, configured = stages_with(self.run, {}), stages_with(self.run, settings)
        pairs = zip(recorded, configured, strict=True)
        changed = next((at for at, (old, new) in enumerate(pairs) if old != new), len(configured))
        return self.stored.decide(configured, before=self._decided(recorded[:changed]))

    def _decided(self, recorded: list[Stage]) -> Replay:
        """What the first stages decide with the thresholds of the run."""
        if len(recorded) not in self._before:
            before = self._decided(recorded[:-1]) if recorded else None
            self._before[len(recorded)] = self.stored.decide(recorded, before=before)
        return self._before[len(recorded)]


def stages_with(run: RunFolder, settings: Mapping[str, float]) -> list[Stage]:
    """The stages of a run with other thresholds. Raises `UserError` as `replay`."""
    return stages(adjusted(run.recipe, settings), base=Path(run.manifest.recipe_folder))


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
            below = "floor" in section and value < floor
            hint = f" For lower ones set {path}.floor lower and curate again." if below else ""
            raise UserError(
                f"{name}={value:g} cannot be replayed. Accepted: {floor:g} (the floor of the stored scores) to 1.{hint}"
            )
        section[knob.field] = int(value) if knob.whole_number else value
    return Recipe.model_validate(document)
