"""The verdict against known answers: simulated effects, scipy, brute force, Holm by hand; refusals; words."""

from __future__ import annotations

import doctest
import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Budget, Compare, Training
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import FORMAT, ArmRecord, Manifest, RowCounts, WordCounts, WriterRecord
from siftune.curation.run.paths import training_name
from siftune.training.arm_names import BASE
from siftune.training.evaluation import formatting, statistics
from siftune.training.evaluation.differences import paired_difference, strata_of
from siftune.training.evaluation.formatting import format_budget, format_p, format_stratum
from siftune.training.evaluation.losses import HeldoutLosses, read_losses
from siftune.training.evaluation.run_noise import contrast, run_noise
from siftune.training.evaluation.verdict import Verdict, compute_verdict
from siftune.training.evaluation.verdict_report import markdown, write_verdict
from siftune.training.evaluation.verdict_sentences import STAGES_NOTE, headline
from siftune.training.result import RESULT_FILE, write_result
from tests.training.worlds import training_result

QUICK = Compare(bootstrap=2_000, permutations=2_000)


def simulated(
    rng: np.random.Generator, *, effect: float, groups: int = 60, runs: int = 1, run_spread: float = 0.0
) -> HeldoutLosses:
    """Clustered, skewed rows on which `curated` has a loss per token of `effect` more than `raw`, in expectation."""
    sizes = 1 + rng.poisson(1.0, groups)
    codes = np.repeat(np.arange(groups), sizes)
    tokens = np.ceil(rng.lognormal(3.5, 0.7, len(codes)))
    raw = tokens * (3.0 + rng.gamma(2.0, 0.2, groups)[codes])
    shared = (rng.exponential(0.1, groups) - 0.1)[codes]
    noise = shared + rng.normal(0, 0.1, len(codes)) + effect
    spread = rng.normal(0, run_spread, (2, runs, 1)) if run_spread else np.zeros((2, runs, 1))
    losses = {"raw": raw + tokens * spread[0], "curated": raw + tokens * (noise + spread[1])}
    seeds = dict.fromkeys(losses, tuple(range(runs)))
    strata = pl.DataFrame(
        {"length_bin": ["a"] * len(codes), "source": ["s"] * len(codes), "leaked": [False] * len(codes)}
    )
    return HeldoutLosses([str(i) for i in range(len(codes))], tokens, codes, strata, losses, seeds)


@pytest.mark.slow
def test_intervals_cover_a_known_effect_at_their_level_and_p_is_uniform_without_one() -> None:
    rng = np.random.default_rng(7)
    covered, ps = [], []
    for simulation in range(1_000):
        # Both are the same experiment: an effect shifts every row, so the truth is known exactly.
        estimated, _ = paired_difference(simulated(rng, effect=0.05), "curated", "raw", QUICK, seed=simulation)
        assert estimated.per_token.low is not None
        assert estimated.per_token.high is not None
        covered.append(estimated.per_token.low <= 0.05 <= estimated.per_token.high)
    assert 0.93 <= np.mean(covered) <= 0.97
    for simulation in range(1_000):
        symmetric = rng.normal(0, 1, 40) * rng.gamma(2, 1, 40)
        ps.append(statistics.sign_flip(symmetric, draws=1_000, seed=simulation))
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert 0.035 <= np.mean(np.array(ps) < 0.05) <= 0.065


def test_estimates_are_the_plain_ratio_mean_and_share() -> None:
    data = simulated(np.random.default_rng(3), effect=-0.1)
    estimated, _ = paired_difference(data, "curated", "raw", QUICK, seed=0)
    rows = data.nll["curated"][0] - data.nll["raw"][0]
    assert estimated.per_token.value == pytest.approx(rows.sum() / data.tokens.sum())
    assert estimated.per_row.value == pytest.approx(np.mean(rows / data.tokens))
    assert estimated.improved.value == pytest.approx(np.mean(rows < 0))
    assert (estimated.rows, estimated.groups) == (len(rows), 60)


def test_a_share_of_all_rows_is_not_known_better_than_its_groups_allow() -> None:
    data = simulated(np.random.default_rng(3), effect=-2.0)
    share = paired_difference(data, "curated", "raw", QUICK, seed=0)[0].improved
    exact = stats.binomtest(60, 60).proportion_ci(method="exact")
    assert (share.value, share.low, share.high) == pytest.approx((1.0, exact.low, exact.high))


def test_interval_agrees_with_scipys_bootstrap_on_single_row_groups() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0.2, 1, (1, 200))
    ones = np.ones_like(values)
    ratio, error = statistics.ratio_error(values, ones)
    assert error[0] == pytest.approx(stats.sem(values[0]))
    draws = error[0] * statistics.bootstrap_pivots(values, ones, draws=20_000, seed=1)[0]
    ours = statistics.estimate(float(ratio[0]), float(error[0]), draws, groups=200)
    theirs = stats.bootstrap((values[0],), np.mean, n_resamples=20_000, rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_pivots_are_what_a_loop_over_drawn_groups_gives() -> None:
    rng = np.random.default_rng(2)
    top, bottom = rng.normal(1, 1, (2, 12)), rng.uniform(1, 5, (2, 12))
    pivots = statistics.bootstrap_pivots(top, bottom, draws=50, seed=9)
    chosen = np.random.default_rng(9).integers(12, size=(50, 12), dtype=np.uint32)
    observed, _ = statistics.ratio_error(top, bottom)
    for draw, index in enumerate(chosen):
        ratio, error = statistics.ratio_error(top[:, index], bottom[:, index])
        assert pivots[:, draw] == pytest.approx((ratio - observed) / error)


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=9))
def test_few_groups_are_flipped_in_every_way(values: list[float]) -> None:
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    exact = np.mean(np.abs(signs @ np.array(values)) >= abs(sum(values)) * (1 - 1e-12))
    assert statistics.sign_flip(np.array(values), draws=1_000, seed=0) == pytest.approx(exact)


def test_many_groups_agree_with_scipys_permutation_test() -> None:
    values = np.random.default_rng(4).normal(0.25, 1, 60)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1).pvalue
    assert statistics.sign_flip(values, draws=20_000, seed=1) == pytest.approx(theirs, abs=0.01)


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@given(st.integers(0, 60), st.integers(0, 60))
def test_votes_are_exact(wins: int, losses: int) -> None:
    result = statistics.vote_result(wins, losses, 3)
    total = wins + losses
    if total == 0:
        assert (result.low, result.high, result.p, result.needed) == (0.0, 1.0, 1.0, None)
        return
    low = stats.beta.ppf(0.025, wins, losses + 1) if wins else 0.0
    high = stats.beta.ppf(0.975, wins + 1, losses) if losses else 1.0
    assert (result.low, result.high) == pytest.approx((low, high))
    brute = sum(
        stats.binom.pmf(k, total, 0.5)
        for k in range(total + 1)
        if stats.binom.pmf(k, total, 0.5) <= stats.binom.pmf(wins, total, 0.5) * (1 + 1e-9)
    )
    assert result.p == pytest.approx(min(1.0, brute))
    assert (result.needed is None) == (wins == losses)


def test_votes_for_power_are_the_textbook_numbers() -> None:
    assert [statistics.votes_for_power(share) for share in (0.6, 0.65, 0.7, 0.4)] == [194, 85, 47, 194]
    assert statistics.vote_result(12, 8).needed == 174


# --- from files -------------------------------------------------------------------------------------------------------


def write_run(path: Path, *, seeds: int = 3, shift: dict[str, float] | None = None, groups: int = 80) -> RunFolder:
    """A run whose arms were trained and evaluated; `shift` is added to the base's loss per token."""
    run = RunFolder(path)
    rng = np.random.default_rng(0)
    count = groups * 2
    tokens = rng.integers(10, 80, count)
    base = tokens * rng.gamma(9, 0.4, count)
    common = {
        "id": [f"s:{i}" for i in range(count)],
        "tokens": tokens,
        "group": np.repeat(np.arange(groups), 2) + 900,
        "source": ["one" if i % 3 else "two|<b>" for i in range(count)],
        "length_bin": ["<50" if i % 2 else "50+" for i in range(count)],
        "leaked": [i % 4 == 0 for i in range(count)],
        "mask_hash": [f"m{i}" for i in range(count)],
        "bytes": tokens * 4,
    }
    run.evaluation_folder.mkdir(parents=True)
    pl.DataFrame({**common, "nll": base}).write_parquet(run.losses("base"))
    for arm, by in (shift or {"raw": -0.5, "curated": -0.7, "random": -0.5}).items():
        for seed in range(seeds):
            nll = base + tokens * (by + rng.normal(0, 0.2, count))
            # Rows in another order: files are joined by id and never by position.
            frame = pl.DataFrame({**common, "nll": nll}).sample(fraction=1.0, shuffle=True, seed=seed)
            frame.write_parquet(run.losses(training_name(arm, seed)))
            size = 300 if arm == "raw" else 200
            result = training_result(
                arm=arm, seed=seed, tokens=20_000 + seed, seconds=300.0, arm_rows=size, arm_tokens=size * 40
            )
            write_result(result, run.training(arm, seed))
    return run


TRAINING = Training(budget=Budget(tokens=20_000))


def test_a_verdict_from_files(tmp_path: Path) -> None:
    verdict = compute_verdict(write_run(tmp_path / "run"), QUICK, training=TRAINING)
    outcomes = {(comparison.arm, comparison.against): comparison.outcome for comparison in verdict.comparisons}
    assert outcomes["curated", "raw"] == "better"
    assert outcomes["curated", "random"] == "better"
    assert outcomes["random", "raw"] == "not enough evidence"
    assert [comparison.against for comparison in verdict.declared] == ["raw", "random"]
    ps = [comparison.difference.p for comparison in verdict.declared]
    assert [comparison.p_adjusted for comparison in verdict.declared] == statistics.holm(ps)
    assert {comparison.p_adjusted for comparison in verdict.comparisons if not comparison.declared} == {None}
    assert "Over 3 training runs of each arm" in verdict.condition
    assert verdict.run_noise.sd is not None
    assert (verdict.run_noise.runs, verdict.run_noise.arms, verdict.run_noise.freedom) == (9, 3, 4)
    assert verdict.noise_floor is not None
    assert (verdict.noise_floor.arm, verdict.noise_floor.against) == ("random", "raw")
    assert verdict.budget == "20,000 trained tokens"
    assert [(usage.arm, usage.tokens, usage.minutes) for usage in verdict.usage if usage.seed == 0] == [
        ("raw", 20_000, 5.0),
        ("curated", 20_000, 5.0),
        ("random", 20_000, 5.0),
    ]
    assert verdict.curated_away == {"rows": 100, "answer_tokens": 4_000}
    rows = {(stratum.column, stratum.value): stratum.difference.rows for stratum in verdict.declared[0].strata}
    assert rows["leaked", "True"] == 40
    assert rows["length_bin", "50+"] + rows["length_bin", "<50"] == verdict.rows == 160


def test_what_is_written_is_read_again_and_is_the_same_each_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert Verdict.read(run) is None
    verdict = compute_verdict(run, QUICK, training=TRAINING)
    write_verdict(verdict, run)
    assert Verdict.read(run) == verdict
    first = run.verdict_json.read_bytes(), run.verdict_markdown.read_bytes()
    write_verdict(compute_verdict(run, QUICK, training=TRAINING), run)
    assert (run.verdict_json.read_bytes(), run.verdict_markdown.read_bytes()) == first
    document = json.loads(run.verdict_json.read_text(encoding="utf-8"))
    assert document["comparisons"][0]["difference"]["per_token"]["value"] < 0


def test_the_report_says_what_the_verdict_says_and_renders_nothing_of_the_data(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    verdict = compute_verdict(run, QUICK, training=TRAINING)
    write_verdict(verdict, run)
    page = run.verdict_markdown.read_text(encoding="utf-8")
    assert verdict.headline in page
    for comparison in verdict.declared:
        assert f"- {comparison.sentence}\n" in page
        assert f"{comparison.difference.per_token.se:.4f} ({comparison.name})" in page
    assert "negative means that the first arm is better" in page
    assert "two\\|\\<b\\>" in page  # a hostile source name stays text
    assert "<b>" not in page.replace("\\<b\\>", "")


def test_a_verdict_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.verdict_json.write_text('{"headline": "Curated is better."}', encoding="utf-8")
    with pytest.raises(UserError, match=r"another version of siftune wrote it. Write it again: siftune compare "):
        Verdict.read(run)


def test_worse_and_no_evidence_are_said(tmp_path: Path) -> None:
    worse = compute_verdict(write_run(tmp_path / "a", shift={"raw": -0.7, "curated": -0.5}), QUICK)
    assert worse.comparisons[0].outcome == "worse"
    assert worse.headline == "On held-out loss, curated is worse than raw."
    assert worse.comparisons[0].sentence.startswith("Curated is worse than raw on held-out loss: curated − raw = +0.")
    same = compute_verdict(write_run(tmp_path / "b", shift={"raw": -0.5, "curated": -0.5, "random": -0.5}), QUICK)
    assert same.headline == "Not enough evidence that curated is better or worse than raw or random on held-out loss."
    effect = same.comparisons[0].difference.per_token.minimum_detectable_effect
    assert f"minimum detectable effect is {effect:.4f}" in same.comparisons[0].sentence


def test_the_headline_says_what_follows_for_curation() -> None:
    unclear = "not enough evidence"
    assert headline("curated", {}) == (
        "No verdict on curation: it needs the arms curated and raw (or random), trained and evaluated."
    )
    assert headline("curated", {"raw": "better", "random": "worse"}) == (
        "On held-out loss, curated is better than raw and worse than random."
    )
    assert headline("curated", {"raw": "better", "random": unclear}) == (
        "On held-out loss, curated is better than raw; against random there is not enough evidence. "
        "The gain over raw may come from the smaller size alone."
    )
    assert headline("curated", {"raw": "better", "random": "better"}) == (
        "On held-out loss, curated is better than raw and better than random. "
        "Curation helped, and not only by making the set smaller."
    )
    assert headline("curated", {"raw": "better"}) == (
        "On held-out loss, curated is better than raw. "
        "Without a random arm of the same size, the gain may come from the smaller size alone."
    )
    assert headline("curated", {"raw": unclear, "random": "better"}) == (
        "On held-out loss, curated is better than random; against raw there is not enough evidence."
    )


def test_one_seed_gives_no_verdict_however_clear_the_difference(tmp_path: Path) -> None:
    verdict = compute_verdict(write_run(tmp_path / "run", seeds=1), QUICK)
    curated = verdict.comparisons[0]
    assert curated.difference.p < 0.01
    assert {comparison.outcome for comparison in verdict.comparisons} == {"single run"}
    assert "how much another seed would change the difference from raw and random is not known" in verdict.headline
    assert curated.sentence.startswith("In this run curated − raw = ")
    assert "Conditional on one training run" in verdict.condition
    assert (verdict.run_noise.sd, verdict.run_noise.freedom) == (None, 0)


def test_an_arm_of_one_run_has_no_outcome_beside_arms_of_three(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for seed in (1, 2):
        run.losses(f"random-seed-{seed}").unlink()
    outcomes = {c.name: c.outcome for c in compute_verdict(run, QUICK).comparisons}
    assert outcomes["curated − raw"] == "better"
    assert outcomes["curated − random"] == outcomes["random − base"] == "single run"


def test_the_noise_floor_is_a_second_draw_or_arms_that_saw_no_row_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", shift={"raw": -0.5, "random": -0.5, "random-2": -0.5, "curated": -0.6})
    floor = compute_verdict(run, QUICK).noise_floor
    assert floor is not None
    assert (floor.arm, floor.against) == ("random-2", "random")
    assert floor.sentence.startswith("Noise floor: random-2 − random = ")
    write_verdict(compute_verdict(run, QUICK), run)
    assert floor.sentence in run.verdict_markdown.read_text(encoding="utf-8")
    repeated = write_run(tmp_path / "b")
    for seed in range(3):
        result = training_result(arm="random", seed=seed, arm_rows=10, rows=40)
        write_result(result, repeated.training("random", seed))
    assert compute_verdict(repeated, QUICK).noise_floor is None


# --- arms by stage and controls ---------------------------------------------------------------------------------------


def with_manifest(run: RunFolder, arms: dict[str, ArmRecord]) -> RunFolder:
    words = WordCounts(input=0, kept=0)
    counts = RowCounts(input=0, kept=0, dropped=0, quarantined=0, train=0, test=0, validation=0, words=words, arms=arms)
    manifest = Manifest(siftune=WriterRecord(format=FORMAT), status="curated", counts=counts)
    manifest.write(run.manifest_path)
    return run


def record(rows: int, *left_out: str, unmeasured: dict[str, int] | None = None, same_as: list[str] | None = None):
    return ArmRecord(
        rows=rows,
        kept=rows,
        prompt_words=0,
        answer_words=0,
        same_as=same_as or [],
        left_out=list(left_out),
        unmeasured=unmeasured or {},
    )


BY_STAGE = {
    "raw": record(400),
    "curated": record(200, same_as=["no-checks"]),
    "no-near": record(260, "near", unmeasured={"answers": 60}),
    "no-balance": record(230, "balance"),
    "no-checks": record(200, "checks", same_as=["curated"]),
    "no-exact": record(210, "exact"),  # not trained
    "no-answers": record(400, "answers", same_as=["raw"]),  # nor this, but raw is
    "dedup-only": record(300, "checks", "balance"),
}


def test_selected_arms_are_compared_with_draws_of_their_size(tmp_path: Path) -> None:
    records = {
        "curated": record(200),
        "diverse": record(50),
        "diverse-random": record(50, same_as=["best-random"]),
        "diverse-balanced-random": record(50),
        "best": record(50),
        "best-random": record(50, same_as=["diverse-random"]),  # not trained: the other one stands for it
    }
    shift = {"curated": -0.7, "diverse": -0.9, "diverse-random": -0.4, "diverse-balanced-random": -0.5, "best": -0.5}
    coverage, score = {"by": "coverage", "rows": 50}, {"by": "score", "column": "stars", "rows": 50}
    diverse, best = {"name": "diverse", "select": coverage}, {"name": "best", "select": score, "controls": ["random"]}
    training = Training.model_validate({"arms": ["curated", diverse, best]})
    run = with_manifest(write_run(tmp_path / "run", shift=shift), records)
    comparisons = {c.name: c for c in compute_verdict(run, QUICK, training=training).comparisons}
    selected = [name for name in comparisons if name.startswith(("diverse − ", "best − ")) and "base" not in name]
    assert selected == [
        *("diverse − diverse-random", "diverse − diverse-balanced-random", "diverse − curated"),
        *("best − diverse-random", "best − curated"),
    ]
    assert not any(comparisons[name].declared for name in selected)
    assert comparisons["diverse − diverse-random"].difference.per_token.value < 0


def test_the_verdict_says_what_each_stage_contributes(tmp_path: Path) -> None:
    shift = {"raw": -0.5, "curated": -0.7, "no-near": -0.5, "no-balance": -0.7, "dedup-only": -0.6}
    run = with_manifest(write_run(tmp_path / "run", shift=shift), BY_STAGE)
    verdict = compute_verdict(run, QUICK, training=TRAINING)
    compared = {c.against: c for c in verdict.comparisons if c.arm == "curated" and not c.declared}
    assert {"no-near", "no-balance", "dedup-only"} <= set(compared)
    assert {compared[arm].p_adjusted for arm in ("no-near", "no-balance", "dedup-only")} == {None}

    by_stage = {stage.stage: stage for stage in verdict.stages}
    assert list(by_stage) == ["near", "balance", "checks", "answers"]
    assert [stage.rows for stage in verdict.stages] == [60, 30, 0, 200]
    assert by_stage["answers"].difference == verdict.declared[0].difference
    # The statistics are those of the comparison, rows and runs in them.
    assert by_stage["near"].difference == compared["no-near"].difference
    difference, _ = paired_difference(read_losses(run), "curated", "no-near", QUICK, seed=0)
    assert by_stage["near"].difference == difference
    assert difference.per_token.value == pytest.approx(-0.2, abs=0.05)
    assert [stage.outcome for stage in verdict.stages] == ["better", "not enough evidence", None, "better"]
    assert by_stage["checks"].difference is None
    assert "60 that reach answers" in by_stage["near"].known
    assert "the choice is exact" in by_stage["balance"].known

    write_verdict(verdict, run)
    assert Verdict.read(run) == verdict
    page = run.verdict_markdown.read_text(encoding="utf-8")
    assert "## What each stage contributes (exploratory)" in page
    assert f"| near | no-near | +60 | {formatting.format_interval(difference.per_token)} |" in page
    assert "| checks | no-checks | +0 | the same rows | — | — | — |" in page
    assert STAGES_NOTE in page


def test_a_verdict_without_arms_by_stage_has_no_table_of_stages(tmp_path: Path) -> None:
    verdict = compute_verdict(write_run(tmp_path / "run"), QUICK)
    assert verdict.stages == ()
    assert "What each stage contributes" not in markdown(verdict)
    assert "scored 17.8" not in markdown(verdict)


def test_balanced_random_and_longest_are_compared_and_explained(tmp_path: Path) -> None:
    shift = {"raw": -0.5, "curated": -0.7, "random": -0.5, "balanced-random": -0.6, "longest": -0.4}
    verdict = compute_verdict(write_run(tmp_path / "run", shift=shift), QUICK)
    assert list(verdict.losses) == ["base", "raw", "curated", "random", "balanced-random", "longest"]
    outcomes = {(c.arm, c.against): c.outcome for c in verdict.comparisons if not c.declared}
    assert outcomes["curated", "balanced-random"] == "better"
    assert outcomes["balanced-random", "raw"] == outcomes["balanced-random", "random"] == "better"
    page = markdown(verdict)
    assert "the longest 10,000 of 5.8 million rows scored 17.8 on average" in page
    assert "47.5 on average where plain random scored 44.5" in page


# --- the noise of training runs ---------------------------------------------------------------------------------------


def runs_of(
    rng: np.random.Generator, seeds: dict[str, tuple[int, ...]], *, seed_spread: float
) -> dict[str, np.ndarray]:
    """One loss for each run: 0 for every arm, a shared effect of the seed, an error of standard deviation 1."""
    effects = rng.normal(0, seed_spread, 50)
    return {arm: np.array([effects[seed] + rng.normal() for seed in arm_seeds]) for arm, arm_seeds in seeds.items()}


def test_a_balanced_contrast_is_the_mean_paired_difference_and_its_error_is_that_of_two_way_anova() -> None:
    rng = np.random.default_rng(8)
    seeds = {"base": (0,), "raw": (0, 1, 2), "curated": (0, 1, 2), "random": (0, 1, 2)}
    losses = runs_of(rng, seeds, seed_spread=3.0)
    paired = contrast(seeds, "curated", "raw")
    assert paired.apply(losses) == pytest.approx(np.mean(losses["curated"] - losses["raw"]))
    table = np.stack([losses[arm] for arm in ("raw", "curated", "random")])
    residuals = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    mean_square = np.sum(residuals**2) / 4
    assert paired.freedom == 4
    assert paired.error(losses) == pytest.approx(np.sqrt(mean_square * 2 / 3))
    noise = run_noise(losses, seeds)
    assert noise.sd == pytest.approx(np.sqrt(mean_square))
    two = {arm: seeds[arm] for arm in ("raw", "curated")}
    theirs = stats.ttest_rel(losses["curated"], losses["raw"])
    alone = contrast(two, "curated", "raw")
    assert alone.freedom == theirs.df == 2
    assert alone.apply(losses) / alone.error(losses) == pytest.approx(theirs.statistic)


def test_arms_without_a_common_seed_are_compared_as_independent_samples() -> None:
    rng = np.random.default_rng(9)
    seeds = {"raw": (0, 1, 2), "curated": (10, 11, 12, 13)}
    losses = runs_of(rng, seeds, seed_spread=0.5)
    apart = contrast(seeds, "curated", "raw")
    theirs = stats.ttest_ind(losses["curated"], losses["raw"])
    assert apart.freedom == theirs.df == 5
    assert apart.apply(losses) / apart.error(losses) == pytest.approx(theirs.statistic)


def test_against_the_base_the_runs_of_the_arm_are_one_sample() -> None:
    rng = np.random.default_rng(10)
    seeds = {BASE: (0,), "raw": (0, 1, 2, 3)}
    losses = runs_of(rng, seeds, seed_spread=0.5)
    against_base = contrast(seeds, "raw", BASE)
    theirs = stats.ttest_1samp(losses["raw"], losses[BASE][0])
    assert against_base.freedom == theirs.df == 3
    assert against_base.apply(losses) / against_base.error(losses) == pytest.approx(theirs.statistic)


@given(
    st.dictionaries(
        st.sampled_from(["raw", "curated", "random", "longest"]),
        st.sets(st.integers(0, 4), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
        min_size=2,
    ),
    st.integers(0, 1000),
)
def test_a_contrast_of_any_seeds_is_unbiased(seeds: dict[str, tuple[int, ...]], number: int) -> None:
    arm, against = sorted(seeds)[:2]
    rng = np.random.default_rng(number)
    effects = {name: rng.normal() for name in seeds}
    by_seed = rng.normal(size=5)
    shared = contrast(seeds, arm, against)
    by_run = {name: np.array([effects[name] + by_seed[seed] for seed in seeds[name]]) for name in seeds}
    without_seeds = {name: np.full(len(seeds[name]), effects[name]) for name in seeds}
    assert shared.apply(without_seeds) == pytest.approx(effects[arm] - effects[against], abs=1e-9)
    if shared.design.shape[1] > len(seeds):  # seeds join the arms: their effects cancel, and leave no residual
        assert shared.apply(by_run) == pytest.approx(effects[arm] - effects[against], abs=1e-9)
        assert shared.error(by_run) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "spread"), [(3, 0.01), (5, 0.01), (3, 0.05)])
def test_intervals_over_rows_and_runs_cover_at_their_level(runs: int, spread: float) -> None:
    rng = np.random.default_rng(12)
    covered = []
    for simulation in range(300):
        data = simulated(rng, effect=0.05, runs=runs, run_spread=spread)
        estimated, _ = paired_difference(data, "curated", "raw", QUICK, seed=simulation)
        assert estimated.per_token.low is not None
        assert estimated.per_token.high is not None
        covered.append(estimated.per_token.low <= 0.05 <= estimated.per_token.high)
    assert 0.92 <= np.mean(covered) <= 0.985  # 0.95 to 0.97 and the error of 300 simulations


def test_one_group_is_no_evidence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", groups=1)
    verdict = compute_verdict(run, QUICK)
    assert {comparison.outcome for comparison in verdict.comparisons} == {"not enough evidence"}
    assert verdict.comparisons[0].difference.per_token.low is None
    write_verdict(verdict, run)
    assert Verdict.read(run) == verdict


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (pl.col("tokens") + (pl.col("id") == "s:3").cast(pl.Int64), "numbers of tokens in 1 rows, e.g. s:3"),
        (pl.when(pl.col("id") == "s:4").then(pl.lit("x")).otherwise("mask_hash").alias("mask_hash"), "mask hashes"),
        (pl.when(pl.col("id") == "s:5").then(pl.lit("s:x")).otherwise("id").alias("id"), "different held-out rows"),
        (pl.when(pl.col("id") == "s:5").then(pl.lit("s:6")).otherwise("id").alias("id"), "holds a row twice"),
        (pl.when(pl.col("id") == "s:5").then(float("nan")).otherwise("nll").alias("nll"), "not finite"),
    ],
)
def test_arms_that_were_not_evaluated_alike_are_refused(tmp_path: Path, change: pl.Expr, says: str) -> None:
    run = write_run(tmp_path / "run")
    path = run.losses("curated-seed-0")
    pl.read_parquet(path).with_columns(change).write_parquet(path)
    with pytest.raises(UserError, match=says):
        compute_verdict(run, QUICK)


def test_missing_pieces_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="siftune train"):
        compute_verdict(RunFolder(tmp_path), QUICK)
    run = write_run(tmp_path / "run")
    (run.training("raw", 0) / RESULT_FILE).unlink()
    with pytest.raises(UserError, match=r"training is not finished.*siftune train .* --arm raw"):
        compute_verdict(run, QUICK)
    for path in run.evaluation_folder.glob("*-seed-*"):
        path.unlink()
    with pytest.raises(UserError, match="compares two arms"):
        compute_verdict(run, QUICK)
    pl.read_parquet(run.losses("base")).drop("mask_hash").write_parquet(run.losses("raw-seed-0"))
    with pytest.raises(UserError, match="lacks the columns mask_hash"):
        compute_verdict(run, QUICK)


def test_numbers_are_written_as_people_read_them() -> None:
    results = doctest.testmod(formatting)
    assert (results.failed, results.attempted) == (0, 2)
    assert format_stratum("length_bin", "0033-0064 prompt tokens") == ("prompt length", "33–64 prompt tokens")
    assert format_stratum("length_bin", "0000-0032 prompt tokens") == ("prompt length", "0–32 prompt tokens")
    assert format_stratum("leaked", "True") == ("similar row in raw", "yes")
    assert format_stratum("source", "dolly") == ("source", "dolly")
    assert [format_p(p) for p in (None, 0.0004, 0.001, 0.25)] == ["—", "< 0.001", "0.001", "0.250"]
    assert [format_budget(budget) for budget in (None, Budget(epochs=1.5))] == ["not recorded", "1.5 epochs"]


def test_topics_with_enough_held_out_rows_are_strata() -> None:
    losses = simulated(np.random.default_rng(0), effect=0.1, groups=60)
    rows = pl.DataFrame({"id": losses.ids, "topic": ["small"] * 19 + ["large"] * (len(losses.ids) - 20) + [None]})
    names = [(one.column, one.value) for one in strata_of(losses, "curated", "raw", QUICK, seed=0)]
    assert all(column != "topic" for column, _ in names)
    strata = list(strata_of(losses.with_topics(rows), "curated", "raw", QUICK, seed=0))
    assert [(one.value, one.difference.rows) for one in strata if one.column == "topic"] == [
        ("large", len(losses.ids) - 20)
    ]
