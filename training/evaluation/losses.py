"""What evaluation writes for the base and for each arm and seed, and the losses of all arms as arrays.

run/evaluation holds NAME.parquet (LOSS_COLUMNS) and NAME.json (`Evaluation`); NAME is `base` or ARM-seed-K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.checksums import is_damaged, whole
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import parse_training_name
from siftune.curation.schema import conform
from siftune.training.arm_names import BASE, arm_sort_key
from siftune.training.evaluation.statistics import Floats

LossEngine = Literal["dense", "nf4"]

#: One row for each held-out row: `nll` is the summed negative log-likelihood (nats) of its `tokens` trained tokens,
#: `mask_hash` proves which tokens these were, `bytes` is the length of their text, so that models with other tokenizers
#: can be compared. `leaked`: the raw data holds a similar row. Length bins are of the prompt.
LOSS_COLUMNS = pl.Schema(
    {
        "id": pl.String,
        "nll": pl.Float64,
        "tokens": pl.Int64,
        "group": pl.Int64,
        "source": pl.String,
        "length_bin": pl.String,
        "leaked": pl.Boolean,
        "mask_hash": pl.String,
        "bytes": pl.Int64,
    }
)


class EngineDifference(BaseModel):
    """Loss of the dense model minus loss of the 4-bit model, in nats per token, over a sample of `rows` rows."""

    model_config = ConfigDict(frozen=True)

    rows: int
    mean: float
    largest: float


class Evaluation(BaseModel):
    """How one adapter, or the base, was evaluated: the document beside its losses."""

    model_config = ConfigDict(frozen=True)

    name: str
    #: What the weights are: the hash of the adapter, or the identity of the base.
    digest: str
    adapter_hash: str | None
    #: Held-out rows, their limits and the base: losses of other keys cannot be compared.
    key: str
    #: The model that computed the losses, and why: see `siftune.training.evaluation.loss_worker.LossModel`.
    engine: LossEngine
    engine_why: str
    rows: int
    tokens: int
    #: Nats per token over all rows.
    loss: float
    seconds: float
    truncated_rows: int
    #: None where the engine was not chosen by a sample, or had been before.
    drift: EngineDifference | None
    versions: dict[str, str]


@dataclass(frozen=True)
class HeldoutLosses:
    """The losses of all arms over one list of held-out rows.

    ids: the rows. tokens: float64 (rows,), trained tokens. groups: int64 (rows,), groups of similar rows, numbered from
    0. strata: columns length_bin, source, leaked and, where asked for, topic. nll: by arm, float64 (runs, rows), summed
    negative log-likelihood in nats. seeds: by arm, the seed of each run.
    """

    ids: list[str]
    tokens: Floats
    groups: NDArray[np.int64]
    strata: pl.DataFrame
    nll: dict[str, Floats]
    seeds: dict[str, tuple[int, ...]]

    @classmethod
    def of_frames(cls, frames: Mapping[str, Sequence[pl.DataFrame]], seeds: Mapping[str, Sequence[int]]) -> Self:
        """The losses of frames that hold the same rows in the same order.

        Args:
            frames: by arm, LOSS_COLUMNS of each run.
            seeds: by arm, the seed of each run.
        """
        first = next(iter(frames.values()))[0]
        _, groups = np.unique(first["group"].to_numpy(), return_inverse=True)
        return cls(
            ids=first["id"].to_list(),
            tokens=first["tokens"].to_numpy().astype(np.float64),
            groups=groups.astype(np.int64),
            strata=first.select("length_bin", "source", "leaked"),
            nll={arm: np.stack([frame["nll"].to_numpy() for frame in of_arm]) for arm, of_arm in frames.items()},
            seeds={arm: tuple(of_arm) for arm, of_arm in seeds.items()},
        )

    def with_topics(self, rows: pl.DataFrame) -> HeldoutLosses:
        """The same with `topic` among the strata, from the ROWS of the run."""
        topics = pl.DataFrame({"id": self.ids}).join(
            rows.select("id", "topic"), on="id", how="left", maintain_order="left"
        )
        return replace(self, strata=self.strata.with_columns(topics["topic"]))

    def select(self, mask: NDArray[np.bool_]) -> HeldoutLosses:
        """The same arms on the rows where `mask`, bool (rows,), is true."""
        _, groups = np.unique(self.groups[mask], return_inverse=True)
        ids = [row_id for row_id, selected in zip(self.ids, mask, strict=True) if selected]
        nll = {arm: losses[:, mask] for arm, losses in self.nll.items()}
        return HeldoutLosses(ids, self.tokens[mask], groups, self.strata.filter(pl.Series(mask)), nll, self.seeds)


def write_evaluation(evaluation: Evaluation, losses: pl.DataFrame, folder: Path) -> None:
    """Write NAME.parquet, then NAME.json: where the second stands, the evaluation is finished."""
    write_parquet(conform(losses, LOSS_COLUMNS), folder / f"{evaluation.name}.parquet", checked=True)
    write_json(evaluation.model_dump(mode="json"), folder / f"{evaluation.name}.json")


def read_evaluation(folder: Path, name: str) -> Evaluation | None:
    """NAME.json of a finished evaluation; None when it is missing or damaged, or when an older version wrote it."""
    path, losses = folder / f"{name}.json", folder / f"{name}.parquet"
    if not (path.is_file() and losses.is_file()) or is_damaged(losses):
        return None
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except ValueError:  # what pydantic raises is one
        return None


def read_losses(run: RunFolder) -> HeldoutLosses:
    """Read the losses of all evaluated arms.

    Raises:
        UserError: nothing was evaluated, fewer than two arms were, or two files disagree on ids, token counts or masks.
    """
    files = _loss_files(run.evaluation_folder)
    if not files:
        raise UserError(
            f"{run.path} holds no evaluated arm. Run: siftune train {run.path}, then siftune compare {run.path}"
        )
    frames = {key: _read_frame(path) for key, path in files.items()}

    # Every file must hold the same tokens of the same rows as the first.
    (first_key, first), *others = frames.items()
    for key, frame in others:
        _require_same_tokens(first, frame, files[first_key], files[key])

    arms = sorted({arm for arm, _ in frames}, key=arm_sort_key)
    if len(arms) < 2:
        raise UserError(
            f"Only {arms[0]} was evaluated in {run.path}; a verdict compares two arms. "
            f"Train more: siftune train {run.path}"
        )
    seeds = {arm: tuple(seed for name, seed in frames if name == arm) for arm in arms}
    return HeldoutLosses.of_frames({arm: [frames[arm, seed] for seed in seeds[arm]] for arm in arms}, seeds)


def _loss_files(folder: Path) -> dict[tuple[str, int], Path]:
    """The loss files by arm and seed, arms in their usual order; other parquet files are left out."""
    files = {}
    for path in folder.glob("*.parquet"):
        if path.stem == BASE:
            files[BASE, 0] = path
        elif arm_and_seed := parse_training_name(path.stem):
            files[arm_and_seed] = path
    return dict(sorted(files.items(), key=lambda item: (arm_sort_key(item[0][0]), item[0][1])))


def _read_frame(path: Path) -> pl.DataFrame:
    """LOSS_COLUMNS of one file, sorted by id."""
    frame = pl.read_parquet(whole(path), glob=False)
    missing = [name for name in LOSS_COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}. Remove it and evaluate again.")
    losses = frame.select(pl.col(name).cast(dtype) for name, dtype in LOSS_COLUMNS.items()).sort("id")
    if losses["id"].n_unique() != losses.height:
        raise UserError(f"{path} holds a row twice. Remove it and evaluate again.")
    if losses.is_empty() or losses["tokens"].min() == 0:
        raise UserError(f"{path} holds no rows, or rows without a trained token. Remove it and evaluate again.")
    if not losses["nll"].is_finite().all():
        raise UserError(
            f"{path} holds losses that are not finite: that arm's training diverged. Look at its log.parquet."
        )
    return losses


def _require_same_tokens(first: pl.DataFrame, other: pl.DataFrame, first_path: Path, other_path: Path) -> None:
    """Raise `UserError` unless both frames hold the same tokens of the same rows."""
    names = f"{first_path.name} and {other_path.name}"
    advice = f"Remove {first_path.parent} and evaluate all arms again."
    if not first["id"].equals(other["id"]):
        differing = set(first["id"].to_list()) ^ set(other["id"].to_list())
        raise UserError(
            f"{names} hold different held-out rows ({len(differing)} differ, e.g. {min(differing)}). {advice}"
        )
    for column, what in (("tokens", "different numbers of tokens"), ("mask_hash", "different tokens (mask hashes)")):
        mismatches = first.filter(first[column].ne_missing(other[column]))
        if mismatches.height:
            raise UserError(f"{names} hold {what} in {mismatches.height} rows, e.g. {mismatches['id'][0]}. {advice}")
