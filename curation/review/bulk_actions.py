"""One action on many rows: keep or drop them by hand, tag them, take a tag away; the last one can be undone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from siftune.curation.atomic_files import write_text
from siftune.curation.errors import UserError
from siftune.curation.review.annotations import add_tag, remove_tag
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, OverrideAction, change_overrides, decided, read_overrides

BulkKind = Literal["restore", "drop", "tag", "untag"]


@dataclass(frozen=True)
class BulkAction:
    """What was done to many rows: how many it changed, and the tag where it is about one."""

    kind: BulkKind
    rows: int
    tag: str = ""

    @property
    def sentence(self) -> str:
        """The action in words."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        return {
            "restore": f"{rows} restored by hand.",
            "drop": f"{rows} dropped by hand.",
            "tag": f"{rows} tagged {self.tag}.",
            "untag": f"{rows} no longer tagged {self.tag}.",
        }[self.kind]


def changed_by(
    fates: Mapping[str, str], overrides: Mapping[str, Override], action: OverrideAction, *, note: str = ""
) -> dict[str, Override | None]:
    """The rows whose override an action changes, and what it becomes.

    Args:
        fates: the fate of every row that the action is about; quarantined rows have no text to keep and are left out.
        overrides: the present overrides.
        action: what the user decides.
        note: why, for the ledger.
    """
    changes: dict[str, Override | None] = {}
    for row_id, fate in fates.items():
        present = overrides.get(row_id)
        decision = decided(row_id, fate, action, note)
        if fate != "quarantined" and (present and present.action) != (decision and decision.action):
            changes[row_id] = decision
    return changes


def decide_all(run: RunFolder, fates: Mapping[str, str], action: OverrideAction, *, note: str = "") -> BulkAction:
    """Keep (`restore`) or drop rows by hand.

    Args:
        run: the run.
        fates: the fate of every row that is decided on.
        action: what the user decides.
        note: why, for the ledger.
    """
    changes = changed_by(fates, read_overrides(run.overrides_path), action, note=note)
    before = change_overrides(run, changes)
    record = {row_id: [_plain(previous), _plain(changes[row_id])] for row_id, previous in before.items()}
    return _remember(run, BulkAction(action, len(before)), record)


def tag_all(run: RunFolder, row_ids: Sequence[str], tag: str) -> BulkAction:
    """Tag rows. Raises `UserError` where the tag cannot be one."""
    changed = add_tag(run, row_ids, tag)
    return _remember(run, BulkAction("tag", len(changed), " ".join(tag.split())), changed)


def untag_all(run: RunFolder, row_ids: Sequence[str], tag: str) -> BulkAction:
    """Take a tag from rows."""
    changed = remove_tag(run, row_ids, tag)
    return _remember(run, BulkAction("untag", len(changed), tag), changed)


def last_action(run: RunFolder) -> BulkAction | None:
    """The action that `undo` takes back; None when there is none, or its record is damaged."""
    record = _record(run)
    return None if record is None else BulkAction(record["kind"], record["rows"], record["tag"])


def undo(run: RunFolder) -> int:
    """Take the last action back; returns how many rows that changed. Rows that were changed since keep that change.

    Raises:
        UserError: there is nothing to undo.
    """
    record = _record(run)
    if record is None:
        raise UserError("There is no action on many rows to undo.")
    kind, changed = record["kind"], record["changed"]
    if kind == "tag":
        count = len(remove_tag(run, changed, record["tag"]))
    elif kind == "untag":
        count = len(add_tag(run, changed, record["tag"]))
    else:
        present = read_overrides(run.overrides_path)
        back = {
            row_id: Override(**before) if before else None
            for row_id, (before, after) in changed.items()
            if _plain(present.get(row_id)) == after
        }
        count = len(change_overrides(run, back))
    run.last_action_path.unlink(missing_ok=True)
    return count


def _remember(run: RunFolder, action: BulkAction, changed: object) -> BulkAction:
    if action.rows:
        write_text(json.dumps({**asdict(action), "changed": changed}, ensure_ascii=False), run.last_action_path)
    return action


def _record(run: RunFolder) -> dict[str, Any] | None:
    try:
        record = json.loads(run.last_action_path.read_text(encoding="utf-8"))
        known = record["kind"] in ("restore", "drop", "tag", "untag") and isinstance(record["rows"], int)
        return record if known and "changed" in record and isinstance(record["tag"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(override: Override | None) -> dict[str, Any] | None:
    return None if override is None else asdict(override)
