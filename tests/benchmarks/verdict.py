# ruff: noqa: E402 - the path comes first
"""Does the verdict call equal arms equal, and does it find dirt that was put in? By real training runs.

    python tests/benchmarks/verdict.py [--folder runs/verdict] [--draws 15] [--tokens 1500] [--rows 100]
        [--shares 0.3 1]

Equal arms: random samples of one size from the raw training rows of the demo. No sample is better than another in law,
so every "better" and "worse" is false. Each pair is compared with a third sample in the run, as the arms of a run are,
whose runs add to what is known of the noise. "First version" is the verdict of one training run of each arm, whose
interval holds the noise of the held-out rows alone.

Dirt: the first sample with a share of its answers given to other questions, with a share of its rows replaced by
fifty copies of a few, and with a share replaced by held-out rows. Each is compared with clean samples: the first two
are to be called worse, the last better.

Rows, settings and seeds are fixed; what was trained and evaluated stays in the folder, and a second call goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl
import yaml

from siftune.curation.exact_interval import clopper_pearson
from siftune.curation.pipeline import curate
from siftune.curation.recipe.training_sections import Budget, Compare, Model, Training
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import training_name
from siftune.curation.sampling import shuffled_positions
from siftune.curation.split_names import TEST
from siftune.data import python_docs
from siftune.training import jobs, models, worker
from siftune.training.evaluation.differences import paired_difference
from siftune.training.evaluation.loss_worker import WORKER, EvaluationJob, EvaluationTarget
from siftune.training.evaluation.losses import HeldoutLosses, read_evaluation
from siftune.training.evaluation.run_noise import run_noise
from siftune.training.evaluation.verdict_sentences import Outcome, outcome_of
from siftune.training.result import read_result

SEEDS = (0, 1, 2)
#: Rows of a sample; no run of the budgets here sees a row twice.
SAMPLE_ROWS = 2000
COPIES = 50
COMPARE = Compare(bootstrap=2000, permutations=2000)
MODEL = Model(name="smollm2", load="nf4")


def training_settings(tokens: int) -> Training:
    """The demo's settings with another budget."""
    demo = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text(encoding="utf-8"))["training"]
    settings = Training.model_validate(demo | {"arms": ["raw"], "seeds": list(SEEDS)})
    return settings.model_copy(update={"budget": Budget(tokens=tokens), "checkpoint_steps": 1000})


def demo_run(folder: Path) -> RunFolder:
    """The demo's data set, curated and split; made once."""
    python_docs.build(folder / "python_docs.jsonl")
    document = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text(encoding="utf-8"))
    document["sources"] = [{"path": "python_docs.jsonl", "name": "python_docs", "format": "alpaca"}]
    document["run"] = "run"
    document["contamination"]["references"][0]["path"] = str(ROOT / "data" / "quiz.jsonl")
    recipe = folder / "demo.yaml"
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    return curate(recipe)


def samples(raw: pl.DataFrame, draws: int) -> dict[str, pl.DataFrame]:
    """Random samples of the raw rows, by name."""
    return {
        f"draw-{draw:02}": raw[
            np.sort(shuffled_positions(raw["id"], seed=draw, purpose="verdict benchmark")[:SAMPLE_ROWS])
        ]
        for draw in range(draws)
    }


def with_swapped_answers(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    """A share of the rows get the answer of another of them: a cyclic shift by one."""
    chosen = np.sort(np.random.default_rng(0).choice(rows.height, round(share * rows.height), replace=False))
    messages = rows["messages"].to_list()
    answers = [messages[row][-1] for row in chosen]
    for row, answer in zip(chosen, answers[1:] + answers[:1], strict=True):
        messages[row] = [*messages[row][:-1], answer]
    return rows.with_columns(messages=pl.Series(messages, dtype=rows.schema["messages"]))


def with_copies(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    """A share of the rows is replaced by `COPIES` copies each of a few of them."""
    order = np.random.default_rng(0).permutation(rows.height)
    replaced = round(share * rows.height)
    repeated = np.resize(order[: max(1, replaced // COPIES)], replaced)
    return rows[np.concatenate([order[replaced:], repeated])].with_columns(
        id=pl.concat_str("id", pl.int_range(pl.len()).cast(pl.String), separator="#")
    )


def with_held_out_rows(rows: pl.DataFrame, held_out: pl.DataFrame, share: float) -> pl.DataFrame:
    """A share of the rows is replaced by held-out ones: leakage."""
    leaked = held_out.select("id", "messages", "meta")[
        np.resize(np.arange(held_out.height), round(share * rows.height))
    ]
    leaked = leaked.with_columns(id=pl.concat_str("id", pl.int_range(pl.len()).cast(pl.String), separator="#"))
    kept = rows.select("id", "messages", "meta").sample(rows.height - leaked.height, seed=0)
    return pl.concat([kept, leaked])


def train(folder: Path, arms: dict[str, pl.DataFrame], settings: Training) -> None:
    """Train each arm under each seed that is not trained yet."""
    resolved = models.resolve(MODEL.name)
    planned = []
    for arm, rows in arms.items():
        path = folder / "arms" / f"{arm}.parquet"
        path.parent.mkdir(exist_ok=True)
        rows.write_parquet(path)
        planned += [
            jobs.TrainJob(
                arm=arm,
                seed=seed,
                rows=path,
                folder=folder / "training" / training_name(arm, seed),
                data=jobs.data_hash(rows, ordered=True),
                model=MODEL,
                training=settings,
                resolved=resolved,
            )
            for seed in SEEDS
        ]
    left = [job for job in planned if read_result(job.folder, key=job.key) is None]
    for job in left:
        job.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for done, result in enumerate(jobs.train_in_workers(left), start=1):
        seconds = time.monotonic() - started
        print(f"trained {result.arm}, seed {result.seed}: {done} of {len(left)} in {seconds:.0f} s", flush=True)


def evaluate(folder: Path, held_out: Path, arms: Sequence[str], settings: Training, rows: int) -> HeldoutLosses:
    """The losses of all arms on one sample of the held-out rows."""
    resolved = models.resolve(MODEL.name)
    names = [training_name(arm, seed) for arm in arms for seed in SEEDS]
    targets = []
    for name in names:
        result = read_result(folder / "training" / name)
        assert result is not None
        adapter = folder / "training" / name / "adapter"
        targets.append(EvaluationTarget(name=name, adapter=adapter, digest=result.adapter_hash))
    out = folder / "evaluation"
    key = json.dumps([rows, resolved.identity, settings.max_length])
    stored = {target.name: read_evaluation(out, target.name) for target in targets}
    left = [
        target
        for target in targets
        if (known := stored[target.name]) is None or (known.digest, known.key) != (target.digest, key)
    ]
    if left:
        job = EvaluationJob(
            heldout=held_out,
            folder=out,
            max_length=settings.max_length,
            max_rows=rows,
            seed=0,
            model=MODEL,
            resolved=resolved,
            targets=left,
            engine=next((known.engine for known in stored.values() if known is not None), None),
            key=key,
        )
        out.mkdir(exist_ok=True)
        worker.call(WORKER, job.model_dump_json(), log=out / "worker.log", progress=None)
    frames = {
        arm: [pl.read_parquet(out / f"{training_name(arm, seed)}.parquet").sort("id") for seed in SEEDS] for arm in arms
    }
    return HeldoutLosses.of_frames(frames, dict.fromkeys(arms, SEEDS))


def of_arms(losses: HeldoutLosses, arms: Iterable[str], seeds: Sequence[int] = SEEDS) -> HeldoutLosses:
    """The same rows, with some of the arms and of the seeds."""
    chosen = [SEEDS.index(seed) for seed in seeds]
    nll = {arm: losses.nll[arm][chosen] for arm in arms}
    return HeldoutLosses(losses.ids, losses.tokens, losses.groups, losses.strata, nll, dict.fromkeys(nll, tuple(seeds)))


def verdict(losses: HeldoutLosses, arm: str, against: str, third: str) -> Outcome:
    """What siftune says of `arm` and `against`, in a run that trained a third arm too."""
    difference, _ = paired_difference(of_arms(losses, (arm, against, third)), arm, against, COMPARE, seed=0)
    return outcome_of(difference, difference.p, runs=len(SEEDS))


def first_verdict(losses: HeldoutLosses, arm: str, against: str, seed: int) -> Outcome:
    """What the first version said of one training run of each: an interval of the held-out rows alone."""
    difference, p_rows = paired_difference(of_arms(losses, (arm, against), (seed,)), arm, against, COMPARE, seed=0)
    return outcome_of(difference, p_rows, runs=2)


def print_equal_arms(losses: HeldoutLosses, arms: Sequence[str]) -> None:
    per_run = {arm: losses.nll[arm].sum(1) / losses.tokens.sum() for arm in arms}
    noise = run_noise(per_run, dict.fromkeys(arms, SEEDS))
    print(f"\n{len(arms)} equal arms × {len(SEEDS)} seeds, {len(losses.ids)} held-out rows.", end=" ")
    print(f"Standard deviation of one training run: {noise.sd:.4f} nats per token.\n")
    pairs = list(itertools.combinations(range(len(arms)), 2))
    ours = Counter(
        verdict(losses, arms[a], arms[b], next(arm for k, arm in enumerate(arms) if k not in (a, b))) for a, b in pairs
    )
    first = Counter(first_verdict(losses, arms[a], arms[b], seed) for a, b in pairs for seed in SEEDS)
    print("| verdict | pairs | better | worse | false, share (95 % interval, pairs taken as independent) |")
    print("|---|---|---|---|---|")
    for name, counts in (("first version, one run of each", first), (f"now, {len(SEEDS)} seeds", ours)):
        total, false = counts.total(), counts["better"] + counts["worse"]
        low, high = clopper_pearson(false, total, confidence=0.95)
        share = f"{false / total:.3f} ({low:.3f} to {high:.3f})"
        print(f"| {name} | {total} | {counts['better']} | {counts['worse']} | {share} |")


def print_dirt(losses: HeldoutLosses, dirty: Sequence[tuple[str, float, str]], clean: Sequence[str]) -> None:
    print("\n| put in | share of rows | clean arms | worse | better | mean difference, nats per token |")
    print("|---|---|---|---|---|---|")
    for kind, share, arm in dirty:
        others = [(against, next(one for one in clean if one != against)) for against in clean]
        counts = Counter(verdict(losses, arm, against, third) for against, third in others)
        per_run = {one: losses.nll[one].sum() / len(SEEDS) / losses.tokens.sum() for one in (arm, *clean)}
        difference = per_run[arm] - np.mean([per_run[one] for one in clean])
        print(f"| {kind} | {share:g} | {len(clean)} | {counts['worse']} | {counts['better']} | {difference:+.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "verdict")
    parser.add_argument("--draws", type=int, default=15, help="equal arms: 15 make 105 pairs")
    parser.add_argument("--tokens", type=int, default=1500, help="trained tokens of a run")
    parser.add_argument("--rows", type=int, default=100, help="held-out rows")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=[0.3, 1.0], help="of dirty rows; none: equal arms only"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    settings = training_settings(options.tokens)
    run = demo_run(options.folder)
    raw, held_out = pl.read_parquet(run.arm("raw")), pl.read_parquet(run.heldout(TEST))
    equal = samples(raw, options.draws)
    sample = equal["draw-00"]
    dirty = {}
    for share in options.shares:
        dirty["swapped answers", share, f"swapped-{share:g}"] = with_swapped_answers(sample, share)
        dirty[f"rows repeated {COPIES} times", share, f"copies-{share:g}"] = with_copies(sample, share)
        dirty["held-out rows", share, f"leak-{share:g}"] = with_held_out_rows(sample, held_out, share)
    print(f"{platform.machine()}, {settings.budget.tokens:,} trained tokens a run, seeds {SEEDS}", flush=True)
    arms = equal | {name[2]: rows for name, rows in dirty.items()}
    train(options.folder, arms, settings)
    losses = evaluate(options.folder, run.heldout(TEST), list(arms), settings, options.rows)
    print_equal_arms(losses, list(equal))
    if dirty:
        print_dirt(losses, list(dirty), list(equal)[1:])


if __name__ == "__main__":
    main()
