"""Arms by stage: what curation keeps when some of its stages do not decide, from the stored measures of a run.

What such an arm knows: the stages that still decide do so again, in their order, on the rows that reach them now, and
`balance` chooses again, from token lengths and the embeddings of prompts (stored by the search for leaks, unless that
compared dialogues). What it cannot know: a row that a left-out stage dropped was never measured by the stages after it,
so these cannot drop it, nor another row for it. Such rows are counted, and the arm may hold more of them than a recipe
without the stage would keep. The splits are those of the run: the same rows are held out, and no row that resembles one
is in the arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from siftune.curation.balance.selection import COPIES
from siftune.curation.balance.stage import measure_balance
from siftune.curation.errors import UserError
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.arm_sections import StageArm
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.replay import decide_again, first_index
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.split_names import TRAIN
from siftune.curation.splits.stage import SplitResult
from siftune.curation.stages import stages

BALANCE = "balance"


@dataclass(frozen=True)
class DecidedArm:
    """The rows of an arm by stage.

    Attributes:
        copies: COPIES, how often each of its rows stands in it.
        left_out: the stages that did not decide, in their order.
        unmeasured: for each stage that decided, the rows that reach it in this arm and that it never measured.
    """

    copies: pl.DataFrame
    left_out: tuple[str, ...]
    unmeasured: dict[str, int]


def check_stage_arms(recipe: Recipe, *, base: Path) -> None:
    """Raise `UserError` for an arm that names a stage which the recipe does not have, or that leaves out none.

    Args:
        recipe: the recipe.
        base: the folder that its paths are relative to.
    """
    available = stage_names(recipe, base=base)
    for arm in recipe.training.stage_arms if recipe.training else []:
        absent = [name for name in (arm.without or arm.only or []) if name not in available]
        if absent:
            raise UserError(
                f"The arm {arm.name!r} names the stage {absent[0]!r}, which this recipe does not have. "
                f"Its stages: {', '.join(available)}. Turn the stage on, or take it out of the arm."
            )
        if not left_out(arm, available):
            raise UserError(
                f"The arm {arm.name!r} leaves out no stage, so it would be the arm curated. "
                f"Take it out of training.arms, or name fewer of the stages: {', '.join(available)}."
            )


def stage_names(recipe: Recipe, *, base: Path) -> list[str]:
    """The stages of a recipe that an arm can leave out, in their order; `base` as in `check_stage_arms`."""
    names = [stage.name for stage in stages(recipe, base=base)]
    return [*names, BALANCE] if recipe.balance else names


def left_out(arm: StageArm, available: Sequence[str]) -> tuple[str, ...]:
    """The stages among `available` that do not decide for an arm."""
    if arm.without is not None:
        return tuple(name for name in available if name in arm.without)
    return tuple(name for name in available if name not in (arm.only or []))


def decide_stage_arms(
    recorder: RunRecorder, prepared: Prepared, splits: SplitResult, topics: pl.Series | None = None
) -> dict[str, DecidedArm]:
    """Decide the arms by stage of the recipe, by name.

    Args:
        recorder: the run.
        prepared: the texts of its rows.
        splits: the split of every input row.
        topics: the topic of each row of the run's INDEX, where it has topics.
    """
    recipe, base = recorder.recipe, recorder.base
    arms = recipe.training.stage_arms if recipe.training else []
    if not arms:
        return {}
    configured, available = stages(recipe, base=base), stage_names(recipe, base=base)
    ledger, files = recorder.ledger.frame(), recorder.manifest.files
    first = first_index(prepared.index, ledger)
    in_training = splits.rows.filter(pl.col("split") == TRAIN, ~pl.col("evicted")).select("id")
    omitted = {arm.name: left_out(arm, available) for arm in arms}

    # What each arm has left for training, before balancing.
    train, unmeasured = {}, {}
    for number, name in enumerate(omitted):
        if recorder.progress:
            recorder.progress(f"deciding the arm {name}", number, len(arms))
        replayed = decide_again(
            configured,
            first=first,
            ledger=ledger,
            measure=lambda stage: recorder.run.path / files[stage],
            earlier=prepared.earlier,
            left_out=omitted[name],
        )
        train[name] = replayed.left.join(in_training, on="id", how="semi", maintain_order="left")
        unmeasured[name] = replayed.unmeasured

    # Balancing measures the rows of all arms once and chooses in each.
    copies = {name: rows.select("id", pl.lit(1).alias("copies")).cast(COPIES) for name, rows in train.items()}
    balanced = [name for name in omitted if recipe.balance and BALANCE not in omitted[name]]
    if balanced and recipe.balance:
        rows = np.unique(np.concatenate([train[name]["row"].to_numpy() for name in balanced]))
        measures = measure_balance(recorder, prepared, rows, recipe.balance, topics)
        copies |= {name: measures.choose(train[name]).copies_by_id(train[name]) for name in balanced}
    return {name: DecidedArm(copies[name], omitted[name], unmeasured[name]) for name in omitted}
