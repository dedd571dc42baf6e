"""The scoring worker: every pending task for every pending model, with the base loaded once.

An adapter is laid over the base and taken off again, so that no weight is copied and nothing is rounded into 16 bits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Section
from siftune.curation.recipe.training_sections import Model
from siftune.training import models, worker
from siftune.training.evaluation.loss_worker import EvaluationTarget, adapted_model
from siftune.training.evaluation.tasks.answers import is_right
from siftune.training.evaluation.tasks.choices import (
    ChoiceTokens,
    choice_log_probabilities,
    choice_outcomes,
    shares_prefixes,
    tokenise_choices,
)
from siftune.training.evaluation.tasks.harness import harness_outcomes
from siftune.training.evaluation.tasks.instructions import can_be_checked, follows
from siftune.training.evaluation.tasks.outcomes import TASK_OUTCOMES, TaskEvaluation, write_outcomes

WORKER = "siftune.training.evaluation.tasks.scoring_worker"
#: The most tokens of a question with its answer, where the model does not say.
_MAX_LENGTH = 2048


class TaskJob(Section):
    """One task, and the models that have no outcomes of it yet."""

    label: str
    kind: Literal["choice", "exact", "regex", "number", "ifeval", "lm-eval"]
    #: Of kind lm-eval the name of the harness's task, and the folder with tasks of one's own.
    path: str
    include: Path | None
    #: The folder of the task, with items.parquet.
    folder: Path
    max_new_tokens: int
    key: str
    #: Names of targets.
    pending: list[str]


class ScoringJob(Section):
    """One job of the scoring worker."""

    model: Model
    resolved: models.ResolvedModel
    targets: list[EvaluationTarget]
    tasks: list[TaskJob]


class ScoringModel:
    """The base in memory, and what all tasks need of it."""

    def __init__(self, job: ScoringJob) -> None:
        self.loading = models.choose_loading(job.model.load, job.resolved)
        base = models.load_base(job.resolved, self.loading)
        # Unpacked before the first forward pass, which may reorder 4-bit weights in place.
        self.base = (base.dequantize() if self.loading.load == "nf4" else base).eval()
        self.tokenizer = models.load_tokenizer(job.resolved)
        self.system = job.model.system
        self.max_length: int = getattr(self.base.config, "max_position_embeddings", None) or _MAX_LENGTH


class ChoiceScoring:
    """Scores the items of a task by the probabilities of their choices."""

    def __init__(self, items: pl.DataFrame, scoring: ScoringModel) -> None:
        self.choices = dict(items.select("item", "choices").iter_rows())
        self.tokens: dict[str, ChoiceTokens] = tokenise_choices(
            scoring.tokenizer, items, max_length=scoring.max_length, system=scoring.system
        )
        self.shared_questions = shares_prefixes(scoring.base, list(self.tokens.values()), scoring.loading)
        self.scoring = scoring

    def outcomes(self, model: Any, progress: Progress) -> pl.DataFrame:
        """TASK_OUTCOMES of one model."""
        log_probabilities = choice_log_probabilities(
            model,
            list(self.tokens.values()),
            self.scoring.loading,
            share_prefixes=self.shared_questions,
            progress=partial(progress, ""),
        )
        rows = [
            (item, *choice_outcomes(of_choices, self.choices[item]), None)
            for item, of_choices in zip(self.tokens, log_probabilities, strict=True)
        ]
        return pl.DataFrame(rows, schema=TASK_OUTCOMES, orient="row")


class AnswerScoring:
    """Scores the items of a task by the answers that a model gives."""

    shared_questions = None

    def __init__(self, items: pl.DataFrame, task: TaskJob, scoring: ScoringModel) -> None:
        if task.kind == "ifeval":
            items = items.filter(pl.Series([can_be_checked(answer) for answer in items["answer"]], dtype=pl.Boolean))
        self.items, self.task, self.scoring = items, task, scoring

    def outcomes(self, model: Any, progress: Progress) -> pl.DataFrame:
        """TASK_OUTCOMES of one model."""
        # It imports torch, which takes seconds, and the commands need only the jobs of this module.
        from siftune.training.evaluation.tasks.generation import greedy_answers

        answers = greedy_answers(
            model,
            self.scoring.tokenizer,
            self.items["prompt"].to_list(),
            max_new_tokens=self.task.max_new_tokens,
            max_length=self.scoring.max_length,
            system=self.scoring.system,
            progress=partial(progress, ""),
        )
        rows = []
        of_items = self.items.select("item", "prompt", "answer").iter_rows()
        for (item, prompt, expected), answer in zip(of_items, answers, strict=True):
            if answer is not None:
                rows.append((item, *self._outcomes_of(prompt, expected, answer), answer))
        return pl.DataFrame(rows, schema=TASK_OUTCOMES, orient="row")

    def _outcomes_of(self, prompt: str, expected: str, answer: str) -> tuple[float, float]:
        """Outcome and accuracy of one answer."""
        kind = self.task.kind
        assert kind != "choice"
        assert kind != "lm-eval"
        if kind == "ifeval":
            strict, loose = follows(prompt, expected, answer)
            return float(strict), float(loose)
        right = float(is_right(kind, answer, expected))
        return right, right


class HarnessScoring:
    """Scores the items of a task of lm-evaluation-harness."""

    shared_questions = None

    def __init__(self, items: pl.DataFrame, task: TaskJob, scoring: ScoringModel) -> None:
        self.items, self.task, self.scoring = items, task, scoring

    def outcomes(self, model: Any, progress: Progress) -> pl.DataFrame:
        """TASK_OUTCOMES of one model."""
        progress("", 0, 1)
        task = self.task
        return harness_outcomes(
            model, self.scoring.tokenizer, self.items, path=task.path, folder=task.include, label=task.label
        )


def scoring_method(
    task: TaskJob, items: pl.DataFrame, scoring: ScoringModel
) -> ChoiceScoring | AnswerScoring | HarnessScoring:
    """What scores the items of a task, by its kind."""
    if task.kind == "choice":
        return ChoiceScoring(items, scoring)
    return (HarnessScoring if task.kind == "lm-eval" else AnswerScoring)(items, task, scoring)


def score(job: ScoringJob, progress: Progress) -> dict[str, Any]:
    """Score what is pending in this process and write the files; returns how many there are.

    Raises:
        UserError: no item of a task fits into the model's context.
    """
    scoring = ScoringModel(job)
    frames = {task.label: pl.read_parquet(task.folder / "items.parquet", glob=False) for task in job.tasks}
    methods = {task.label: scoring_method(task, frames[task.label], scoring) for task in job.tasks}
    total = sum(len(task.pending) for task in job.tasks)
    done = 0
    # Model by model; what is done stays when a later one fails.
    for target in job.targets:
        with adapted_model(scoring.base, target) as model:
            for task in job.tasks:
                if target.name not in task.pending:
                    continue
                label = f"scoring {task.label}: {target.name}"
                started = time.monotonic()
                outcomes = methods[task.label].outcomes(model, _labelled(progress, label))
                if outcomes.is_empty():
                    raise UserError(
                        f"Task {task.label}: no item fits into the model's {scoring.max_length} tokens with "
                        f"{task.max_new_tokens} for the answer. Lower its max_new_tokens."
                    )
                evaluation = TaskEvaluation(
                    name=target.name,
                    task=task.label,
                    digest=target.digest,
                    key=task.key,
                    items=outcomes.height,
                    left_out=frames[task.label].height - outcomes.height,
                    **_means(outcomes),
                    shared_questions=methods[task.label].shared_questions,
                    seconds=round(time.monotonic() - started, 2),
                    versions=models.versions(),
                )
                write_outcomes(evaluation, outcomes, task.folder)
                done += 1
                progress(f"scored {task.label}: {target.name}", done, total)
    return {"scored": done}


def _labelled(progress: Progress, label: str) -> Progress:
    return lambda _, done, total: progress(label, done, total)


def _means(outcomes: pl.DataFrame) -> Mapping[str, Any]:
    return outcomes.select(pl.col("outcome", "accuracy").mean()).row(0, named=True)


def main() -> int:
    """The worker: a `ScoringJob` on standard input."""
    return worker.serve(lambda text, progress: score(ScoringJob.model_validate_json(text), progress))


if __name__ == "__main__":
    sys.exit(main())
