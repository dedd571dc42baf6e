"""Compare base models and settings under one budget on one arm: is it better to take more steps of a smaller model?

Every cell (model × setting) is trained, evaluated on the run's held-out rows and timed while it answers; cells that are
done are kept. Losses per token cannot be compared between models that cut text into other tokens, so the table ranks
by bits per byte of answer text.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from pydantic import Field, ValidationError, field_validator

from siftune.curation.atomic_files import replacing, write_json, write_parquet, write_text
from siftune.curation.errors import UserError
from siftune.curation.markdown import escape, table
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Budget, Model, Section, Training
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import ADAPTER
from siftune.curation.split_names import TEST
from siftune.training import jobs, models, worker
from siftune.training.arms import read_arm, read_heldout, training_of
from siftune.training.evaluation import loss_worker, statistics
from siftune.training.evaluation.losses import read_evaluation
from siftune.training.evaluation.statistics import Estimate
from siftune.training.result import TrainingResult, read_result
from siftune.training.sanity_checks import check_heldout

#: One row per cell, best first. `low` and `high` bound bits_per_byte (95 %); null with a single group of held-out rows.
#: Answer times are null where nothing was asked.
SWEEP_COLUMNS = pl.Schema(
    {
        "model": pl.String,
        "setting": pl.String,
        "bits_per_byte": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "nats_per_token": pl.Float64,
        "steps": pl.Int64,
        "tokens": pl.Int64,
        "minutes": pl.Float64,
        "tokens_per_second": pl.Float64,
        "answer_seconds": pl.Float64,
        "answer_tokens_per_second": pl.Float64,
    }
)
WORKER = "siftune.training.evaluation.sweep"
_DRAWS = 10_000


class SweepSetting(Section):
    """Changes to the recipe's `training:` section."""

    name: str = Field("recipe", min_length=1, description="How it is called in the table.")
    changes: dict[str, Any] = Field(
        {}, description="Fields of `training:` with other values, e.g. {schedule: cosine, lora: {rank: 8}}."
    )


class SweepPlan(Section):
    """What a sweep compares."""

    arm: str = Field("curated", description="The arm that every cell is trained on.")
    budget: Budget | None = Field(None, description="What every cell may spend. Default: the recipe's.")
    models: list[Model] = Field([], description="Base models. Default: the recipe's.")
    settings: list[SweepSetting] = Field([SweepSetting()], min_length=1, description="Settings. Default: the recipe's.")
    seed: int = Field(0, description="Seed of every cell.")
    questions: int = Field(4, ge=0, description="Held-out prompts that are answered, for the time it takes.")
    max_new_tokens: int = Field(64, gt=0, description="The most tokens of such an answer.")

    @field_validator("settings")
    @classmethod
    def _distinct(cls, settings: list[SweepSetting]) -> list[SweepSetting]:
        if len({setting.name for setting in settings}) < len(settings):
            raise ValueError("two settings have the same name")
        return settings


class TimingJob(Section):
    """One job of the worker that times an adapter while it answers."""

    model: Model
    adapter: Path
    prompts: list[str]
    max_new_tokens: int


def load_plan(path: Path) -> SweepPlan:
    """Read a sweep plan (YAML). Raises `UserError` naming every fault."""
    try:
        return SweepPlan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise UserError(f"{path} cannot be read as a sweep plan: {' '.join(str(fault).split())}") from None
    except ValidationError as fault:
        raise UserError(f"{path}: {_messages(fault)} Accepted: {', '.join(SweepPlan.model_fields)}.") from None


def sweep(run: RunFolder | Path, plan: SweepPlan | Path, *, progress: Progress | None = None) -> pl.DataFrame:
    """Train, evaluate and time every cell of the plan; returns SWEEP_COLUMNS, best cell first.

    Writes run/sweep/table.parquet, .csv and .md, and a folder for each cell. Intervals are 95 % cluster bootstraps over
    groups of similar held-out rows, conditional on one training run per cell.

    Raises:
        UserError: a setting that the recipe would not accept, or whatever stops training.
    """
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
    rows, heldout = read_arm(run.path, plan.arm), read_heldout(run.path)
    check_heldout({plan.arm: rows}, heldout)
    cells = [
        (model, setting, apply_setting(training_of(run), setting, plan.budget))
        for model in plan.models or [run.recipe.model]
        for setting in plan.settings
    ]
    table_rows = []
    for index, (model, setting, training) in enumerate(cells):
        if progress is not None:
            progress(f"sweep: {model.name}, {setting.name}", index, len(cells))
        cell_name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{model.name}-{model.load}-{setting.name}").strip("-")
        job = jobs.TrainJob(
            arm=plan.arm,
            seed=plan.seed,
            rows=run.arm(plan.arm),
            folder=run.sweep_folder / cell_name,
            data=jobs.data_hash(rows, ordered=True),
            model=model,
            training=training,
            resolved=models.resolve(model.name, revision=model.revision),
        )
        table_rows.append({"setting": setting.name, **_run_cell(run, plan, job, heldout, progress)})
    frame = pl.DataFrame(table_rows, schema=SWEEP_COLUMNS).sort("bits_per_byte")
    write_parquet(frame, run.sweep_folder / "table.parquet")
    with replacing(run.sweep_folder / "table.csv") as temporary:
        frame.write_csv(temporary)
    write_text(markdown(frame, plan), run.sweep_folder / "table.md")
    return frame


def apply_setting(base: Training, setting: SweepSetting, budget: Budget | None) -> Training:
    """The recipe's training section with the changes of a setting, under the budget of the sweep.

    Raises:
        UserError: the recipe would not accept such a section.
    """
    document = base.model_dump()
    for name, value in setting.changes.items():
        nested = isinstance(value, dict) and isinstance(document.get(name), dict) and name != "budget"
        document[name] = {**document[name], **value} if nested else value
    if budget is not None:
        document["budget"] = budget.model_dump()
    try:
        return Training.model_validate(document)
    except ValidationError as fault:
        raise UserError(
            f"Setting {setting.name!r} of the sweep: {_messages(fault)} Accepted: {', '.join(Training.model_fields)}."
        ) from None


def _run_cell(
    run: RunFolder, plan: SweepPlan, job: jobs.TrainJob, heldout: pl.DataFrame, progress: Progress | None
) -> dict[str, Any]:
    """One row of the table, without the setting's name."""
    result = read_result(job.folder, key=job.key) or jobs.train_in_worker(job, progress=progress)
    losses = _evaluate_cell(run, job, result, heldout, progress)
    bits = bits_per_byte(losses)
    return {
        "model": job.model.name,
        "bits_per_byte": bits.value,
        "low": bits.low,
        "high": bits.high,
        "nats_per_token": float(losses["nll"].sum()) / int(losses["tokens"].sum()),
        **result.model_dump(include={"steps", "tokens", "minutes", "tokens_per_second"}),
        **_time_cell(plan, job, result, heldout, progress),
    }


def _evaluate_cell(
    run: RunFolder, job: jobs.TrainJob, result: TrainingResult, heldout: pl.DataFrame, progress: Progress | None
) -> pl.DataFrame:
    """LOSS_COLUMNS of a cell's adapter, from its folder where they are of this adapter and these rows."""
    folder, compare = job.folder / "evaluation", run.recipe.compare
    key = json.dumps([jobs.data_hash(heldout, ordered=True), compare.max_rows, run.recipe.seed, job.key])
    target = loss_worker.EvaluationTarget(name="cell", adapter=job.folder / ADAPTER, digest=result.adapter_hash)
    evaluation = read_evaluation(folder, target.name)
    if evaluation is None or (evaluation.key, evaluation.digest) != (key, target.digest):
        evaluation_job = loss_worker.EvaluationJob(
            heldout=run.heldout(TEST),
            folder=folder,
            max_length=job.training.max_length,
            max_rows=compare.max_rows,
            seed=run.recipe.seed,
            model=job.model,
            resolved=job.resolved,
            targets=[target],
            engine=None,
            key=key,
        )
        document, log = evaluation_job.model_dump_json(), folder / "worker.log"
        worker.call(loss_worker.WORKER, document, log=log, progress=progress)
    return pl.read_parquet(folder / f"{target.name}.parquet", glob=False)


def _time_cell(
    plan: SweepPlan, job: jobs.TrainJob, result: TrainingResult, heldout: pl.DataFrame, progress: Progress | None
) -> dict[str, float | None]:
    """How long the cell's adapter takes for the first held-out prompts, from its folder where that was measured."""
    dialogues = heldout["messages"].head(plan.questions).to_list()
    prompts = [turns[0]["content"] for turns in dialogues if turns[0]["role"] == "user"]
    if not prompts:
        return {"answer_seconds": None, "answer_tokens_per_second": None}
    path = job.folder / "answers.json"
    key = [result.adapter_hash, prompts, plan.max_new_tokens]
    times = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if times.get("key") != key:
        timing = TimingJob(
            model=job.model, adapter=job.folder / ADAPTER, prompts=prompts, max_new_tokens=plan.max_new_tokens
        )
        log = job.folder / "answers.log"
        times = worker.call(WORKER, timing.model_dump_json(), log=log, progress=progress)
        write_json({"key": key, **times}, path)
    return {name: times[name] for name in ("answer_seconds", "answer_tokens_per_second")}


def bits_per_byte(losses: pl.DataFrame, *, draws: int = _DRAWS) -> Estimate:
    """Bits of loss per byte of answer text over LOSS_COLUMNS, with a 95 % interval over groups of similar rows."""
    _, groups = np.unique(losses["group"].to_numpy(), return_inverse=True)
    bits, size = losses["nll"].to_numpy() / np.log(2), losses["bytes"].to_numpy().astype(np.float64)
    sums = statistics.group_sums(np.stack([bits, size]), groups.astype(np.int64))
    return statistics.ratio_estimate(sums[0], sums[1], draws=draws, seed=0)


def markdown(frame: pl.DataFrame, plan: SweepPlan) -> str:
    """The table for people, with what must be known to read it."""
    head = ["model", "setting", "bits per byte", "95 % interval", "nats per token", "steps", "trained tokens"]
    head += ["minutes", "tokens/s", "seconds per answer"]
    cells = [
        [
            row["model"],
            row["setting"],
            f"{row['bits_per_byte']:.4f}",
            "—" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}",
            f"{row['nats_per_token']:.4f}",
            f"{row['steps']:,}",
            f"{row['tokens']:,}",
            f"{row['minutes']:.1f}",
            f"{row['tokens_per_second']:.0f}",
            "—" if row["answer_seconds"] is None else f"{row['answer_seconds']:.2f}",
        ]
        for row in frame.iter_rows(named=True)
    ]
    note = (
        f"Arm {escape(plan.arm)}, seed {plan.seed}. Intervals: cluster bootstrap over groups of similar held-out rows, "
        "conditional on this one training run. Nats per token compare only cells of one tokenizer; bits per byte "
        "compare all."
    )
    return "\n".join(["# Sweep", "", *table(head, cells), note, ""])


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


def _messages(fault: ValidationError) -> str:
    """Every fault of a document, each with its field."""
    lines = [f"{'.'.join(map(str, error['loc'])) or 'plan'}: {error['msg']}." for error in fault.errors()]
    return " ".join(lines)


def main() -> int:
    """The worker that answers: a `TimingJob` on standard input."""
    return worker.serve(lambda text, progress: time_answers(TimingJob.model_validate_json(text), progress))


if __name__ == "__main__":
    sys.exit(main())
