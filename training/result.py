"""What a training run leaves in its folder: `done.json` with the result, the log of its steps, its truncated rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from siftune.curation import schema
from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.errors import UserError
from siftune.curation.run.paths import RunPaths
from siftune.training.arm_names import arm_sort_key

RESULT_FILE = "done.json"
LOG_FILE = "log.parquet"
TRUNCATED_FILE = "truncated.parquet"

#: The log of a training run, one row per step. `loss` is in nats per token; `tokens` (trained tokens) and `seconds` are
#: running totals.
LOG_COLUMNS = pl.Schema(
    {
        "step": pl.Int64,
        "loss": pl.Float64,
        "learning_rate": pl.Float64,
        "grad_norm": pl.Float64,
        "tokens": pl.Int64,
        "seconds": pl.Float64,
    }
)


class _Document(BaseModel):
    """A part of done.json. Keys of a later version are ignored, so that its runs stay readable."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class ModelRecord(_Document):
    """The base model that was trained over."""

    name: str
    #: See `siftune.training.models.ResolvedModel.identity`.
    identity: str
    origin: str


class LoadRecord(_Document):
    """How the base model was loaded, and why: see `siftune.training.models.Loading`."""

    load: str
    device: str
    compute: str
    why: str


class PlannedBudget(_Document):
    """What the plan of steps would have used; with a budget in minutes the clock ends training earlier."""

    steps: int
    tokens: int


class MemoryRecord(_Document):
    """The estimate of memory before training, in MiB: see `siftune.training.memory.MemoryEstimate`."""

    weights: int
    adapter: int
    activations: int
    free: int
    total: int
    unit: str
    checkpointing: bool


class TrainingMeasurements(_Document):
    """What a training run was made of and what it used; all that a dry run knows."""

    #: See `siftune.training.jobs.TrainJob.key`.
    key: str
    arm: str
    seed: int
    #: sha256 of the arm's dialogues in order.
    data: str
    model: ModelRecord
    load: LoadRecord
    #: The one field of `training.budget` that was set, with its value.
    budget: dict[str, float | int]
    #: Optimiser steps, and the trained (completion) tokens and rows in them, repetitions counted.
    steps: int
    tokens: int
    rows: int
    #: `rows` as a share of the arm's rows.
    epochs: float
    #: Wall clock of training, without loading and saving.
    seconds: float
    minutes: float
    #: Rows of the arm that were longer than `training.max_length`, have no answer, or that the chat template refuses.
    truncated_rows: int
    #: What to know about rows that the chat template writes in part or not at all; see `siftune.training.masks`.
    warnings: list[str] = []
    #: Rows and trained tokens that the arm holds.
    arm_rows: int
    arm_tokens: int
    planned: PlannedBudget
    tokens_per_second: float
    #: Mean loss of the last step in nats per token.
    last_loss: float
    memory: MemoryRecord
    threads: int
    #: Versions of Python and of every package that can change a number.
    versions: dict[str, str]


class TrainingResult(TrainingMeasurements):
    """A finished training run: what it used, and the adapter that it made."""

    #: sha256 of adapter_model.safetensors.
    adapter_hash: str


def write_result(result: TrainingResult, folder: Path) -> None:
    """Write done.json. It is the last file of a training run: where it stands, the run is finished."""
    write_json(result.model_dump(mode="json", exclude_defaults=True), folder / RESULT_FILE)


def read_result(folder: Path, *, key: str | None = None) -> TrainingResult | None:
    """The result of the training run in `folder`; None when it is not finished, or was another job than `key`.

    Raises:
        UserError: done.json is damaged, or of a version that wrote other fields.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        result = TrainingResult.model_validate_json(path.read_bytes())
    except ValidationError as fault:
        field = ".".join(map(str, fault.errors()[0]["loc"])) or "the document"
        raise UserError(
            f"{path} is not a training result of this version ({field}: {fault.errors()[0]['msg']}). "
            f"Move {folder} away and train again: siftune train RUN"
        ) from None
    return result if key is None or key == result.key else None


def training_folders(run: Path) -> list[tuple[str, int, Path]]:
    """Arm, seed and folder of every training of a run that has begun, by arm (in its order), then seed."""
    return sorted(RunPaths(run).trainings(), key=lambda training: (arm_sort_key(training[0]), training[1]))


def finished_trainings(run: Path) -> list[tuple[Path, TrainingResult]]:
    """Folder and result of every finished training of a run, by arm (in its order), then seed."""
    results = [(folder, read_result(folder)) for _, _, folder in training_folders(run)]
    return [(folder, result) for folder, result in results if result is not None]


def read_log(folder: Path) -> pl.DataFrame:
    """LOG_COLUMNS of the steps that are logged so far; empty before the first one."""
    path = folder / LOG_FILE
    return pl.read_parquet(path, glob=False) if path.is_file() else pl.DataFrame(schema=LOG_COLUMNS)


def write_log(rows: list[dict[str, float]], folder: Path) -> None:
    """Write the log anew from its rows (LOG_COLUMNS)."""
    write_parquet(pl.DataFrame(rows, schema=LOG_COLUMNS), folder / LOG_FILE)


def read_truncated(folder: Path) -> pl.DataFrame | None:
    """LEDGER rows of what `max_length` truncated; None when the run in `folder` has not come so far."""
    path = folder / TRUNCATED_FILE
    return pl.read_parquet(path, glob=False) if path.is_file() else None


def write_truncated(truncated: pl.DataFrame, folder: Path) -> None:
    """Write what `max_length` truncated (LEDGER, action `truncate`)."""
    write_parquet(schema.conform(truncated, schema.LEDGER), folder / TRUNCATED_FILE)
