"""Compare base models and settings under one budget on one arm: is it better to take more steps of a smaller model?

Every cell (model × setting) is trained, judged on the run's held-out rows and timed while it answers; cells that are
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
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Budget, Model, Section, Training
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs, models, worker
from siftune.training.arms import read_arm, read_heldout, training_of
from siftune.training.evaluation.loss_worker import EvaluateJob, Target
from siftune.training.sanity_checks import check_heldout

TABLE = pl.Schema(
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
_DRAWS = 10_000


class Setting(Section):
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
    settings: list[Setting] = Field([Setting()], min_length=1, description="Settings. Default: the recipe's.")
    seed: int = Field(0, description="Seed of every cell.")
    questions: int = Field(4, ge=0, description="Held-out prompts that are answered, for the time it takes.")
    max_new_tokens: int = Field(64, gt=0, description="The most tokens of such an answer.")

    @field_validator("settings")
    @classmethod
    def _distinct(cls, settings: list[Setting]) -> list[Setting]:
        if len({setting.name for setting in settings}) < len(settings):
            raise ValueError("two settings have the same name")
        return settings


class AnswerJob(Section):
    """Time an adapter while it answers."""

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
        raise UserError(f"{path}: {_faults(fault)} Accepted: {', '.join(SweepPlan.model_fields)}.") from None


def sweep(run: RunFolder | Path, plan: SweepPlan | Path, *, progress: Progress | None = None) -> pl.DataFrame:
    """Train, judge and time every cell of the plan; returns the table (see TABLE), best cell first.

    Writes run/sweep/table.parquet, .csv and .md, and a folder for each cell. Intervals are 95 % cluster bootstraps over
    similarity groups of held-out rows, conditional on one training run a cell.

    Raises:
        UserError: a setting that the recipe would not accept, or whatever stops training.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
    rows, heldout = read_arm(folder.path, plan.arm), read_heldout(folder.path)
    check_heldout({plan.arm: rows}, heldout)
    cells = [
        (model, setting, _training(training_of(folder), setting, plan.budget))
        for model in plan.models or [folder.recipe.model]
        for setting in plan.settings
    ]
    lines = []
    for place, (model, setting, training) in enumerate(cells):
        if progress is not None:
            progress(f"sweep: {model.name}, {setting.name}", place, len(cells))
        job = jobs.TrainJob(
            arm=plan.arm,
            seed=plan.seed,
            rows=folder.path / "arms" / f"{plan.arm}.parquet",
            folder=folder.path / "sweep" / _slug(f"{model.name}-{model.load}-{setting.name}"),
            data=jobs.data_hash(rows, ordered=True),
            model=model,
            training=training,
            resolved=models.resolve(model.name, revision=model.revision),
        )
        lines.append({"setting": setting.name, **_cell(folder, plan, job, heldout, progress)})
    table = pl.DataFrame(lines, schema=TABLE).sort("bits_per_byte")
    _write(folder.path / "sweep", table, plan)
    return table


def _cell(
    run: RunFolder, plan: SweepPlan, job: jobs.TrainJob, heldout: pl.DataFrame, progress: Progress | None
) -> dict[str, Any]:
    log = job.folder / "worker.log"
    facts = jobs.done(job.folder, key=job.key)
    if facts is None:
        facts = worker.call("siftune.training.sft", job.model_dump_json(), log=log, progress=progress)
    judged = _judge(run, job, facts, heldout, progress)
    answered = _answer(plan, job, facts, heldout, progress)
    nll, units, tokens = (judged[name].to_numpy() for name in ("nll", "bytes", "tokens"))
    low, high = interval(nll, units, judged["group"].to_numpy())
    return {
        "model": job.model.name,
        "bits_per_byte": float(nll.sum() / units.sum() / np.log(2)),
        "low": low,
        "high": high,
        "nats_per_token": float(nll.sum() / tokens.sum()),
        **{name: facts[name] for name in ("steps", "tokens", "minutes", "tokens_per_second")},
        **answered,
    }


def _judge(
    run: RunFolder, job: jobs.TrainJob, facts: dict[str, Any], heldout: pl.DataFrame, progress: Progress | None
) -> pl.DataFrame:
    digest = facts["adapter_hash"]
    folder = job.folder / "evaluation"
    compare = run.recipe.compare
    key = json.dumps([jobs.data_hash(heldout, ordered=True), compare.max_rows, run.recipe.seed, job.key])
    note = folder / "cell.json"
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    if (known.get("key"), known.get("digest")) != (key, digest):
        evaluation = EvaluateJob(
            heldout=run.path / "heldout" / "test.parquet",
            folder=folder,
            max_length=job.training.max_length,
            max_rows=compare.max_rows,
            seed=run.recipe.seed,
            model=job.model,
            resolved=job.resolved,
            targets=[Target(name="cell", adapter=job.folder / "adapter", digest=digest)],
            engine=None,
            key=key,
        )
        worker.call(
            "siftune.training.evaluation.loss_worker",
            evaluation.model_dump_json(),
            log=folder / "worker.log",
            progress=progress,
        )
    return pl.read_parquet(folder / "cell.parquet")


def _answer(
    plan: SweepPlan,
    job: jobs.TrainJob,
    facts: dict[str, Any],
    heldout: pl.DataFrame,
    progress: Progress | None,
) -> dict[str, float | None]:
    prompts = [
        turns[0]["content"]
        for turns in heldout["messages"].head(plan.questions).to_list()
        if turns[0]["role"] == "user"
    ]
    if not prompts:
        return {"answer_seconds": None, "answer_tokens_per_second": None}
    asked = AnswerJob(
        model=job.model, adapter=job.folder / "adapter", prompts=prompts, max_new_tokens=plan.max_new_tokens
    )
    path = job.folder / "answers.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    key = [facts["adapter_hash"], prompts, plan.max_new_tokens]
    if known.get("key") != key:
        known = worker.call(
            "siftune.training.evaluation.sweep",
            asked.model_dump_json(),
            log=job.folder / "answers.log",
            progress=progress,
        )
        write_json({"key": key, **known}, path)
    return {name: known[name] for name in ("answer_seconds", "answer_tokens_per_second")}


def interval(
    nll: np.ndarray[Any, Any], units: np.ndarray[Any, Any], groups: np.ndarray[Any, Any], *, draws: int = _DRAWS
) -> tuple[float, float]:
    """95 % percentile bootstrap of sum(nll) / sum(units), in bits, resampling whole groups."""
    _, places = np.unique(groups, return_inverse=True)
    count = int(places.max()) + 1
    top, bottom = (np.bincount(places, weights=each, minlength=count) for each in (nll, units))
    random = np.random.default_rng(0)
    drawn = [
        (weights @ top) / (weights @ bottom)
        for weights in (random.multinomial(count, np.full(count, 1 / count), size=500) for _ in range(draws // 500))
    ]
    low, high = np.quantile(np.concatenate(drawn) / np.log(2), [0.025, 0.975])
    return float(low), float(high)


def _training(base: Training, setting: Setting, budget: Budget | None) -> Training:
    document = base.model_dump()
    for name, value in setting.changes.items():
        both = isinstance(value, dict) and isinstance(document.get(name), dict) and name != "budget"
        document[name] = {**document[name], **value} if both else value
    if budget is not None:
        document["budget"] = budget.model_dump()
    try:
        return Training.model_validate(document)
    except ValidationError as fault:
        raise UserError(
            f"Setting {setting.name!r} of the sweep: {_faults(fault)} Accepted: {', '.join(Training.model_fields)}."
        ) from None


def _faults(fault: ValidationError) -> str:
    lines = [f"{'.'.join(map(str, error['loc'])) or 'plan'}: {error['msg']}." for error in fault.errors()]
    return " ".join(lines)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")


def _write(folder: Path, table: pl.DataFrame, plan: SweepPlan) -> None:
    write_parquet(table, folder / "table.parquet")
    with replacing(folder / "table.csv") as temporary:
        table.write_csv(temporary)
    write_text(as_markdown(table, plan), folder / "table.md")


def as_markdown(table: pl.DataFrame, plan: SweepPlan) -> str:
    """The table for people, with what must be known to read it."""
    head = ["model", "setting", "bits/byte", "95 %", "nats/token", "steps", "tokens", "min", "tokens/s", "answer s"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in table.iter_rows(named=True):
        answer = "" if row["answer_seconds"] is None else f"{row['answer_seconds']:.2f}"
        cells = [
            row["model"],
            row["setting"],
            f"{row['bits_per_byte']:.4f}",
            f"{row['low']:.4f} to {row['high']:.4f}",
            f"{row['nats_per_token']:.4f}",
            str(row["steps"]),
            f"{row['tokens']:,}",
            f"{row['minutes']:.1f}",
            f"{row['tokens_per_second']:.0f}",
            answer,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"Arm {plan.arm}, seed {plan.seed}. Intervals: cluster bootstrap over held-out groups, conditional on this one "
        "training run. Nats a token compare only cells of one tokenizer; bits a byte compare all."
    )
    return "# Sweep\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def answer(job: AnswerJob, tell: Progress) -> dict[str, float]:
    """Mean seconds of an answer and tokens a second, one question after the other; the first, a warm-up, twice."""
    from siftune.training.inference.engine import Message, Request, Sampling
    from siftune.training.inference.transformers_engine import TransformersEngine

    engine = TransformersEngine(job.model, {"cell": job.adapter})
    sampling = Sampling(max_new_tokens=job.max_new_tokens)
    seconds, tokens = [], 0
    for place, prompt in enumerate([job.prompts[0], *job.prompts]):
        started = time.monotonic()
        chunks = list(engine.stream([Request("cell", (Message("user", prompt),), sampling)]))
        if place:
            seconds.append(time.monotonic() - started)
            tokens += chunks[-1].tokens
        tell("answering", place, len(job.prompts))
    engine.close()
    return {"answer_seconds": sum(seconds) / len(seconds), "answer_tokens_per_second": tokens / sum(seconds)}


def main() -> int:
    """The worker that answers: an `AnswerJob` on standard input."""
    return worker.serve(lambda text, tell: answer(AnswerJob.model_validate_json(text), tell))


if __name__ == "__main__":
    sys.exit(main())
