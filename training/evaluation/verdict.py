"""Did curation help? Paired differences of held-out loss between arms, and words that follow from the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siftune.curation.atomic_files import write_json, write_text
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Budget, Compare, Training
from siftune.training.arm_names import BASE
from siftune.training.evaluation import losses as judged
from siftune.training.evaluation import statistics
from siftune.training.evaluation.losses import Judged
from siftune.training.evaluation.statistics import Estimate, Floats
from siftune.training.evaluation.usage import Emission, Usage, curated_away, read_emission, read_usage

Word = Literal["better", "worse", "not enough evidence"]

#: The comparisons whose p values are adjusted together (Holm): what the job sets out to ask. Others are exploratory.
DECLARED = (("curated", "raw"), ("curated", "random"))
_OTHERS = (("random", "raw"), ("longest", "raw"), ("curated", "longest"))
_STRATA = ("length_bin", "source", "leaked")


@dataclass(frozen=True)
class Difference:
    """Loss of one arm minus loss of the other over some rows; negative means `arm` is better.

    per_token: summed loss over tokens (long answers weigh more). per_row: mean over rows of the loss per token.
    improved: share of rows on which `arm` has the lower loss; equal ones count half.
    """

    per_token: Estimate
    per_row: Estimate
    improved: Estimate
    p: float
    rows: int
    groups: int
    tokens: int


@dataclass(frozen=True)
class Stratum:
    """The same difference on one kind of rows: `column` is length_bin, source or leaked."""

    column: str
    value: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """`arm` against `against`. `p_adjusted` (Holm) and `strata` stand where the comparison is declared.

    `p_rows` is the sign-flip p over groups; `difference.p` is the same with single runs and takes the spread between
    training runs into account when there are several.
    """

    arm: str
    against: str
    declared: bool
    runs: tuple[int, int]
    difference: Difference
    p_rows: float
    p_adjusted: float | None
    word: Word
    sentence: str
    strata: tuple[Stratum, ...]


@dataclass(frozen=True)
class Verdict:
    """Everything that `siftune compare` says; losses are mean nats per token over runs."""

    headline: str
    condition: str
    budget: str
    losses: dict[str, float]
    comparisons: tuple[Comparison, ...]
    usage: tuple[Usage, ...]
    curated_away: dict[str, int]
    emission: tuple[Emission, ...]
    rows: int
    groups: int
    tokens: int
    bootstrap: int
    permutations: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def write(self, run: Path) -> None:
        """Write verdict.json and verdict.md into the run folder."""
        from siftune.training.evaluation.verdict_report import markdown

        write_json(self.to_dict(), run / "verdict.json")
        write_text(markdown(self), run / "verdict.md")


def verdict(
    run: Path,
    compare: Compare,
    *,
    training: Training | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Judge the arms that run/evaluation holds.

    Raises:
        UserError: fewer than two arms were evaluated, or not on the same rows, tokens and masks.
    """
    from siftune.training.evaluation import verdict_report

    data = judged.read(run)
    pairs = list(_pairs(data))
    found = []
    for place, (arm, against) in enumerate(pairs):
        if progress:
            progress(f"comparing {arm} with {against}", place, len(pairs))
        found.append(_compare(data, arm, against, compare, seed=seed))
    comparisons = tuple(verdict_report.worded(_adjusted(found)))
    usage = read_usage(run, data.seeds)
    return Verdict(
        headline=verdict_report.headline(comparisons),
        condition=verdict_report.condition(data.seeds),
        budget=budget_words(training.budget if training else None),
        losses={arm: float(each.mean(0).sum() / data.tokens.sum()) for arm, each in data.losses.items()},
        comparisons=comparisons,
        usage=usage,
        curated_away=curated_away(usage),
        emission=read_emission(run),
        rows=len(data.ids),
        groups=int(data.groups.max()) + 1,
        tokens=int(data.tokens.sum()),
        bootstrap=compare.bootstrap,
        permutations=compare.permutations,
        seed=seed,
    )


def judge(run: Path, *, progress: Progress | None = None) -> Verdict:
    """`verdict` by the run's own recipe, written to verdict.json and verdict.md. Raises `UserError` like it."""
    from siftune.curation.run.folder import RunFolder

    recipe = RunFolder.open(run).recipe
    found = verdict(run, recipe.compare, training=recipe.training, seed=recipe.seed, progress=progress)
    found.write(run)
    return found


def budget_words(budget: Budget | None) -> str:
    """The budget of every arm, e.g. `200,000 trained tokens`."""
    words = {"tokens": "trained tokens", "steps": "optimiser steps", "epochs": "epochs", "minutes": "minutes"}
    given = {name: getattr(budget, name, None) for name in words}
    return next((f"{value:,g} {words[name]}" for name, value in given.items() if value is not None), "not recorded")


def difference(data: Judged, arm: str, against: str, compare: Compare, *, seed: int) -> tuple[Difference, float]:
    """The paired difference of two arms, and its sign-flip p over groups alone.

    Runs are averaged before rows are compared; the spread between runs widens the interval (`run_draws`).
    """
    first, second = data.losses[arm], data.losses[against]
    rows = first.mean(0) - second.mean(0)
    improved = np.where(rows == 0, 0.5, rows < 0)
    top = statistics.group_sums(np.stack([rows, rows / data.tokens, improved]), data.groups)
    ones = np.ones_like(rows)
    bottom = statistics.group_sums(np.stack([data.tokens, ones, ones]), data.groups)
    values, errors = statistics.ratio_error(top, bottom)
    pivots = statistics.pivots(top, bottom, draws=compare.bootstrap, seed=seed)
    totals = [(x.sum(1) / data.tokens.sum(), (x / data.tokens).mean(1)) for x in (first, second)]
    estimates, per_token_draws = [], pivots[0]
    for kind in range(3):
        spread = (0.0, np.inf) if kind == 2 else statistics.run_error(totals[0][kind], totals[1][kind])
        draws = errors[kind] * pivots[kind] + statistics.run_draws(*spread, draws=compare.bootstrap, seed=seed)
        combined = float(np.hypot(errors[kind], spread[0]))
        estimates.append(
            statistics.estimate(float(values[kind]), combined, draws, groups=top.shape[1], freedom=spread[1])
        )
        per_token_draws = draws if kind == 0 else per_token_draws
    p_rows = statistics.sign_flip(top[0], draws=compare.permutations, seed=seed)
    several = max(len(first), len(second)) > 1
    p = max(p_rows, statistics.two_sided(float(values[0]), per_token_draws)) if several else p_rows
    per_token, per_row, share = estimates
    tokens = int(data.tokens.sum())
    return Difference(per_token, per_row, _within_one(share), p, len(rows), top.shape[1], tokens), p_rows


def _within_one(share: Estimate) -> Estimate:
    if share.low is None or share.high is None:
        return share
    return Estimate(share.value, max(0.0, share.low), min(1.0, share.high), share.se, None)


def _compare(data: Judged, arm: str, against: str, compare: Compare, *, seed: int) -> Comparison:
    whole, p_rows = difference(data, arm, against, compare, seed=seed)
    runs = (len(data.losses[arm]), len(data.losses[against]))
    declared = (arm, against) in DECLARED
    strata = tuple(_strata(data, arm, against, compare, seed=seed)) if declared else ()
    return Comparison(arm, against, declared, runs, whole, p_rows, None, "not enough evidence", "", strata)


def _strata(data: Judged, arm: str, against: str, compare: Compare, *, seed: int) -> Iterator[Stratum]:
    for column in _STRATA:
        values = data.strata[column]
        for value in values.unique().drop_nulls().sort().to_list():
            chosen: Floats = (values == value).fill_null(value=False).to_numpy()
            part = data.only(chosen.astype(np.bool_))
            yield Stratum(column, str(value), difference(part, arm, against, compare, seed=seed)[0])


def _pairs(data: Judged) -> Iterator[tuple[str, str]]:
    """Declared comparisons first, then the exploratory ones, then every trained arm against the untrained base."""
    known = [pair for pair in (*DECLARED, *_OTHERS) if set(pair) <= set(data.losses)]
    yield from known
    trained = [arm for arm in data.losses if arm != BASE]
    yield from ((arm, BASE) for arm in trained if BASE in data.losses)


def _adjusted(found: list[Comparison]) -> list[tuple[Comparison, float | None]]:
    declared = [each for each in found if each.declared]
    adjusted = dict(zip(map(id, declared), statistics.holm([each.difference.p for each in declared]), strict=True))
    return [(each, adjusted.get(id(each))) for each in found]
