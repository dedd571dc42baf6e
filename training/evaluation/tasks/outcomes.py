"""What scoring writes for the base and for each arm and seed, and the outcomes of all arms as arrays.

run/tasks/TASK holds items.parquet (TASK_ITEMS), contaminated.parquet (CONTAMINATED), and for each model NAME.parquet
(TASK_OUTCOMES) and NAME.json (`TaskEvaluation`); NAME is `base` or ARM-seed-K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.checksums import is_damaged, whole
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import training_name
from siftune.curation.schema import conform
from siftune.training.arm_names import BASE
from siftune.training.evaluation.statistics import Floats

#: One row for each item that was scored. Of kind `choice`, `outcome` is the probability of the right choice and
#: `accuracy` whether it is the most likely one; of kind `ifeval` they say whether the answer follows all instructions,
#: strictly and loosely; of other kinds both say whether the answer is right (1 or 0). `answer` is the model's answer.
TASK_OUTCOMES = pl.Schema({"item": pl.String, "outcome": pl.Float64, "accuracy": pl.Float64, "answer": pl.String})


class TaskEvaluation(BaseModel):
    """How one model was scored on one task: the document beside its outcomes."""

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    #: What the weights are: the hash of the adapter, or the identity of the base.
    digest: str
    #: The items, how they are asked, and the base: outcomes of other keys cannot be compared.
    key: str
    items: int
    #: Items that the chat template or the model's context has no room for, or that cannot be checked here.
    left_out: int
    outcome: float
    accuracy: float
    #: Whether one pass read a question once for all of its choices; None where nothing is chosen.
    shared_questions: bool | None
    seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class TaskOutcomes:
    """The outcomes of all arms over one list of items.

    items: their names. clusters: the cluster of each. seeds: by arm, the seed of each run. outcome, accuracy: by arm,
    float64 (runs, items).
    """

    items: list[str]
    clusters: list[str]
    seeds: dict[str, tuple[int, ...]]
    outcome: dict[str, Floats]
    accuracy: dict[str, Floats]


def write_outcomes(evaluation: TaskEvaluation, outcomes: pl.DataFrame, folder: Path) -> None:
    """Write NAME.parquet, then NAME.json: where the second stands, the model is scored."""
    write_parquet(conform(outcomes, TASK_OUTCOMES), folder / f"{evaluation.name}.parquet", checked=True)
    write_json(evaluation.model_dump(mode="json"), folder / f"{evaluation.name}.json")


def read_task_evaluation(folder: Path, name: str) -> TaskEvaluation | None:
    """NAME.json of a scored model; None when it is missing or damaged, or when an older version wrote it."""
    path, outcomes = folder / f"{name}.json", folder / f"{name}.parquet"
    if not (path.is_file() and outcomes.is_file()) or is_damaged(outcomes):
        return None
    try:
        return TaskEvaluation.model_validate_json(path.read_bytes())
    except ValueError:  # what pydantic raises is one
        return None


def read_outcomes(
    run: RunFolder, label: str, seeds: Mapping[str, Sequence[int]], *, without: Sequence[str]
) -> TaskOutcomes:
    """Read the outcomes of a task.

    Args:
        run: a run whose tasks are scored.
        label: the name of the task.
        seeds: by arm, the seed of each run; the base has one.
        without: items that do not count.

    Raises:
        UserError: an arm or seed is not scored, or two files hold different items.
    """
    folder = run.tasks_folder / label
    items_path = whole(folder / "items.parquet")
    clusters = dict(pl.read_parquet(items_path, columns=["item", "cluster"], glob=False).iter_rows())
    frames = {
        (arm, seed): _read_frame(run, folder / f"{BASE if arm == BASE else training_name(arm, seed)}.parquet", without)
        for arm, arm_seeds in seeds.items()
        for seed in arm_seeds
    }
    items = next(iter(frames.values()))["item"].to_list()
    if any(frame["item"].to_list() != items for frame in frames.values()):
        raise UserError(f"The files in {folder} hold different items. Remove the folder and compare again.")
    by_arm = {
        column: {
            arm: np.stack([frames[arm, seed][column].to_numpy() for seed in arm_seeds])
            for arm, arm_seeds in seeds.items()
        }
        for column in ("outcome", "accuracy")
    }
    return TaskOutcomes(
        items=items,
        clusters=[clusters[item] for item in items],
        seeds={arm: tuple(arm_seeds) for arm, arm_seeds in seeds.items()},
        outcome=by_arm["outcome"],
        accuracy=by_arm["accuracy"],
    )


def _read_frame(run: RunFolder, path: Path, without: Sequence[str]) -> pl.DataFrame:
    if not path.is_file():
        raise UserError(
            f"{path.stem} has no outcomes of the task {path.parent.name}. Score it with: siftune compare {run.path}"
        )
    frame = pl.read_parquet(whole(path), columns=["item", "outcome", "accuracy"], glob=False)
    return frame.filter(~pl.col("item").is_in(list(without))).sort("item")
