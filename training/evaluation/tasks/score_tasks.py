"""Score every task of a recipe for the base and for every trained arm and seed; what is scored already is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.checksums import is_whole
from siftune.curation.ingest.source_location import locate
from siftune.curation.ingest.sources import sources_fingerprint
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Source
from siftune.curation.recipe.training_sections import Task
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import parse_training_name
from siftune.training import models, worker
from siftune.training.arm_names import BASE
from siftune.training.evaluation.evaluate import trained_targets
from siftune.training.evaluation.loss_worker import EvaluationTarget
from siftune.training.evaluation.tasks.contaminated_items import find_contaminated
from siftune.training.evaluation.tasks.harness import folder_hashes, harness_folder, harness_version
from siftune.training.evaluation.tasks.instructions import has_punkt
from siftune.training.evaluation.tasks.items import TASK_ITEMS, items_hash, read_items
from siftune.training.evaluation.tasks.outcomes import TaskEvaluation, read_task_evaluation
from siftune.training.evaluation.tasks.scoring_worker import WORKER, ScoringJob, TaskJob
from siftune.training.row_turns import MASK_VERSION

#: Raised when an item gets another outcome than before, so that stored ones are not used again.
_SCORING_VERSION = 1


def score_tasks(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[TaskEvaluation]:
    """Score the tasks of the run's recipe, in a process of its own, and find the items that trained rows hold.

    Args:
        run: a run with trained arms.
        arms: only these; all that are trained by default.
        seeds: only training runs of these seeds; all by default.
        progress: called while the worker goes on.

    Returns:
        The evaluations, task by task, the base first; empty where the recipe has no tasks.

    Raises:
        UserError: a task cannot be read, an arm is not trained, or an item does not fit the task's kind.
    """
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    recipe, tasks = run.recipe, run.recipe.compare.tasks
    if not tasks:
        return []
    items = check_tasks(run)
    resolved = models.resolve(recipe.model.name, revision=recipe.model.revision)
    base = EvaluationTarget(name=BASE, adapter=None, digest=resolved.identity)
    targets = [base, *trained_targets(run, arms, seeds)]
    trained = sorted({name[0] for target in targets if (name := parse_training_name(target.name))})
    task_jobs = []
    for task, frame in zip(tasks, items, strict=True):
        folder = run.tasks_folder / task.label
        # Of a pattern and of instructions the question alone can stand in a row.
        searched = frame.with_columns(answer=None) if task.kind in ("regex", "ifeval") else frame
        find_contaminated(run, searched, trained, folder=folder, progress=progress)
        max_new_tokens = task.max_new_tokens or recipe.compare.max_new_tokens
        asked = [task.kind, None if task.kind == "choice" else max_new_tokens, recipe.model.load, recipe.model.system]
        checks = has_punkt() if task.kind == "ifeval" else harness_version() if task.kind == "lm-eval" else None
        identity = [_SCORING_VERSION, MASK_VERSION, *asked, checks, items_hash(frame), resolved.identity]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        pending = [target.name for target in targets if not _is_scored(folder, target, key)]
        task_jobs.append(
            TaskJob(
                label=task.label,
                kind=task.kind,
                path=task.path,
                include=harness_folder(task, base=Path(run.manifest.recipe_folder)),
                folder=folder,
                max_new_tokens=max_new_tokens,
                key=key,
                pending=pending,
            )
        )
    unfinished = [job for job in task_jobs if job.pending]
    if unfinished:
        job = ScoringJob(model=recipe.model, resolved=resolved, targets=targets, tasks=unfinished)
        worker.call(WORKER, job.model_dump_json(), log=run.tasks_folder / "worker.log", progress=progress)
    evaluations = [read_task_evaluation(job.folder, target.name) for job in task_jobs for target in targets]
    return [evaluation for evaluation in evaluations if evaluation is not None]


def check_tasks(run: RunFolder) -> list[pl.DataFrame]:
    """TASK_ITEMS of every task of the run's recipe, read once and kept in the run.

    Raises:
        UserError: a task cannot be read, or an item lacks what its kind needs.
    """
    return [_items(run, task) for task in run.recipe.compare.tasks]


def _items(run: RunFolder, task: Task) -> pl.DataFrame:
    """TASK_ITEMS of a task, read anew where its file or what is asked of it has changed."""
    base = Path(run.manifest.recipe_folder)
    if task.kind == "lm-eval":
        content = [harness_version(), folder_hashes(harness_folder(task, base=base))]
    else:
        locate(task.path, base=base, what="task")
        content = [sources_fingerprint([Source(path=task.path, format=task.format, columns=task.columns)], base=base)]
    settings = task.model_dump(exclude={"primary", "max_new_tokens"})
    identity = [content, settings, run.recipe.seed, TASK_ITEMS.names()]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    folder = run.tasks_folder / task.label
    frame_path, key_path = folder / "items.parquet", folder / "items.json"
    if is_whole(frame_path) and key_path.is_file() and json.loads(key_path.read_bytes()) == {"key": key}:
        return pl.read_parquet(frame_path, glob=False)
    items = read_items(task, base=base, seed=run.recipe.seed)
    key_path.unlink(missing_ok=True)
    write_parquet(items, frame_path, checked=True)
    write_json({"key": key}, key_path)
    return items


def _is_scored(folder: Path, target: EvaluationTarget, key: str) -> bool:
    evaluation = read_task_evaluation(folder, target.name)
    return evaluation is not None and evaluation.key == key and evaluation.digest == target.digest
