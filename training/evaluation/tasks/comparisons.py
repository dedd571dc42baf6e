"""The outcomes of tasks compared between arms, item by item and seed by seed, as held-out losses are.

The loss of an item is 1 − its outcome, so that intervals, p values and words come from the same code as those of the
verdict; what is shown is the difference of outcomes, where positive means that the first arm is better.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.recipe.training_sections import Compare, Task
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.differences import Difference, paired_difference
from siftune.training.evaluation.losses import HeldoutLosses
from siftune.training.evaluation.run_noise import RunNoise, run_noise
from siftune.training.evaluation.statistics import Estimate, Floats, holm
from siftune.training.evaluation.tasks.contaminated_items import read_check, read_contaminated
from siftune.training.evaluation.tasks.outcomes import TaskOutcomes, read_outcomes, read_task_evaluation
from siftune.training.evaluation.verdict_sentences import Outcome, outcome_of

Pair = tuple[str, str]
#: A comparison is of the primary outcome, of a secondary one (adjusted together), or neither.
Role = Literal["primary", "secondary", "exploratory"]
#: What a task is called that is no task: the outcome of the verdict unless a task is primary.
HELDOUT_LOSS = "held-out loss"
#: Mean outcomes that differ by less are equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class TaskComparison:
    """The mean outcome of `arm` minus that of `against`; positive means that `arm` is better.

    `accuracy` is the same difference of accuracies (of IFEval: of prompts followed loosely), exploratory; None where
    the outcome is the accuracy. `p_adjusted` is Holm's where the comparison is not exploratory. `runs` counts the
    training runs of both arms.
    """

    arm: str
    against: str
    role: Role
    runs: tuple[int, int]
    difference: Estimate
    accuracy: Estimate | None
    p: float
    p_adjusted: float | None
    outcome: Outcome

    @property
    def name(self) -> str:
        """Such as `curated − raw`."""
        return f"{self.arm} − {self.against}"


@dataclass(frozen=True)
class TaskResult:
    """One task: how many items count, what each arm reached, and how arms differ.

    items, clusters: those that count. contaminated: items that are left out because a trained row holds them, `related`
    those that stay though a trained row resembles them; left_out: items that cannot be scored. outcomes,
    accuracies: by arm, the means over items and runs. run_noise: of the mean outcome of one training run.
    """

    label: str
    kind: str
    primary: bool
    items: int
    clusters: int
    contaminated: int
    related: int
    left_out: int
    outcomes: dict[str, float]
    accuracies: dict[str, float]
    run_noise: RunNoise | None
    comparisons: tuple[TaskComparison, ...]

    @property
    def measure(self) -> str:
        """What the outcome of an item is."""
        names = {
            "choice": "probability of the right choice",
            "ifeval": "prompts followed strictly",
            "lm-eval": "measure of lm-evaluation-harness",
        }
        return names.get(self.kind, "share of right answers")

    @property
    def second_measure(self) -> str | None:
        """What `accuracies` hold where they are not the outcome itself."""
        return {"choice": "accuracy", "ifeval": "prompts followed loosely"}.get(self.kind)


def compare_tasks(
    run: RunFolder,
    compare: Compare,
    *,
    seeds: Mapping[str, Sequence[int]],
    pairs: Sequence[Pair],
    declared: Mapping[Pair, float],
    seed: int,
) -> tuple[tuple[TaskResult, ...], dict[Pair, float]]:
    """Compare the arms on every task, and adjust the declared comparisons of all outcomes.

    Held-out loss is the primary outcome unless a task is. The declared comparisons of the primary outcome are adjusted
    together, and so are those of all secondary ones: a secondary outcome takes nothing from the primary one.

    Args:
        run: a run whose tasks are scored.
        compare: the tasks, and the numbers of bootstrap draws and of permutations.
        seeds: by arm, the seed of each run that is compared.
        pairs: the arms that are compared.
        declared: p of held-out loss for each declared pair.
        seed: seed of all random numbers.

    Returns:
        The results of the tasks, and the adjusted p of held-out loss for each declared pair.

    Raises:
        UserError: an arm or seed is not scored.
    """
    measured = {task.label: _measure(run, task, compare, seeds, pairs, seed=seed) for task in compare.tasks}
    loss_is_primary = not any(task.primary for task in compare.tasks)
    families: dict[bool, dict[tuple[str, Pair], float]] = {True: {}, False: {}}
    families[loss_is_primary] |= {(HELDOUT_LOSS, pair): p for pair, p in declared.items()}
    for task in compare.tasks:
        of_task = measured[task.label].differences
        families[task.primary] |= {(task.label, pair): of_task[pair].p for pair in of_task if pair in declared}
    adjusted = {
        key: p for family in families.values() for key, p in zip(family, holm(list(family.values())), strict=True)
    }
    results = tuple(_result(task, measured[task.label], adjusted, declared) for task in compare.tasks)
    return results, {pair: adjusted[HELDOUT_LOSS, pair] for pair in declared}


@dataclass(frozen=True)
class _Measured:
    """A task's outcomes and differences before any adjustment."""

    outcomes: TaskOutcomes
    clusters: int
    contaminated: int
    related: int
    left_out: int
    differences: dict[Pair, Difference]
    accuracies: dict[Pair, Difference]


def _measure(
    run: RunFolder,
    task: Task,
    compare: Compare,
    seeds: Mapping[str, Sequence[int]],
    pairs: Sequence[Pair],
    *,
    seed: int,
) -> _Measured:
    folder = run.tasks_folder / task.label
    check, base = read_check(folder), read_task_evaluation(folder, BASE)
    contaminated = read_contaminated(folder)["item"].to_list() if check else []
    outcomes = read_outcomes(run, task.label, seeds, without=contaminated)
    _, clusters = np.unique(outcomes.clusters, return_inverse=True)

    def differences(values: Mapping[str, Floats]) -> dict[Pair, Difference]:
        losses = _as_losses(outcomes, clusters.astype(np.int64), values)
        return {pair: _without_rounding(paired_difference(losses, *pair, compare, seed=seed)[0]) for pair in pairs}

    return _Measured(
        outcomes=outcomes,
        clusters=len(set(outcomes.clusters)),
        contaminated=len(contaminated),
        related=check.related if check else 0,
        left_out=base.left_out if base else 0,
        differences=differences(outcomes.outcome) if outcomes.items else {},
        accuracies=differences(outcomes.accuracy) if outcomes.items and task.kind in ("choice", "ifeval") else {},
    )


def _as_losses(outcomes: TaskOutcomes, clusters: NDArray[np.int64], values: Mapping[str, Floats]) -> HeldoutLosses:
    """1 − outcome as the loss of rows of one token each: a mean over tokens is then a mean over items."""
    return HeldoutLosses(
        ids=outcomes.items,
        tokens=np.ones(len(outcomes.items)),
        groups=clusters,
        strata=pl.DataFrame(),
        nll={arm: 1.0 - of_arm for arm, of_arm in values.items()},
        seeds=outcomes.seeds,
    )


def _result(
    task: Task, measured: _Measured, adjusted: Mapping[tuple[str, Pair], float], declared: Collection[Pair]
) -> TaskResult:
    outcomes = measured.outcomes
    comparisons = []
    for pair, difference in measured.differences.items():
        p_adjusted = adjusted.get((task.label, pair))
        runs = (len(outcomes.outcome[pair[0]]), len(outcomes.outcome[pair[1]]))
        fewest = min(count for arm, count in zip(pair, runs, strict=True) if arm != BASE)
        role: Role = "exploratory" if pair not in declared else "primary" if task.primary else "secondary"
        accuracy = measured.accuracies.get(pair)
        comparisons.append(
            TaskComparison(
                arm=pair[0],
                against=pair[1],
                role=role,
                runs=runs,
                difference=_negated(difference.per_token),
                accuracy=_negated(accuracy.per_token) if accuracy else None,
                p=difference.p,
                p_adjusted=p_adjusted,
                outcome=outcome_of(difference, difference.p if p_adjusted is None else p_adjusted, runs=fewest),
            )
        )
    means = {arm: values.mean(1) for arm, values in outcomes.outcome.items()} if outcomes.items else {}
    accuracies = {arm: float(values.mean()) for arm, values in outcomes.accuracy.items()} if outcomes.items else {}
    return TaskResult(
        label=task.label,
        kind=task.kind,
        primary=task.primary,
        items=len(outcomes.items),
        clusters=measured.clusters,
        contaminated=measured.contaminated,
        related=measured.related,
        left_out=measured.left_out,
        outcomes={arm: float(values.mean()) for arm, values in means.items()},
        accuracies=accuracies,
        run_noise=run_noise(means, outcomes.seeds) if means else None,
        comparisons=tuple(comparisons),
    )


def _without_rounding(difference: Difference) -> Difference:
    """The difference as it is, but where no item tells the arms apart: what is left there is rounding, the error is not
    known rather than 0, and nothing speaks against the arms being equal."""
    per_token = difference.per_token
    if abs(per_token.value) > _ROUNDING or (per_token.se or 0.0) > _ROUNDING:
        return difference
    return replace(difference, per_token=Estimate(0.0, None, None, None, None), p=1.0)


def _negated(estimate: Estimate) -> Estimate:
    """The difference of outcomes from the difference of losses."""
    low, high = (None if bound is None else -bound for bound in (estimate.high, estimate.low))
    return Estimate(0.0 - estimate.value, low, high, estimate.se, estimate.minimum_detectable_effect)
