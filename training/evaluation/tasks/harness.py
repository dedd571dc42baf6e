"""Tasks of lm-evaluation-harness by their names (extra `eval`): its items, and how a model scores on each of them.

The harness reads the data of its tasks from the hub, so a network or a filled cache is needed. Code of data sets is
never run. A folder of tasks of one's own may not name functions (`!function`); the harness runs its templates by Jinja,
so it must be trusted all the same.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean, missing_extra
from siftune.curation.file_hash import file_sha256
from siftune.curation.recipe.training_sections import Task
from siftune.training.evaluation.tasks.outcomes import TASK_OUTCOMES

#: Measures that are taken as the outcome of an item, the first one that a task has; else its own first measure.
_PREFERRED = ("acc_norm", "exact_match", "acc")
_BATCH_ROWS = {"cpu": 8, "cuda": 64}


def require_harness() -> None:
    """Raise `UserError` where the extra is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise missing_extra("lm_eval", "eval")


def harness_version() -> str:
    """The version of the harness. Raises `UserError` like `require_harness`."""
    require_harness()
    return importlib.metadata.version("lm_eval")


def harness_folder(task: Task, *, base: Path) -> Path | None:
    """The folder with tasks of one's own, relative to `base`; None without one.

    Raises:
        UserError: it is no folder, or a task in it names a function.
    """
    if task.include is None:
        return None
    folder = (base / task.include).resolve()
    if not folder.is_dir():
        raise UserError(f"Task {task.label}: `include: {task.include}` names no folder ({folder}).")
    for path in sorted(folder.rglob("*.y*ml")):
        if "!function" in path.read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                f"Task {task.label}: {path} has `!function`, which runs code. Tasks of a folder may use templates, "
                "filters and measures of lm-evaluation-harness only."
            )
    return folder


def read_harness_items(task: Task, *, base: Path) -> list[dict[str, Any]]:
    """Rows of TASK_ITEMS: the items of a task or of a group of tasks; of a group each task is a cluster.

    Raises:
        UserError: the harness is not installed or has no such task, its data are not to be had, or a measure of it
            cannot be used.
    """
    require_harness()
    tasks = _load(task.path, harness_folder(task, base=base), label=task.label)
    return [row for name, one in tasks.items() for row in _rows(name, one, cluster=len(tasks) > 1)]


def harness_outcomes(
    model: Any, tokenizer: Any, items: pl.DataFrame, *, path: str, folder: Path | None, label: str
) -> pl.DataFrame:
    """TASK_OUTCOMES of one model: what the harness says of each item, asked in the chat template of the model.

    The harness cuts the beginning of what is longer than the model's context; such items are left out.

    Args:
        model: a causal language model in eval mode.
        tokenizer: its tokenizer, with its template.
        items: TASK_ITEMS; only these are asked.
        path: the name of the task or group.
        folder: the folder with tasks of one's own, or None.
        label: the name of the task in messages.

    Raises:
        UserError: as `read_harness_items`.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tasks = _load(path, folder, label=label)
    numbers: dict[str, list[int]] = {name: [] for name in tasks}
    for item in items["item"]:
        name, _, number = item.rpartition(":")
        numbers[name].append(int(number))
    asked = {name: sorted(chosen) for name, chosen in numbers.items() if chosen}
    device = "cuda" if model.device.type == "cuda" else "cpu"
    harness_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH_ROWS[device])
    result: Any = simple_evaluate(
        harness_model,
        tasks=[tasks[name] for name in asked],
        samples=asked,
        apply_chat_template=bool(tokenizer.chat_template),
        bootstrap_iters=0,
        log_samples=True,
        # The tasks are loaded; without a list of its own it would read all of the harness's 13,000 files again.
        task_manager=_manager(None, (), include_defaults=False),
    )
    rows = []
    for name in asked:
        measure = outcome_measure(tasks[name])
        first_filter = result["samples"][name][0]["filter"]
        for sample in result["samples"][name]:
            if sample["filter"] == first_filter and _fits(harness_model, sample["arguments"]):
                accuracy = sample.get("acc", sample[measure])
                rows.append((f"{name}:{sample['doc_id']}", float(sample[measure]), float(accuracy), _answer(sample)))
    return pl.DataFrame(rows, schema=TASK_OUTCOMES, orient="row").sort("item")


def outcome_measure(task: Any) -> str:
    """The measure of a task of the harness that is an outcome: acc_norm, exact_match or acc, else its first one.

    Raises:
        UserError: less is better, or it is a measure of the whole task and not of an item.
    """
    better = task.higher_is_better()
    measures = list(better)
    measure = next((name for name in _PREFERRED if name in measures), measures[0])
    is_mean = getattr(task.aggregation()[measure], "__name__", "") == "mean"
    if not better[measure] or not is_mean:
        raise UserError(
            f"The task {task.task_name} of lm-evaluation-harness is measured by {measure}, which is no mean over items "
            "of which more is better. Choose a task that is."
        )
    return measure


def folder_hashes(folder: Path | None) -> dict[str, str]:
    """The hash of each file of a folder of tasks, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    return {str(path): file_sha256(path) for path in files}


def _load(path: str, folder: Path | None, *, label: str) -> Mapping[str, Any]:
    """The tasks of the harness called `path`, by name."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    content = tuple(folder_hashes(folder).items())
    if folder is not None:
        # Reading the list of all its tasks takes seconds, and tasks of one's own hardly need it.
        own = _manager(folder, content, include_defaults=False)
        if path in own.all_tasks and not any(task not in own.all_tasks for task in _members(own, path)):
            return _tasks(own, path, label=label)
    manager = _manager(folder, content, include_defaults=True)
    if path not in manager.all_tasks:
        raise UserError(
            f"Task {label}: lm-evaluation-harness {harness_version()} has no task {path!r}."
            f"{did_you_mean(path, manager.all_tasks)} `lm-eval ls tasks` lists them."
        )
    return _tasks(manager, path, label=label)


@cache
def _manager(folder: Path | None, content: tuple[tuple[str, str], ...], *, include_defaults: bool) -> Any:  # noqa: ARG001
    """What knows the tasks of a folder with this `content` and, by default, those of the harness."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if folder is None else str(folder), include_defaults=include_defaults)


def _members(manager: Any, path: str) -> list[str]:
    """The names of the tasks that a group of one's own lists; none for a task."""
    config = manager.task_index[path].cfg or {}
    listed = config.get("task")
    return [one if isinstance(one, str) else str(one.get("task")) for one in listed] if isinstance(listed, list) else []


def _tasks(manager: Any, path: str, *, label: str) -> Mapping[str, Any]:
    try:
        tasks: dict[str, Any] = manager.load([path])["tasks"]
        for task in tasks.values():
            len(task.eval_docs)
            outcome_measure(task)
    except UserError:
        raise
    except Exception as fault:
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        raise UserError(
            f"Task {label}: lm-evaluation-harness cannot read the data of {path!r} ({reason}). It takes them from the "
            "hub: is there a network, or are they in the cache of the hub?"
        ) from None
    return tasks


def _rows(name: str, task: Any, *, cluster: bool) -> Iterator[dict[str, Any]]:
    for number, document in enumerate(task.eval_docs):
        item = f"{name}:{number}"
        question, target = task.doc_to_text(document), task.doc_to_target(document)
        choices: Sequence[str] | None = None
        if task.OUTPUT_TYPE == "multiple_choice":
            listed = [str(choice).strip() for choice in task.doc_to_choice(document)]
            # Where the choices stand in the question (as in Winogrande), the question is the number of the right one.
            number_of_right = question if isinstance(question, int) else target
            if isinstance(question, int):
                question = " / ".join(listed)
            if isinstance(number_of_right, int) and 0 <= number_of_right < len(listed):
                target = listed[number_of_right]
                choices = list(dict.fromkeys([target, *listed]))
        answer = target[0] if isinstance(target, list) and target else target
        yield {
            "item": item,
            "prompt": str(question).strip(),
            "answer": str(answer).strip() or None,
            "choices": choices,
            "cluster": name if cluster else item,
        }


def _fits(harness_model: Any, requests: Sequence[Sequence[Any]]) -> bool:
    """Whether the harness asked the requests of an item, (context, continuation or settings), without cutting them."""
    from lm_eval.models.utils import normalize_gen_kwargs

    for context, *rest in requests:
        if rest and isinstance(rest[0], str):
            tokens, limit = len(harness_model.tok_encode(context + rest[0])), harness_model.max_length + 1
        elif rest:
            answer_tokens = normalize_gen_kwargs(dict(rest[0]), harness_model.max_gen_toks)["max_gen_toks"]
            tokens, limit = len(harness_model.tok_encode(context)), harness_model.max_length - answer_tokens
        else:
            continue  # a text whose probability is asked for is read in windows
        if tokens > limit:
            return False
    return True


def _answer(sample: Mapping[str, Any]) -> str | None:
    """What the model answered, where it wrote something."""
    replies = sample["filtered_resps"]
    return replies[0] if replies and isinstance(replies[0], str) else None
