# ruff: noqa: E402 - the path comes first
"""How much the difference of two equal arms moves from seed to seed, with and without what is meant to calm it.

    python tests/benchmarks/run_noise.py [--folder runs/run_noise] [--seeds 5] [--tokens 1500] [--rows 80] [--batch 4]

Two arms, each a random half of one pool of rows of the demo's data, are trained with the demo's settings under several
seeds, in three ways: each arm in an order of its own; both in the shared order of `siftune.training.schedule` (common
random numbers); and with a learning rate that falls to zero. Of every run two sets of weights are evaluated on the same
held-out rows: those after the last step, and their mean over the last half of the steps (`average_last: 0.5`).

The table shows the mean held-out loss and the standard deviation over seeds of the difference of the two arms, whose
true mean is the same small number in every line. It is printed after every seed from the second on; what was trained
and evaluated stays in the folder, and a second call goes on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl
import yaml
from scipy.stats import chi2, f

from siftune.curation.file_hash import file_sha256
from siftune.curation.recipe.training_sections import Budget, Model, Training
from siftune.curation.sampling import shuffled_positions
from siftune.curation.schema import HELDOUT, MESSAGE, conform
from siftune.data import python_docs
from siftune.training import jobs, models, worker
from siftune.training.evaluation.loss_worker import WORKER, EvaluationJob, EvaluationTarget
from siftune.training.evaluation.losses import read_evaluation
from siftune.training.result import read_result

MODEL = Model(name="smollm2", load="nf4")
POOL_ROWS = 4000
ADAPTER_FILE = "adapter_model.safetensors"
ARMS = ("random", "random-2")
#: Each way of training: whether arms share their order, and the schedule of the learning rate.
WAYS = {
    "own order, constant rate": (False, "constant"),
    "shared order, constant rate": (True, "constant"),
    "shared order, linear decay": (True, "linear"),
}
WEIGHTS = ("last step", "mean of last half")


def rows_of(folder: Path) -> pl.DataFrame:
    """ARM-like rows of the demo's data, shuffled by their ids."""
    path = folder / "python_docs.jsonl"
    python_docs.build(path)
    rows = pl.read_ndjson(path)
    prompt, answer = rows["instruction"], rows["output"]
    messages = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        for question, text in zip(prompt, answer, strict=True)
    ]
    frame = pl.DataFrame(
        {"id": [f"docs:{row}" for row in range(rows.height)], "messages": messages},
        schema={"id": pl.String, "messages": pl.List(MESSAGE)},
    )
    return frame[shuffled_positions(frame["id"], seed=0, purpose="run noise benchmark")]


def train(folder: Path, pool: pl.DataFrame, seed: int, *, tokens: int, batch: int) -> dict[tuple[str, str], Path]:
    """Train the arms of a seed that are not trained yet; the folder of each run by way and arm."""
    demo = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text(encoding="utf-8"))["training"]
    resolved = models.resolve(MODEL.name)
    runs, planned = {}, []
    for (way, (shared, schedule)), arm in itertools.product(WAYS.items(), ARMS):
        # The order is that of a hash of the ids: with ids of its own, the second arm has an order of its own. The first
        # is the same in both ways, and trained once.
        order = "shared" if shared or arm == ARMS[0] else "own"
        half = shuffled_positions(pool["id"], seed=0, purpose=arm)[: pool.height // 2]
        rows = pool[half].with_columns(
            pl.format("{}{}", pl.lit("" if order == "shared" else f"{arm}/"), "id").alias("id")
        )
        path = folder / f"{arm}-{order}.parquet"
        if not path.is_file():
            rows.write_parquet(path)
        runs[way, arm] = folder / "training" / f"{arm}-{order}-{schedule}-{tokens}-{batch}-seed-{seed}"
        settings = {"budget": Budget(tokens=tokens), "batch_rows": batch, "micro_rows": min(batch, demo["micro_rows"])}
        settings |= {"schedule": schedule, "average_last": 0.5, "checkpoint_steps": 1000}
        planned.append(
            jobs.TrainJob(
                arm=arm,
                seed=seed,
                rows=path,
                folder=runs[way, arm],
                data=jobs.data_hash(rows, ordered=True),
                model=MODEL,
                training=Training.model_validate(demo | settings),
                resolved=resolved,
            )
        )
    left = {job.folder: job for job in planned if read_result(job.folder, key=job.key) is None}
    for number, result in enumerate(jobs.train_in_workers(list(left.values()))):
        name = f"seed {seed}, run {number + 1} of {len(left)}"
        print(f"trained {name}: {result.tokens} tokens, {result.seconds:.0f} s", flush=True)
    return runs


def weights_of(run: Path) -> dict[str, Path]:
    """The adapters of a run: after its last step, and the mean of the last half of the steps."""
    (last,) = (run / "checkpoints").iterdir()  # the only one: training ends with a checkpoint
    return dict(zip(WEIGHTS, (last, run / "adapter"), strict=True))


def evaluate(folder: Path, heldout: Path, adapters: dict[str, Path]) -> dict[str, float]:
    """Held-out loss of each adapter, in nats per token; what is measured is kept."""
    out, key = folder / "evaluation", file_sha256(heldout)
    resolved = models.resolve(MODEL.name)
    targets = [
        EvaluationTarget(name=name, adapter=adapter, digest=file_sha256(adapter / ADAPTER_FILE))
        for name, adapter in adapters.items()
    ]
    stored = {target.name: read_evaluation(out, target.name) for target in targets}
    left = [
        target
        for target in targets
        if (known := stored[target.name]) is None or (known.digest, known.key) != (target.digest, key)
    ]
    if left:
        job = EvaluationJob(
            heldout=heldout,
            folder=out,
            max_length=256,
            max_rows=None,
            seed=0,
            model=MODEL,
            resolved=resolved,
            targets=left,
            engine=next((known.engine for known in stored.values() if known), None),
            key=key,
        )
        worker.call(WORKER, job.model_dump_json(), log=out / "worker.log")
    evaluations = {name: read_evaluation(out, name) for name in adapters}
    return {name: evaluation.loss for name, evaluation in evaluations.items() if evaluation}


def print_table(losses: dict[tuple[str, str, str, int], float], seeds: int) -> None:
    """Mean loss, and the standard deviation of the arms' difference with its 95 % interval (chi-squared).

    Then one-sided F tests of the ways, by the weights of the last step, each against those before it.
    """
    deviations: dict[str, float] = {}
    print(f"\n{'way':30} {'weights':22} {'loss':>7} {'sd over seeds of random-2 − random':>36}")
    for way in WAYS:
        for weights in WEIGHTS:
            by_arm = np.array([[losses[way, weights, arm, seed] for seed in range(seeds)] for arm in ARMS])
            sd = float(np.std(by_arm[1] - by_arm[0], ddof=1))
            low, high = sd * np.sqrt((seeds - 1) / chi2.ppf([0.975, 0.025], seeds - 1))
            print(f"{way:30} {weights:22} {by_arm.mean():7.4f} {sd:12.4f} [{low:.4f}, {high:.4f}]")
            deviations.setdefault(way, sd)
    for noisier, calmer in itertools.combinations(deviations, 2):
        p = f.sf((deviations[noisier] / deviations[calmer]) ** 2, seeds - 1, seeds - 1)
        print(f"{calmer} against {noisier}: p = {p:.3f}")


def name_of(adapter: Path) -> str:
    """The name of an evaluation: the run's, and which of its weights."""
    return f"{adapter.parent.name}-mean" if adapter.name == "adapter" else f"{adapter.parents[1].name}-last"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "run_noise")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1500, help="Trained tokens of a run.")
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--batch", type=int, default=4, help="Rows of a step.")
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    rows = rows_of(folder)
    pool, heldout = rows[:POOL_ROWS], folder / f"heldout-{options.rows}.parquet"
    if not heldout.is_file():
        chosen = rows[POOL_ROWS : POOL_ROWS + options.rows]
        extra = {"group": pl.int_range(pl.len()), "leaked": pl.lit(value=False), "split": pl.lit("test")}
        conform(
            chosen.with_columns(source=pl.lit("docs"), meta=pl.lit("{}"), why=pl.lit(""), **extra), HELDOUT
        ).write_parquet(heldout)

    losses: dict[tuple[str, str, str, int], float] = {}
    for seed in range(options.seeds):
        runs = train(folder, pool, seed, tokens=options.tokens, batch=options.batch)
        adapters = {
            (way, weights, arm, seed): adapter
            for (way, arm), run in runs.items()
            for weights, adapter in weights_of(run).items()
        }
        by_file = evaluate(folder, heldout, {name_of(adapter): adapter for adapter in adapters.values()})
        losses |= {key: by_file[name_of(adapter)] for key, adapter in adapters.items()}
        if seed:
            print_table(losses, seed + 1)
    threads = os.environ.get("OMP_NUM_THREADS", f"all {os.cpu_count()}")
    print(f"\n{time.monotonic() - started:.0f} s; {platform.processor() or platform.machine()}, {threads} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
