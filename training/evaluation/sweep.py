"""Compare base models and settings on one arm: is it better to take more steps of a smaller model?

Every cell (model × setting) is trained with every seed and evaluated on one sample of the held-out rows; what is done
is kept. Losses per token cannot be compared between models that cut text into other tokens, so cells are compared by
bits per byte of answer text: each with the first one, row by row and seed by seed, as arms are in a verdict.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.atomic_files import replacing, write_json, write_parquet, write_text
from siftune.curation.checksums import whole
from siftune.curation.errors import UserError
from siftune.curation.markdown import Raw, escape, table
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Section
from siftune.curation.recipe.training_sections import Model
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import ADAPTER, training_name
from siftune.curation.split_names import TEST
from siftune.training import jobs, models, worker
from siftune.training.arms import read_arm, read_heldout, training_of
from siftune.training.evaluation import loss_worker, statistics
from siftune.training.evaluation.differences import Difference, paired_difference
from siftune.training.evaluation.formatting import format_interval, format_number, format_p
from siftune.training.evaluation.losses import HeldoutLosses, read_evaluation
from siftune.training.evaluation.sweep_plan import SweepPlan, apply_setting, load_plan
from siftune.training.evaluation.verdict_sentences import outcome_of
from siftune.training.result import TrainingResult, read_result
from siftune.training.row_turns import MASK_VERSION
from siftune.training.sanity_checks import check_heldout

#: One row per cell, best first. `bits_per_byte`, `nats_per_token` and what training used are means over `runs` training
#: runs. `difference` is bits per byte of the cell minus those of the first one, with its 95 % interval `low` to `high`,
#: p (Holm's, over all cells) and minimum detectable effect; null for the first cell. Answer times are of the model, and
#: null where nothing was asked.
SWEEP_COLUMNS = pl.Schema(
    {
        "model": pl.String,
        "setting": pl.String,
        "runs": pl.Int64,
        "bits_per_byte": pl.Float64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "p": pl.Float64,
        "minimum_detectable_effect": pl.Float64,
        "outcome": pl.String,
        "nats_per_token": pl.Float64,
        "steps": pl.Float64,
        "tokens": pl.Float64,
        "minutes": pl.Float64,
        "tokens_per_second": pl.Float64,
        "answer_seconds": pl.Float64,
        "answer_tokens_per_second": pl.Float64,
    }
)
WORKER = "siftune.training.evaluation.sweep"
#: The outcome of the cell that the others are compared with.
FIRST = "first cell"


@dataclass(frozen=True)
class Cell:
    """A model with a setting, and its training jobs, one for each seed."""

    #: Unique, and fit for the name of a folder.
    name: str
    setting: str
    jobs: tuple[jobs.TrainJob, ...]

    @property
    def model(self) -> Model:
        """The base model."""
        return self.jobs[0].model


class TimingJob(Section):
    """One job of the worker that times an adapter while it answers."""

    model: Model
    adapter: Path
    prompts: list[str]
    max_new_tokens: int


def sweep(run: RunFolder | Path, plan: SweepPlan | Path, *, progress: Progress | None = None) -> pl.DataFrame:
    """Train and evaluate every cell of the plan and compare it with the first; returns SWEEP_COLUMNS, best cell first.

    Writes run/sweep/table.parquet, .csv and .md, and a folder for each cell. Intervals hold the noise of the held-out
    rows and, with several seeds, that of training runs (`siftune.training.evaluation.run_noise`).

    Raises:
        UserError: a setting that the recipe would not accept, or whatever stops training.
    """
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
    with run.locked():
        heldout = read_heldout(run.path)
        cells = _plan_cells(run, plan, heldout)

        # Model by model: each is loaded once to train all of its cells, once to evaluate them, and once to answer.
        results: dict[str, list[TrainingResult]] = {}
        losses: dict[str, list[pl.DataFrame]] = {}
        times: dict[str, dict[str, float | None]] = {}
        for _, group in itertools.groupby(cells, key=lambda cell: cell.model):
            model_cells = list(group)
            results |= _train_cells(model_cells, progress)
            losses |= _evaluate_cells(run, plan, model_cells, results, heldout, progress)
            answer_times = _time_model(plan, model_cells[0], results, heldout, progress)
            times |= {cell.name: answer_times for cell in model_cells}

        paired, left_out = pair_losses(losses, plan.seeds)
        differences, ps = _compare_cells(run, paired, [cell.name for cell in cells])
        frame = pl.DataFrame(
            [
                _table_row(cell, paired, losses, results, times, differences.get(cell.name), ps.get(cell.name))
                for cell in cells
            ],
            schema=SWEEP_COLUMNS,
        ).sort("bits_per_byte")
        write_parquet(frame, run.sweep_folder / "table.parquet")
        with replacing(run.sweep_folder / "table.csv") as temporary:
            frame.write_csv(temporary)
        write_text(markdown(frame, plan, paired, left_out=left_out), run.sweep_folder / "table.md")
        return frame


def _plan_cells(run: RunFolder, plan: SweepPlan, heldout: pl.DataFrame) -> list[Cell]:
    """The cells of the plan with their jobs, model by model."""
    rows = read_arm(run.path, plan.arm)
    check_heldout({plan.arm: rows}, heldout)
    data = jobs.data_hash(rows, ordered=True)
    cells = []
    for model in plan.models or [run.recipe.model]:
        resolved = models.resolve(model.name, revision=model.revision)
        for setting in plan.settings:
            identity = [model.name, model.load, model.revision, model.system, setting.name]
            words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{Path(model.name).name}-{model.load}-{setting.name}").strip("-")
            name = f"{words}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"
            training = apply_setting(training_of(run), setting, plan.budget)
            cell_jobs = [
                jobs.TrainJob(
                    arm=plan.arm,
                    seed=seed,
                    rows=run.arm(plan.arm),
                    folder=run.sweep_folder / training_name(name, seed),
                    data=data,
                    model=model,
                    training=training,
                    resolved=resolved,
                )
                for seed in plan.seeds
            ]
            cells.append(Cell(name, setting.name, tuple(cell_jobs)))
    return cells


def _train_cells(cells: Sequence[Cell], progress: Progress | None) -> dict[str, list[TrainingResult]]:
    """The training results of each cell by its name, one for each seed; what is done already is kept."""
    finished = {job.folder: read_result(job.folder, key=job.key) for cell in cells for job in cell.jobs}
    unfinished = [job for cell in cells for job in cell.jobs if finished[job.folder] is None]
    results = {}
    with closing(jobs.train_in_workers(unfinished, progress=progress)) as trained:
        for cell in cells:
            if progress is not None:
                progress(f"sweep: {cell.model.name}, {cell.setting}", cells.index(cell), len(cells))
            results[cell.name] = [finished[job.folder] or next(trained) for job in cell.jobs]
    return results


def _evaluate_cells(
    run: RunFolder,
    plan: SweepPlan,
    cells: Sequence[Cell],
    results: dict[str, list[TrainingResult]],
    heldout: pl.DataFrame,
    progress: Progress | None,
) -> dict[str, list[pl.DataFrame]]:
    """LOSS_COLUMNS of every adapter of the cells of one model, by cell and seed; what is measured already is kept."""
    first = cells[0].jobs[0]
    # All models see the same rows up to the same length, whatever length a setting trains on.
    max_length, seed = training_of(run).max_length, run.recipe.seed
    limits = [plan.heldout_rows, seed, max_length, MASK_VERSION, first.model.load, first.model.system]
    key = json.dumps([jobs.data_hash(heldout, ordered=True), *limits, first.resolved.identity])
    folder = run.sweep_folder / "evaluation"
    targets = [
        loss_worker.EvaluationTarget(
            name=training_name(cell.name, result.seed), adapter=job.folder / ADAPTER, digest=result.adapter_hash
        )
        for cell in cells
        for job, result in zip(cell.jobs, results[cell.name], strict=True)
    ]
    stored = {target.name: read_evaluation(folder, target.name) for target in targets}
    kept = {
        target.name: evaluation
        for target in targets
        if (evaluation := stored[target.name]) and (evaluation.key, evaluation.digest) == (key, target.digest)
    }
    missing = [target for target in targets if target.name not in kept]
    if missing:
        evaluation_job = loss_worker.EvaluationJob(
            heldout=run.heldout(TEST),
            folder=folder,
            max_length=max_length,
            max_rows=plan.heldout_rows,
            seed=seed,
            model=first.model,
            resolved=first.resolved,
            targets=missing,
            engine=next((evaluation.engine for evaluation in kept.values()), None),
            key=key,
        )
        document, log = evaluation_job.model_dump_json(), folder / "worker.log"
        worker.call(loss_worker.WORKER, document, log=log, progress=progress)
    files = {
        cell.name: [folder / f"{training_name(cell.name, job.seed)}.parquet" for job in cell.jobs] for cell in cells
    }
    return {name: [pl.read_parquet(whole(file), glob=False) for file in of_cell] for name, of_cell in files.items()}


def _time_model(
    plan: SweepPlan,
    cell: Cell,
    results: dict[str, list[TrainingResult]],
    heldout: pl.DataFrame,
    progress: Progress | None,
) -> dict[str, float | None]:
    """How long a model takes for the first held-out prompts, with the adapter of `cell`, from the cell's folder where
    that was measured. Settings of training do not change it."""
    dialogues = heldout["messages"].head(plan.questions).to_list()
    prompts = [turns[0]["content"] for turns in dialogues if turns[0]["role"] == "user"]
    if not prompts:
        return {"answer_seconds": None, "answer_tokens_per_second": None}
    folder = cell.jobs[0].folder
    path = folder / "answers.json"
    key = [results[cell.name][0].adapter_hash, prompts, plan.max_new_tokens]
    times = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if times.get("key") != key:
        timing = TimingJob(
            model=cell.model, adapter=folder / ADAPTER, prompts=prompts, max_new_tokens=plan.max_new_tokens
        )
        times = worker.call(WORKER, timing.model_dump_json(), log=folder / "answers.log", progress=progress)
        write_json({"key": key, **times}, path)
    return {name: times[name] for name in ("answer_seconds", "answer_tokens_per_second")}


def pair_losses(losses: dict[str, list[pl.DataFrame]], seeds: Sequence[int]) -> tuple[HeldoutLosses, int]:
    """The losses of all cells over the rows that all of them were evaluated on whole, and the number of other rows.

    Models cut texts into other tokens, so a long answer may lose more of its text to one than to another.

    Args:
        losses: LOSS_COLUMNS by cell, one frame for each seed.
        seeds: of the runs.

    Returns:
        Losses in which bits stand for nats and bytes of text for tokens.
    """
    frames = [frame.sort("id") for cell in losses.values() for frame in cell]
    sizes = pl.concat(frame.select("id", "bytes") for frame in frames).group_by("id")
    of_rows = sizes.agg(pl.len(), pl.col("bytes").n_unique().alias("sizes"), pl.col("bytes").min())
    ids = of_rows.filter(pl.col("len") == len(frames), pl.col("sizes") == 1, pl.col("bytes") > 0)["id"]
    if ids.is_empty():
        raise UserError(
            "No held-out row is evaluated whole by all models of the sweep. Raise training.max_length in the recipe."
        )
    in_bits = pl.col("nll") / np.log(2)
    paired = {
        name: [
            frame.filter(pl.col("id").is_in(ids.implode())).sort("id").with_columns(nll=in_bits, tokens="bytes")
            for frame in cell
        ]
        for name, cell in losses.items()
    }
    return HeldoutLosses.of_frames(paired, dict.fromkeys(losses, seeds)), of_rows.height - len(ids)


def _compare_cells(
    run: RunFolder, losses: HeldoutLosses, names: Sequence[str]
) -> tuple[dict[str, Difference], dict[str, float]]:
    """Of every cell but the first, the difference to it in bits per byte, and its p adjusted over all cells (Holm)."""
    first, *others = names
    compare, seed = run.recipe.compare, run.recipe.seed
    differences = {name: paired_difference(losses, name, first, compare, seed=seed)[0] for name in others}
    adjusted = statistics.holm([difference.p for difference in differences.values()])
    return differences, dict(zip(differences, adjusted, strict=True))


def _table_row(
    cell: Cell,
    paired: HeldoutLosses,
    losses: dict[str, list[pl.DataFrame]],
    results: dict[str, list[TrainingResult]],
    times: dict[str, dict[str, float | None]],
    difference: Difference | None,
    p: float | None,
) -> dict[str, Any]:
    """One row of the table.

    Args:
        cell: The cell.
        paired: The losses that cells are compared by.
        losses: LOSS_COLUMNS by cell, all rows.
        results: Training results by cell.
        times: Answer times by cell.
        difference: The difference to the first cell, which has none.
        p: Its p value, adjusted.
    """
    runs, nats = results[cell.name], pl.concat(losses[cell.name])
    row = {
        "model": cell.model.name,
        "setting": cell.setting,
        "runs": len(runs),
        "bits_per_byte": float(paired.nll[cell.name].mean(0).sum() / paired.tokens.sum()),
        "outcome": FIRST,
        "nats_per_token": float(nats["nll"].sum()) / int(nats["tokens"].sum()),
        **{
            name: float(np.mean([getattr(result, name) for result in runs]))
            for name in ("steps", "tokens", "minutes", "tokens_per_second")
        },
        **times[cell.name],
    }
    if difference is not None and p is not None:
        estimate = difference.per_token
        row |= {"difference": estimate.value, "low": estimate.low, "high": estimate.high, "p": p}
        row |= {"minimum_detectable_effect": estimate.minimum_detectable_effect}
        row["outcome"] = outcome_of(difference, p, runs=len(runs))
    return row


def markdown(frame: pl.DataFrame, plan: SweepPlan, losses: HeldoutLosses, *, left_out: int) -> str:
    """The table for people, with what must be known to read it.

    Args:
        frame: SWEEP_COLUMNS.
        plan: The plan of the sweep.
        losses: The losses that cells are compared by.
        left_out: Held-out rows that not all models were evaluated on whole.
    """
    head = ["model", "setting", "bits per byte", "difference to the first cell", "Holm p", "minimum detectable effect"]
    head += ["outcome", "nats per token", "steps", "trained tokens", "minutes", "tokens/s", "seconds per answer"]
    lines = [list(_markdown_cells(row)) for row in frame.iter_rows(named=True)]
    first = frame.row(by_predicate=pl.col("outcome") == FIRST, named=True)
    names = f"{escape(first['model'])}, {escape(first['setting'])}"
    seeds = ", ".join(map(str, plan.seeds))
    notes = [f"Arm {escape(plan.arm)}, seeds {seeds}; {len(losses.ids):,} held-out rows, the same for all cells."]
    if left_out:
        notes.append(f"{left_out:,} more are left out: `training.max_length` cuts off their answers for a model.")
    notes.append(
        f"Every cell is compared with the first of the plan ({names}), row by row and seed by seed; negative is better."
    )
    if len(plan.seeds) > 1:
        notes.append(
            "Intervals (95 %) and p hold the noise of the held-out rows and that of training runs, which is taken to "
            "be the same in all cells."
        )
    else:
        notes.append(
            "With one seed the noise of training runs is not known, and not in the intervals (95 %): no cell is called "
            "better or worse."
        )
    notes.append(
        "p is adjusted over all cells (Holm). Nats per token compare only cells of one tokenizer; bits per byte "
        "compare all. Seconds per answer are measured once for each model."
    )
    return "\n".join(["# Sweep", "", *table(head, lines), " ".join(notes), ""])


def _markdown_cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (row["model"], row["setting"], f"{row['bits_per_byte']:.4f}")
    if row["difference"] is None:
        yield from ("—", "—", "—")
    else:
        estimate = statistics.Estimate(row["difference"], row["low"], row["high"], None, None)
        yield from (Raw(format_interval(estimate)), Raw(format_p(row["p"])))
        yield format_number(row["minimum_detectable_effect"], signed=False)
    yield from (row["outcome"], f"{row['nats_per_token']:.4f}", f"{row['steps']:,.0f}", f"{row['tokens']:,.0f}")
    yield from (f"{row['minutes']:.1f}", f"{row['tokens_per_second']:.0f}")
    yield "—" if row["answer_seconds"] is None else f"{row['answer_seconds']:.2f}"


def time_answers(job: TimingJob, progress: Progress) -> dict[str, float]:
    """Mean seconds of an answer and tokens per second, one question after the other; the first, a warm-up, twice."""
    from siftune.training.inference.engine import Message, Request, Sampling
    from siftune.training.inference.transformers_engine import TransformersEngine

    engine = TransformersEngine(job.model, {"cell": job.adapter})
    sampling = Sampling(max_new_tokens=job.max_new_tokens)
    seconds, tokens = [], 0
    for index, prompt in enumerate([job.prompts[0], *job.prompts]):
        started = time.monotonic()
        chunks = list(engine.stream([Request("cell", (Message("user", prompt),), sampling)]))
        if index:
            seconds.append(time.monotonic() - started)
            tokens += chunks[-1].tokens
        progress("answering", index, len(job.prompts))
    engine.close()
    return {"answer_seconds": sum(seconds) / len(seconds), "answer_tokens_per_second": tokens / sum(seconds)}


def main() -> int:
    """The worker that answers: a `TimingJob` on standard input."""
    return worker.serve(lambda text, progress: time_answers(TimingJob.model_validate_json(text), progress))


if __name__ == "__main__":
    sys.exit(main())
