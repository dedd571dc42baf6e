"""Did curation help? The document that a comparison of arms leaves, and how it is computed from their losses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.recipe.training_sections import Compare, Training
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.differences import Difference, Stratum, paired_difference, strata_of
from siftune.training.evaluation.formatting import format_budget
from siftune.training.evaluation.judge_model import JudgeResult
from siftune.training.evaluation.losses import read_losses
from siftune.training.evaluation.memorization import Memorization, read_memorization
from siftune.training.evaluation.run_noise import RunNoise, run_noise
from siftune.training.evaluation.selection_pairs import selection_pairs
from siftune.training.evaluation.stage_contributions import (
    CURATED,
    StageContribution,
    stage_arms,
    stage_contributions,
)
from siftune.training.evaluation.tasks.comparisons import HELDOUT_LOSS, TaskResult, compare_tasks
from siftune.training.evaluation.usage import ArmUsage, curated_away, read_usage
from siftune.training.evaluation.verdict_sentences import (
    Outcome,
    comparison_sentence,
    condition,
    headline,
    noise_floor_sentence,
    outcome_of,
)

#: The comparisons whose p values are adjusted together (Holm): the question of the run. Others are exploratory.
DECLARED = (("curated", "raw"), ("curated", "random"))
_EXPLORATORY = (
    ("random", "raw"),
    ("random-2", "random"),
    ("balanced-random", "raw"),
    ("balanced-random", "random"),
    ("curated", "balanced-random"),
    ("longest", "raw"),
    ("curated", "longest"),
)


@dataclass(frozen=True)
class Comparison:
    """`arm` against `against`. `p_adjusted` (Holm) and `strata` stand where the comparison is declared.

    `p_rows` is the sign-flip p over groups; `difference.p` is the same with single runs and holds the noise of training
    runs when there are several. `runs` counts the training runs of both arms.
    """

    arm: str
    against: str
    declared: bool
    runs: tuple[int, int]
    difference: Difference
    p_rows: float
    p_adjusted: float | None
    outcome: Outcome
    sentence: str
    strata: tuple[Stratum, ...]

    @property
    def name(self) -> str:
        """Such as `curated − raw`."""
        return f"{self.arm} − {self.against}"


@dataclass(frozen=True)
class NoiseFloor:
    """The difference of two arms that nothing but chance tells apart; `why` says why. To be seen beside the effect."""

    arm: str
    against: str
    difference: Difference
    why: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """verdict.json: everything that `siftune compare` says. Losses are mean nats per token over runs.

    `headline` is the verdict in words, the same in the report, the app, the model card and on the command line.
    """

    headline: str
    condition: str
    budget: str
    losses: dict[str, float]
    run_noise: RunNoise
    noise_floor: NoiseFloor | None
    comparisons: tuple[Comparison, ...]
    stages: tuple[StageContribution, ...]
    usage: tuple[ArmUsage, ...]
    curated_away: dict[str, int]
    memorization: tuple[Memorization, ...]
    tasks: tuple[TaskResult, ...]
    judge: JudgeResult | None
    rows: int
    groups: int
    tokens: int
    bootstrap: int
    permutations: int
    seed: int

    @classmethod
    def read(cls, run: RunFolder) -> Verdict | None:
        """verdict.json of a run; None before the arms were compared.

        Raises:
            UserError: the file is damaged, or another version of siftune wrote it.
        """
        path = run.verdict_json
        if not path.is_file():
            return None
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError:
            raise UserError(
                f"{path} is damaged, or another version of siftune wrote it. Write it again: siftune compare {run.path}"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The document in JSON types."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document

    @property
    def declared(self) -> tuple[Comparison, ...]:
        """The comparisons that the headline is about."""
        return tuple(comparison for comparison in self.comparisons if comparison.declared)


def compute_verdict(
    run: RunFolder,
    compare: Compare,
    *,
    training: Training | None = None,
    judge: JudgeResult | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Compare the arms whose losses the run holds; writes nothing.

    Args:
        run: a run with evaluated arms.
        compare: the numbers of bootstrap draws and of permutations.
        training: the section that the arms were trained by, for its budget.
        judge: what a judge model said of the answers.
        seed: seed of all random numbers.
        progress: called for every pair of arms.

    Raises:
        UserError: fewer than two arms were evaluated, or not on the same rows, tokens and masks.
    """
    losses = read_losses(run)
    if compare.by_topic:
        losses = losses.with_topics(run.rows())

    # Declared comparisons first, then the exploratory ones, then every trained arm against the untrained base.
    against_base = [(arm, BASE) for arm in losses.nll if arm != BASE and BASE in losses.nll]
    against_stages = [(CURATED, arm) for arm in stage_arms(run)]
    against_controls = selection_pairs(run, training, trained=losses.nll)
    others = (*_EXPLORATORY, *against_stages, *against_controls)
    known = [pair for pair in (*DECLARED, *others) if set(pair) <= set(losses.nll)]
    pairs = known + against_base
    measured, strata = {}, {}
    for index, (arm, against) in enumerate(pairs):
        if progress:
            progress(f"comparing {arm} with {against}", index, len(pairs))
        measured[arm, against] = paired_difference(losses, arm, against, compare, seed=seed)
        if (arm, against) in DECLARED:
            strata[arm, against] = tuple(strata_of(losses, arm, against, compare, seed=seed))

    # Only the declared comparisons are adjusted, those of each family of outcomes together.
    declared = {pair: measured[pair][0].p for pair in pairs if pair in DECLARED}
    tasks, adjusted = compare_tasks(run, compare, seeds=losses.seeds, pairs=pairs, declared=declared, seed=seed)

    # Outcomes and sentences follow from the numbers.
    comparisons = []
    for (arm, against), (difference, p_rows) in measured.items():
        p_adjusted = adjusted.get((arm, against))
        runs = min(len(losses.nll[name]) for name in (arm, against) if name != BASE)
        outcome = outcome_of(difference, difference.p if p_adjusted is None else p_adjusted, runs=runs)
        comparisons.append(
            Comparison(
                arm=arm,
                against=against,
                declared=(arm, against) in DECLARED,
                runs=(len(losses.nll[arm]), len(losses.nll[against])),
                difference=difference,
                p_rows=p_rows,
                p_adjusted=p_adjusted,
                outcome=outcome,
                sentence=comparison_sentence(arm, against, difference, p_adjusted=p_adjusted, outcome=outcome),
                strata=strata.get((arm, against), ()),
            )
        )

    usage = read_usage(run, losses.seeds)
    run_losses = {arm: nll.sum(1) / losses.tokens.sum() for arm, nll in losses.nll.items()}
    declared_outcomes = {c.against: c.outcome for c in comparisons if c.declared}
    of_curated = {c.against: (c.difference, c.outcome) for c in comparisons if c.arm == CURATED}
    measure = HELDOUT_LOSS
    for task in tasks:
        if task.primary:
            declared_outcomes = {c.against: c.outcome for c in task.comparisons if c.role == "primary"}
            measure = f"the task {task.label}"
    return Verdict(
        headline=headline("curated", declared_outcomes, measure=measure),
        condition=condition(losses.seeds),
        budget=format_budget(training.budget if training else None),
        losses={arm: float(per_run.mean()) for arm, per_run in run_losses.items()},
        run_noise=run_noise(run_losses, losses.seeds),
        noise_floor=_noise_floor(measured, usage),
        comparisons=tuple(comparisons),
        stages=stage_contributions(run, of_curated),
        usage=usage,
        curated_away=curated_away(usage),
        memorization=read_memorization(run),
        tasks=tasks,
        judge=judge,
        rows=len(losses.ids),
        groups=int(losses.groups.max()) + 1,
        tokens=int(losses.tokens.sum()),
        bootstrap=compare.bootstrap,
        permutations=compare.permutations,
        seed=seed,
    )


def _noise_floor(
    measured: Mapping[tuple[str, str], tuple[Difference, float]], usage: Sequence[ArmUsage]
) -> NoiseFloor | None:
    """The measured difference of two arms that are equal in law; None where no two arms are.

    Two draws of the random arm are. So are raw and random as long as no run saw a row twice: both then trained on a
    random sample of the same rows.
    """
    single_pass = all(arm.rows <= arm.arm_rows for arm in usage if arm.arm in ("raw", "random"))
    candidates = {("random-2", "random"): "both are random samples of one size from the same rows"}
    if single_pass:
        why = "with this budget both arms saw a random sample of the same rows, none of them twice"
        candidates["random", "raw"] = why
    for (arm, against), why in candidates.items():
        if (arm, against) in measured:
            difference, _ = measured[arm, against]
            return NoiseFloor(arm, against, difference, why, noise_floor_sentence(arm, against, difference, why))
    return None
