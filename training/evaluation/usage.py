"""What the training of each arm used, and what curation removed from the raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.result import read_result


@dataclass(frozen=True)
class ArmUsage:
    """What the training of one arm and seed used.

    `tokens` (trained, that is completion tokens), `steps` and `rows` count repetitions. The arm holds `arm_rows` rows
    with `arm_tokens` trained tokens; `truncated_rows` of them were longer than `training.max_length`.
    """

    arm: str
    seed: int
    tokens: int
    minutes: float
    steps: int
    rows: int
    arm_rows: int
    arm_tokens: int
    truncated_rows: int


def read_usage(run: RunFolder, seeds: Mapping[str, Sequence[int]]) -> tuple[ArmUsage, ...]:
    """The usage of every evaluated arm and seed, from the results of training.

    Raises:
        UserError: an arm was evaluated whose training did not finish.
    """
    trainings = [(arm, seed) for arm, arm_seeds in seeds.items() if arm != BASE for seed in arm_seeds]
    usage = []
    for arm, seed in trainings:
        folder = run.training(arm, seed)
        result = read_result(folder)
        if result is None:
            raise UserError(
                f"The arm {arm} (seed {seed}) was evaluated but its training is not finished: {folder} holds no "
                f"result. Finish it with: siftune train {run.path} --arm {arm}"
            )
        usage.append(
            ArmUsage(
                arm=arm,
                seed=seed,
                tokens=result.tokens,
                minutes=result.seconds / 60,
                steps=result.steps,
                rows=result.rows,
                arm_rows=result.arm_rows,
                arm_tokens=result.arm_tokens,
                truncated_rows=result.truncated_rows,
            )
        )
    return tuple(usage)


def curated_away(usage: Sequence[ArmUsage]) -> dict[str, int]:
    """Rows and answer tokens that the raw arm has more than the curated one; empty when either was not trained."""
    arms = {arm_usage.arm: arm_usage for arm_usage in usage}
    if not {"raw", "curated"} <= set(arms):
        return {}
    raw, curated = arms["raw"], arms["curated"]
    return {"rows": raw.arm_rows - curated.arm_rows, "answer_tokens": raw.arm_tokens - curated.arm_tokens}
