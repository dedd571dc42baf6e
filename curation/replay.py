"""Decisions made again from stored measures: with other thresholds, or without some of the stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from siftune.curation.stages import Stage, compared_rows


@dataclass(frozen=True)
class Replay:
    """What the stages would do: DECISIONS by stage in order, and the rows (INDEX) left after them.

    `unmeasured` counts, for each stage, rows that reach it now but did not when it measured: it cannot drop them, nor
    another row for one of them.
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
        return pl.concat([pl.DataFrame(schema={"id": pl.String, "stage": pl.String}), *frames])


def decide_again(
    stages: Sequence[Stage],
    *,
    first: pl.DataFrame,
    ledger: pl.DataFrame,
    measure: Callable[[str], Path],
    earlier: pl.DataFrame,
    left_out: Collection[str] = (),
) -> Replay:
    """Let stages decide again on a run's rows; nothing is measured.

    Args:
        stages: all stages of the run in their order, with the thresholds to decide by.
        first: INDEX as the first stage saw it, see `first_index`.
        ledger: LEDGER of the run, which says who reached which stage.
        measure: the file of a stage's measure, by its name.
        earlier: INDEX of the rows of earlier sets.
        left_out: names of stages that do not decide now.
    """
    alive = in_run = first
    decisions: dict[str, pl.DataFrame] = {}
    unmeasured: dict[str, int] = {}
    for stage in stages:
        if stage.name not in left_out:
            unmeasured[stage.name] = alive.join(in_run.select("id"), on="id", how="anti").height
            compared = compared_rows(stage, alive, earlier)
            decided = stage.decide(compared, pl.read_parquet(measure(stage.name), glob=False))
            decisions[stage.name] = decided.join(alive, on="id", how="semi", maintain_order="left")
            alive = _without_dropped(alive, decisions[stage.name])
        in_run = _without_dropped(in_run, ledger.filter(pl.col("stage") == stage.name))
    return Replay(decisions, alive, {name: count for name, count in unmeasured.items() if count})


def first_index(ranked: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """INDEX as the first stage saw it: restored rows pinned, rows dropped by hand left out.

    Args:
        ranked: INDEX of all rows that could be read.
        ledger: LEDGER of the run.
    """
    by_hand = ledger.filter(pl.col("stage") == "overrides")
    restored = by_hand.filter(pl.col("action") == "restore")["id"]
    pinned = ranked.with_columns(pl.col("id").is_in(restored.implode()).alias("pinned"))
    return _without_dropped(pinned, by_hand)


def _without_dropped(alive: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    dropped = decisions.filter(pl.col("action") == "drop").select("id")
    return alive.join(dropped, on="id", how="anti", maintain_order="left")
