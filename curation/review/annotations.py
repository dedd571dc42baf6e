"""Notes and tags that the user gave to rows: kept with the run as JSON Lines, beside the decisions by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from siftune.curation.atomic_files import write_text
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder

LONGEST_TAG = 40
_TAG = re.compile(r"\w[\w .:/+-]*")


@dataclass(frozen=True)
class Annotation:
    """What the user wrote about a row: tags in alphabetical order, and a note."""

    tags: tuple[str, ...] = ()
    note: str = ""


def checked_tag(text: str) -> str:
    """A tag without spaces around it.

    Raises:
        UserError: it is empty, too long, or holds something else than letters, digits and ``_ . : / + -``.
    """
    tag = " ".join(text.split())
    if len(tag) > LONGEST_TAG or not _TAG.fullmatch(tag):
        raise UserError(
            f"{text[:60]!r} is no tag. A tag has 1 to {LONGEST_TAG} letters, digits, spaces or _ . : / + - and begins "
            "with a letter or a digit."
        )
    return tag


def read_annotations(run: RunFolder) -> dict[str, Annotation]:
    """The annotations of a run by row id. Raises `UserError` when the file holds something else."""
    path = run.annotations_path
    if not path.is_file():
        return {}
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), start=1)
    return dict(_parse(line, f"{path}:{number}") for number, line in lines if line.strip())


def write_note(run: RunFolder, row_id: str, note: str) -> None:
    """Set the note of a row; an empty one removes it."""
    _change(run, [row_id], lambda annotation: replace(annotation, note=note.strip()))


def add_tag(run: RunFolder, row_ids: Iterable[str], tag: str) -> list[str]:
    """Tag rows; returns those that did not have the tag. Raises `UserError` as `checked_tag`."""
    tag = checked_tag(tag)
    return _change(run, row_ids, lambda one: replace(one, tags=tuple(sorted({*one.tags, tag}))))


def remove_tag(run: RunFolder, row_ids: Iterable[str], tag: str) -> list[str]:
    """Take a tag from rows; returns those that had it."""
    return _change(run, row_ids, lambda one: replace(one, tags=tuple(other for other in one.tags if other != tag)))


def tag_counts(annotations: Mapping[str, Annotation]) -> dict[str, int]:
    """How many rows have each tag, in alphabetical order."""
    counts: dict[str, int] = {}
    for annotation in annotations.values():
        for tag in annotation.tags:
            counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items()))


def _change(run: RunFolder, row_ids: Iterable[str], change: Callable[[Annotation], Annotation]) -> list[str]:
    """Change the annotations of rows under a lock, as two browser tabs may; returns the rows that are different now."""
    path = run.annotations_path
    changed = []
    with FileLock(path.with_name(".annotations.lock")):
        annotations = read_annotations(run)
        for row_id in row_ids:
            before = annotations.get(row_id, Annotation())
            after = change(before)
            if after != before:
                changed.append(row_id)
                annotations[row_id] = after
        if changed:
            _write(path, annotations)
    return changed


def _write(path: Path, annotations: Mapping[str, Annotation]) -> None:
    entries = (
        {"id": row_id, "tags": list(annotation.tags), "note": annotation.note}
        for row_id, annotation in annotations.items()
        if annotation != Annotation()
    )
    write_text("".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries), path)


def _parse(line: str, where: str) -> tuple[str, Annotation]:
    try:
        entry = json.loads(line)
        row_id, tags, note = entry["id"], entry["tags"], entry["note"]
        known = isinstance(row_id, str) and isinstance(note, str) and all(isinstance(tag, str) for tag in tags)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f'{where}: an annotation is {{"id": …, "tags": […], "note": …}}; found {line[:80]!r}')
    return row_id, Annotation(tuple(sorted(tags)), note)
