"""What the Thresholds page computes from a run; independent of Streamlit. Other facts of a run: `curation.review`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.replay import Replay
from siftune.curation.review.what_if import replay
from siftune.curation.run.folder import RunFolder


@dataclass(frozen=True)
class ReplayCounts:
    """What a threshold leaves.

    Attributes:
        dropped: rows that the stage drops.
        reported: rows that it only reports as an item of a benchmark.
        left: rows left after all stages that can be replayed, before splits and balance.
        length: the length of these rows (instruction and answer) in tokens or words.
    """

    dropped: int
    reported: int
    left: int
    length: int


@dataclass(frozen=True)
class ThresholdEffect:
    """A threshold beside the run's own; `unmeasured` rows reach a stage now that did not measure them in the run."""

    chosen: ReplayCounts
    current: ReplayCounts
    unmeasured: int


def threshold_effect(
    run: RunFolder, stage: str, threshold: float, lengths: NDArray[np.uint32] | None = None
) -> ThresholdEffect:
    """Replay the stages with another threshold of one of them, exactly.

    Args:
        run: the run.
        stage: the name of a stage with a threshold.
        threshold: its new threshold.
        lengths: the length of every row of EXAMPLES in tokens, uint32 [rows]; None: lengths in words.

    Raises:
        UserError: as `replay`.
    """
    current, chosen = replay(run, {}), replay(run, {stage: threshold})
    return ThresholdEffect(
        _counts(chosen, stage, lengths), _counts(current, stage, lengths), sum(chosen.unmeasured.values())
    )


def _counts(replayed: Replay, stage: str, lengths: NDArray[np.uint32] | None) -> ReplayCounts:
    left = replayed.left
    if lengths is not None:
        length = int(lengths[left["row"].to_numpy()].sum())
    else:
        words = pl.sum_horizontal(pl.col("prompt_words", "answer_words").cast(pl.Int64).sum())
        length = int(left.select(words).item())
    decisions = replayed.decisions[stage]
    reported = decisions.filter(pl.col("action") == "report", pl.col("reason") == "contamination").height
    return ReplayCounts(decisions.filter(pl.col("action") == "drop").height, reported, left.height, length)
