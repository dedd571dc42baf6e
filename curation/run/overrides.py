"""Decisions by hand: rows that the user restored or dropped, kept with the run and obeyed when it is curated again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from siftune.curation.atomic_files import write_text
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder

OverrideAction = Literal["restore", "drop"]


@dataclass(frozen=True)
class Override:
    """What the user decided on a row, whatever the stages say."""

    id: str
    action: OverrideAction
    note: str = ""


def read_overrides(path: Path) -> dict[str, Override]:
    """The overrides in a file by row id; the last one of a row counts. A missing file holds none.

    Raises:
        UserError: a line is not an override.
    """
    if not path.is_file():
        return {}
    overrides: dict[str, Override] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            override = _parse(line, f"{path}:{number}")
            overrides[override.id] = override
    return overrides


def write_override(run: RunFolder, override: Override) -> None:
    """Add an override, or replace the one that the row has."""
    change_overrides(run, {override.id: override})


def remove_override(run: RunFolder, row_id: str) -> None:
    """Let the stages decide on a row again."""
    change_overrides(run, {row_id: None})


def decided(row_id: str, fate: str, action: OverrideAction, note: str = "") -> Override | None:
    """The override that lets a row be kept (`restore`) or dropped; None where the stages decided so anyway.

    Args:
        row_id: the row.
        fate: what became of it in the run: kept or dropped.
        action: what the user decides.
        note: why, for the ledger.
    """
    same = {"restore": "kept", "drop": "dropped"}[action] == fate
    return None if same else Override(row_id, action, note)


def change_overrides(run: RunFolder, changes: Mapping[str, Override | None]) -> dict[str, Override | None]:
    """Set the overrides of some rows, or remove them (None); returns what those rows had before that differs."""
    # Two browser tabs may do this at the same time: the file is read and replaced under one lock.
    path = run.overrides_path
    before: dict[str, Override | None] = {}
    with FileLock(path.with_name(".overrides.lock")):
        overrides = read_overrides(path)
        for row_id, override in changes.items():
            previous = overrides.pop(row_id, None)
            if override is not None:
                overrides[row_id] = override
            if previous != override:
                before[row_id] = previous
        if before:
            lines = [json.dumps(asdict(entry), ensure_ascii=False) for entry in overrides.values()]
            write_text("".join(f"{line}\n" for line in lines), path)
    return before


def _parse(line: str, where: str) -> Override:
    try:
        entry = json.loads(line)
        row_id, action, note = entry["id"], entry["action"], entry.get("note", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f'{where}: an override is {{"id": …, "action": "restore" or "drop"}}; found {line[:80]!r}'
        ) from None
    if action not in ("restore", "drop"):
        raise UserError(f"{where}: action {action!r} is not known. Accepted: restore, drop.")
    return Override(str(row_id), action, str(note or ""))
