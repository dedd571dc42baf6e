"""The sentences of a verdict, each from the numbers that are printed beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from siftune.training.arm_names import BASE
from siftune.training.evaluation.differences import Difference
from siftune.training.evaluation.formatting import format_interval, format_number, format_p
from siftune.training.evaluation.run_noise import RunNoise
from siftune.training.evaluation.statistics import LEVEL

Outcome = Literal["better", "worse", "not enough evidence", "single run"]

#: What is to be known of the table of stages.
STAGES_NOTE = (
    "Each line leaves one stage out of curation and lets the others decide again. Negative: curated has the lower "
    "loss, so the stage helps. What a stage contributes depends on the stages beside it, and the contributions do not "
    "add up. The p values are not adjusted: of twenty stages that change nothing, about one is called better or worse "
    "by chance."
)


def outcome_of(difference: Difference, p: float, *, runs: int) -> Outcome:
    """Better or worse only where the interval excludes zero and `p` is below 0.05; lower loss is better.

    Args:
        difference: the difference of two arms.
        p: its p value, adjusted where the comparison is declared.
        runs: training runs of the arm that has fewer (the untrained base does not count). One run never gives an
            outcome: what another seed would change is not known.
    """
    if runs < 2:
        return "single run"
    if not difference.per_token.excludes_zero or p >= LEVEL:
        return "not enough evidence"
    return "better" if difference.per_token.value < 0 else "worse"


def headline(arm: str, outcomes: Mapping[str, Outcome], *, measure: str = "held-out loss") -> str:
    """The verdict in one sentence, and in a second one what it means for curation where curated is better than raw.

    Args:
        arm: the arm of the declared comparisons.
        outcomes: by the arm that it was compared with; empty where nothing declared could be compared.
        measure: the primary outcome.
    """
    if not outcomes:
        return "No verdict on curation: it needs the arms curated and raw (or random), trained and evaluated."
    clear = [f"{outcome} than {against}" for against, outcome in outcomes.items() if outcome in ("better", "worse")]
    unclear = " or ".join(against for against, outcome in outcomes.items() if outcome not in ("better", "worse"))
    if set(outcomes.values()) == {"single run"}:
        return (
            f"No verdict from one training run of {arm}: how much another seed would change the difference from "
            f"{' and '.join(outcomes)} is not known. Train three seeds or more (training.seeds: [0, 1, 2])."
        )
    if not clear:
        return f"Not enough evidence that {arm} is better or worse than {unclear} on {measure}."
    sentence = f"On {measure}, {arm} is {' and '.join(clear)}"
    sentence += f"; against {unclear} there is not enough evidence." if unclear else "."
    if outcomes.get("raw") != "better":
        return sentence
    meaning: dict[Outcome | None, str] = {
        "better": " Curation helped, and not only by making the set smaller.",
        "not enough evidence": " The gain over raw may come from the smaller size alone.",
        "worse": "",
        "single run": " The gain over raw may come from the smaller size alone.",
        None: " Without a random arm of the same size, the gain may come from the smaller size alone.",
    }
    return sentence + meaning[outcomes.get("random")]


def comparison_sentence(
    arm: str, against: str, difference: Difference, *, p_adjusted: float | None, outcome: Outcome
) -> str:
    """One comparison with its numbers.

    Args:
        arm, against: the arms.
        difference: loss of `arm` minus loss of `against`.
        p_adjusted: p after Holm's adjustment, where the comparison is declared.
        outcome: what `outcome_of` says.
    """
    per_token = difference.per_token
    if per_token.low is None:
        return f"Not enough evidence: all {difference.rows} held-out rows are in one group of similar rows."
    p = f"p {_equals(difference.p)}" + ("" if p_adjusted is None else f", Holm-adjusted {_equals(p_adjusted)}")
    difference_in_words = f"{arm} − {against} = {format_interval(per_token)} nats per token"
    if outcome == "single run":
        return (
            f"In this run {difference_in_words} (negative is better). The interval holds the noise of the held-out "
            "rows and not that of training: two runs of one arm with different seeds may differ by as much."
        )
    numbers = f"{difference_in_words} (95 % interval; negative is better), {p}"
    if outcome == "not enough evidence":
        effect = format_number(per_token.minimum_detectable_effect, signed=False)
        return (
            f"Not enough evidence that {arm} is better or worse than {against}: {numbers}. The minimum detectable "
            f"effect is {effect}: a true difference of that size is detected with 80 % power."
        )
    return f"{arm.capitalize()} is {outcome} than {against} on held-out loss: {numbers}."


def condition(seeds: Mapping[str, Sequence[int]]) -> str:
    """What the verdict is conditional on, from the seeds of each arm."""
    fewest = min((len(arm_seeds) for arm, arm_seeds in seeds.items() if arm != BASE), default=1)
    if fewest == 1:
        return (
            "Conditional on one training run of an arm: another seed could give another result, and the intervals "
            "do not include that. Train three seeds or more to compare the methods and not single runs."
        )
    few = "" if fewest >= 3 else " Two runs tell little of that noise, so the intervals are wide."
    return f"Over {fewest} training runs of each arm; every interval and p includes the noise of training runs.{few}"


def noise_sentence(noise: RunNoise) -> str:
    """How much training runs of one arm differ by the seed alone."""
    if noise.sd is None:
        return "How much two training runs of one arm differ is not known: it takes two seeds or more."
    return (
        f"Two training runs of one arm differ by {noise.sd * 2**0.5:.4f} nats per token (one standard deviation; from "
        f"{noise.runs} runs of {noise.arms} arms, {noise.freedom} degrees of freedom)."
    )


def noise_floor_sentence(arm: str, against: str, difference: Difference, why: str) -> str:
    """What two arms between which there is nothing to find differ by.

    Args:
        arm, against: the arms.
        difference: loss of `arm` minus loss of `against`.
        why: why nothing but chance tells the arms apart.
    """
    interval = format_interval(difference.per_token)
    return f"Noise floor: {arm} − {against} = {interval} nats per token, though {why}."


def _equals(p: float) -> str:
    return f"= {format_p(p)}" if p >= 0.001 else format_p(p)
