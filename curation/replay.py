"""Decisions made again from stored measures: with other thresholds, or without some of the stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.stages import Stage, compared_rows


@dataclass(frozen=True)
class Replay:
    """What the stages would do: DECISIONS by stage in order, and which of the given rows (INDEX) are left after them.

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


@dataclass(frozen=True)
class ReplayInput:
    """What stages decide again on: read once, for any number of replays.

    A stage decides on rows that its measure names, and no other row changes these decisions. Of a large run most rows
    are named by no measure, and a replay does without them.

    Attributes:
        rows: INDEX, as the first stage saw it, of the rows that a measure names or that the run dropped.
        others: positions in EXAMPLES of all other rows that the first stage saw, uint32; none of them can be dropped.
        lost: the rows that each stage dropped in the run, column `id`, by its name.
        measure: the file of a stage's measure, by its name.
        earlier: INDEX of the rows of earlier sets.
    """

    rows: pl.DataFrame
    others: NDArray[np.uint32]
    lost: Mapping[str, pl.DataFrame]
    measure: Callable[[str], Path]
    earlier: pl.DataFrame

    @classmethod
    def read(
        cls,
        names: Collection[str],
        *,
        first: pl.DataFrame,
        ledger: pl.DataFrame,
        measure: Callable[[str], Path],
        earlier: pl.DataFrame,
    ) -> ReplayInput:
        """Read which rows the measures name.

        Args:
            names: all stages of the run.
            first: INDEX as the first stage saw it, see `first_index`.
            ledger: LEDGER of the run, which says who reached which stage.
            measure: the file of a stage's measure, by its name.
            earlier: INDEX of the rows of earlier sets.
        """
        drops = ledger.filter(pl.col("action") == "drop")
        lost = {name: drops.filter(pl.col("stage") == name).select("id") for name in names}
        named = pl.concat([*lost.values(), *(_named_rows(measure(name)) for name in names)]).unique()
        is_named = first["id"].is_in(named["id"].implode())
        return cls(first.filter(is_named), first["row"].filter(~is_named).to_numpy(), lost, measure, earlier)

    def decide(
        self, stages: Sequence[Stage], *, left_out: Collection[str] = (), before: Replay | None = None
    ) -> Replay:
        """Let stages decide again; nothing is measured. `left` of the result are those of `rows`.

        Args:
            stages: all stages of the run in their order, or the first of them, with the thresholds to decide by.
            left_out: names of stages that do not decide now.
            before: what the first of these stages decide, where that is known; they do not decide again.
        """
        alive, lost_before = self.rows, self.rows.select("id").clear()
        decisions: dict[str, pl.DataFrame] = {}
        unmeasured: dict[str, int] = {}
        if before is not None:
            alive, decisions, unmeasured = before.left, dict(before.decisions), dict(before.unmeasured)
        for stage in stages:
            if stage.name not in left_out and stage.name not in decisions:
                unmeasured[stage.name] = alive.join(lost_before, on="id", how="semi").height
                compared = compared_rows(stage, alive, self.earlier)
                decided = stage.decide(compared, pl.read_parquet(self.measure(stage.name), glob=False))
                if compared is not alive:  # decisions on rows of earlier sets are not the run's
                    decided = decided.join(alive, on="id", how="semi", maintain_order="left")
                decisions[stage.name] = decided
                alive = _without_dropped(alive, decisions[stage.name])
            lost_before = pl.concat([lost_before, self.lost[stage.name]])
        return Replay(decisions, alive, {name: count for name, count in unmeasured.items() if count})


def _named_rows(measure: Path) -> pl.DataFrame:
    """The ids, column `id`, of the rows that a measure names: those of PAIRS, FINDINGS or MATCHES."""
    named = pl.scan_parquet(measure, glob=False)
    columns = [name for name in ("id", "a", "b") if name in named.collect_schema()]
    return pl.concat([named.select(pl.col(name).alias("id")) for name in columns]).unique().collect()


def decide_again(
    stages: Sequence[Stage],
    *,
    first: pl.DataFrame,
    ledger: pl.DataFrame,
    measure: Callable[[str], Path],
    earlier: pl.DataFrame,
    left_out: Collection[str] = (),
) -> Replay:
    """Let stages decide again on a run's rows, all of which are given; nothing is measured.

    Args:
        stages: all stages of the run in their order, with the thresholds to decide by.
        first: INDEX as the first stage saw it, see `first_index`.
        ledger: LEDGER of the run, which says who reached which stage.
        measure: the file of a stage's measure, by its name.
        earlier: INDEX of the rows of earlier sets.
        left_out: names of stages that do not decide now.
    """
    names = [stage.name for stage in stages]
    stored = ReplayInput.read(names, first=first, ledger=ledger, measure=measure, earlier=earlier)
    decided = stored.decide(stages, left_out=left_out)
    left = first.join(decided.dropped(), on="id", how="anti", maintain_order="left")
    return Replay(decided.decisions, left, decided.unmeasured)


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
