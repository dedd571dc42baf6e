"""The items of a task, read like a reference, with the clusters that they belong to.

A question with choices is asked in cloze form: the choices are answers, and no letter is ever shown.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.ingest.references import read_reference
from siftune.curation.ingest.row_conversion import as_object
from siftune.curation.ingest.source_location import locate
from siftune.curation.ingest.source_parts import source_parts
from siftune.curation.recipe.training_sections import Task
from siftune.training.evaluation.loss_worker import draw_rows
from siftune.training.evaluation.tasks.answers import last_number
from siftune.training.evaluation.tasks.harness import read_harness_items
from siftune.training.evaluation.tasks.instructions import require_checks

#: One item of a task: `item` is `name:row`, `answer` what is expected (of kind `regex` a regular expression, of kind
#: `ifeval` JSON with `instruction_id_list` and `kwargs`). `choices`
#: are the texts of all choices, the right one first; null for other kinds. `cluster` names the items that belong
#: together.
TASK_ITEMS = pl.Schema(
    {
        "item": pl.String(),
        "prompt": pl.String(),
        "answer": pl.String(),
        "choices": pl.List(pl.String),
        "cluster": pl.String(),
    }
)

#: Subjects of MMLU with the best signal-to-noise ratio for models of about 150 million parameters.
MMLU_15 = (
    "prehistory",
    "world_religions",
    "high_school_psychology",
    "miscellaneous",
    "conceptual_physics",
    "astronomy",
    "high_school_government_and_politics",
    "college_biology",
    "philosophy",
    "high_school_biology",
    "high_school_microeconomics",
    "anatomy",
    "medical_genetics",
    "logical_fallacies",
    "human_aging",
)
_SUBJECT_LISTS = {"mmlu-15": MMLU_15}
_SUBJECT_COLUMN = "subject"


def read_items(task: Task, *, base: Path, seed: int) -> pl.DataFrame:
    """Read the items of a task.

    Args:
        task: as the recipe describes it.
        base: the folder of the recipe, where relative paths start.
        seed: of the draw, where the task has more items than it may.

    Returns:
        TASK_ITEMS in the order of the file.

    Raises:
        UserError: the file cannot be read, an item lacks what its kind needs, or a subject does not exist.
    """
    if task.kind == "lm-eval":
        items = _of_subjects(task, pl.DataFrame(read_harness_items(task, base=base), schema=TASK_ITEMS))
        return draw_rows(items, task.max_items, seed=seed)
    references = read_reference(task.path, base=base, name=task.label, format=task.format, columns=task.columns)
    items = references.rename({"reference": "item"}).with_columns(cluster=_clusters(task, references, base))
    if task.kind == "ifeval":
        items = items.with_columns(answer=_instructions(task, references, base))
    items = _of_subjects(task, items)
    checked = [_checked(task, row) for row in items.iter_rows(named=True)]
    return draw_rows(pl.DataFrame(checked, schema=TASK_ITEMS), task.max_items, seed=seed)


def items_hash(items: pl.DataFrame) -> str:
    """sha256 of what TASK_ITEMS ask and expect; who belongs to which cluster changes no outcome."""
    return hashlib.sha256(items.drop("cluster").write_json().encode()).hexdigest()


def _clusters(task: Task, references: pl.DataFrame, base: Path) -> pl.Series:
    """The cluster of each item: the value of its column, or the item itself where there is none."""
    own = references["reference"]
    column = task.cluster or _SUBJECT_COLUMN
    values = [row.get(column) if isinstance(row, dict) else None for row in _raw_rows(task, base)]
    if all(value is None for value in values):
        if task.cluster is None:
            return own
        raise UserError(
            f"Task {task.label}: no row of {task.path} has the column {column!r}. Name a column of the file as "
            "`cluster`, or leave it out."
        )
    numbers = own.str.extract(r":(\d+)$", 1).cast(pl.Int64)
    named = [None if (value := values[number]) is None else str(value) for number in numbers]
    return pl.Series(named, dtype=pl.String).zip_with(pl.Series(named, dtype=pl.String).is_not_null(), own)


def _instructions(task: Task, references: pl.DataFrame, base: Path) -> pl.Series:
    """What each prompt of IFEval asks for, as JSON; null where a row says nothing of it."""
    require_checks()
    columns = ("instruction_id_list", "kwargs")
    rows = [row if isinstance(row, dict) else {} for row in _raw_rows(task, base)]
    written = [
        json.dumps({column: row[column] for column in columns}) if all(row.get(column) for column in columns) else None
        for row in rows
    ]
    numbers = references["reference"].str.extract(r":(\d+)$", 1).cast(pl.Int64)
    return pl.Series([written[number] for number in numbers], dtype=pl.String)


def _raw_rows(task: Task, base: Path) -> Iterator[Any]:
    """The rows of the file as they are, in the order in which `read_reference` numbers them."""
    parts = source_parts(locate(task.path, base=base, what="task"))
    return map(as_object, chain.from_iterable(part.open(lambda _: None, lambda _: None) for part in parts))


def _of_subjects(task: Task, items: pl.DataFrame) -> pl.DataFrame:
    """The items of the subjects that the task asks for."""
    subjects = _SUBJECT_LISTS[task.subjects] if isinstance(task.subjects, str) else task.subjects
    if not subjects:
        return items
    present = sorted(items["cluster"].unique())
    for subject in subjects:
        if subject not in present:
            some = ", ".join(present[:10]) + (" …" if len(present) > 10 else "")
            raise UserError(
                f"Task {task.label}: {task.path} has no subject {subject!r}.{did_you_mean(subject, present)} "
                f"Subjects: {some}."
            )
    return items.filter(pl.col("cluster").is_in(list(subjects)))


def _checked(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    """A row of TASK_ITEMS. Raises `UserError` where it lacks what the kind of the task needs."""
    prompt, answer = row["prompt"], row["answer"]
    fault = None if prompt else "has no question"
    choices = None
    if fault is None and not answer:
        fault = "has no `instruction_id_list` and `kwargs`" if task.kind == "ifeval" else "has no expected answer"
    if fault is None and task.kind == "choice":
        texts = [text.strip() for text in [answer, *(row["distractors"] or [])]]
        choices = list(dict.fromkeys(texts))  # a wrong choice with the words of another one is the same choice
        fault = "has an empty choice" if "" in choices else None
        fault = fault or ("does not name a right choice among two or more" if len(choices) < 2 else None)
    elif fault is None and task.kind == "number":
        fault = "expects an answer without a number" if last_number(answer) is None else None
    elif fault is None and task.kind == "regex":
        fault = _pattern_fault(answer)
    if fault is not None:
        raise UserError(
            f"Task {task.label}: item {row['item']} of {task.path} {fault}, which kind `{task.kind}` needs. Correct "
            "the file, name its columns under `columns:`, or choose another `kind`."
        )
    return {"item": row["item"], "prompt": prompt, "answer": answer, "choices": choices, "cluster": row["cluster"]}


def _pattern_fault(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as fault:
        return f"expects {pattern!r}, no regular expression ({fault})"
    return None
