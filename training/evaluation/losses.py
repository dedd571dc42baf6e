"""The held-out losses of all arms as arrays, after proof that every arm was judged on the same rows and tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.errors import UserError
from siftune.training.arm_names import BASE, arm_sort_key
from siftune.training.evaluation.statistics import Floats

#: What evaluation writes for each held-out row: `nll` is the summed negative log-likelihood (nats) of its `tokens`
#: trained tokens, `mask_hash` proves which tokens these were.
JUDGED = pl.Schema(
    {
        "id": pl.String,
        "nll": pl.Float64,
        "tokens": pl.Int64,
        "group": pl.Int64,
        "source": pl.String,
        "length_bin": pl.String,
        "leaked": pl.Boolean,
        "mask_hash": pl.String,
    }
)
_TRAINED = re.compile(r"(?P<arm>.+)-seed-(?P<seed>\d+)")


@dataclass(frozen=True)
class Judged:
    """Losses (runs, rows) by arm over one list of rows; `groups` numbers the similarity groups from 0."""

    ids: list[str]
    tokens: Floats
    groups: NDArray[np.int64]
    strata: pl.DataFrame
    losses: dict[str, Floats]
    seeds: dict[str, tuple[int, ...]]

    def only(self, chosen: NDArray[np.bool_]) -> Judged:
        """The same arms on some of the rows."""
        _, groups = np.unique(self.groups[chosen], return_inverse=True)
        ids = [name for name, wanted in zip(self.ids, chosen, strict=True) if wanted]
        losses = {arm: each[:, chosen] for arm, each in self.losses.items()}
        return Judged(ids, self.tokens[chosen], groups, self.strata.filter(pl.Series(chosen)), losses, self.seeds)


def read(run: Path) -> Judged:
    """Read run/evaluation/{base,ARM-seed-K}.parquet.

    Raises:
        UserError: nothing was evaluated, fewer than two arms were, or two files disagree on ids, token counts or masks.
    """
    files = _files(run / "evaluation")
    frames = {key: _frame(path) for key, path in files.items()}
    first_key, first = next(iter(frames.items()))
    for key, frame in frames.items():
        _same(first, frame, files[first_key].name, files[key].name)
    arms = sorted({arm for arm, _ in frames}, key=arm_sort_key)
    if len(arms) < 2:
        raise UserError(
            f"Only {arms[0]} was evaluated in {run}; a verdict compares two arms. Train more: siftune train {run}"
        )
    seeds = {arm: tuple(seed for name, seed in frames if name == arm) for arm in arms}
    losses = {arm: np.stack([frames[arm, seed]["nll"].to_numpy() for seed in seeds[arm]]) for arm in arms}
    _, groups = np.unique(first["group"].to_numpy(), return_inverse=True)
    strata = first.select("length_bin", "source", "leaked")
    tokens = first["tokens"].to_numpy().astype(np.float64)
    return Judged(first["id"].to_list(), tokens, groups.astype(np.int64), strata, losses, seeds)


def _files(folder: Path) -> dict[tuple[str, int], Path]:
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        if path.stem == BASE:
            found[BASE, 0] = path
        elif match := _TRAINED.fullmatch(path.stem):
            found[match["arm"], int(match["seed"])] = path
    if not found:
        raise UserError(f"{folder.parent} holds no evaluated arm. Train and judge first: siftune train {folder.parent}")
    return dict(sorted(found.items(), key=lambda item: (arm_sort_key(item[0][0]), item[0][1])))


def _frame(path: Path) -> pl.DataFrame:
    frame = pl.read_parquet(path)
    missing = [name for name in JUDGED if name not in frame.columns]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}. Remove it and evaluate again.")
    kept = frame.select(pl.col(name).cast(kind) for name, kind in JUDGED.items()).sort("id")
    if kept.is_empty() or kept["tokens"].min() == 0:
        raise UserError(f"{path} holds no rows, or rows without a judged token. Remove it and evaluate again.")
    if not kept["nll"].is_finite().all():
        raise UserError(f"{path} holds losses that are not finite: that arm's training broke. Look at its log.parquet.")
    return kept


def _same(first: pl.DataFrame, other: pl.DataFrame, name: str, other_name: str) -> None:
    """Raise unless both frames judge the same tokens of the same rows."""
    again = "Remove run/evaluation and evaluate all arms again."
    if first["id"].n_unique() != first.height:
        raise UserError(f"{name} judges a row twice. {again}")
    if not first["id"].equals(other["id"]):
        differing = set(first["id"].to_list()) ^ set(other["id"].to_list())
        example = min(differing) if differing else first["id"][0]
        raise UserError(
            f"{name} and {other_name} judge different held-out rows ({len(differing)} differ, e.g. {example}). {again}"
        )
    for column, what in (("tokens", "different numbers of tokens"), ("mask_hash", "different tokens (mask hashes)")):
        unlike = first.filter(first[column].ne_missing(other[column]))
        if unlike.height:
            raise UserError(
                f"{name} and {other_name} were judged on {what} in {unlike.height} rows, "
                f"e.g. {unlike['id'][0]}. {again}"
            )
