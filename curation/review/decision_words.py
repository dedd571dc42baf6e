"""What the columns of a decision hold, in words: who the witness is, what its score compares, what its detail says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siftune.curation.dedup.conflicts import ConflictingAnswers
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.wording import decision_text
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.ledger import LEAK
from siftune.curation.stages import stages

#: The stage that drops rows for a quota, and not for what they resemble.
BALANCE = "balance"


@dataclass(frozen=True)
class DecisionWords:
    """What stands in the columns of decisions of one kind; None: the kind has no such column.

    Attributes:
        witness: what the row or item is that the decision was made for.
        score: what the score is.
        margin: whether the distance of the score from its threshold means anything.
        threshold: what the threshold is, where it differs from row to row.
        detail: what the detail says.
    """

    witness: str | None = None
    score: str | None = None
    margin: bool = False
    threshold: str | None = None
    detail: str | None = None


_DUPLICATE = DecisionWords("kept instead", "similarity", margin=True)
_GUARDED = DecisionWords("not a duplicate of", "similarity", margin=True, detail="what differs")
_BY_REASON = {
    "conflicting_answers": DecisionWords("same prompt, other answer"),
    "dialogue_prefix": DecisionWords("goes on in"),
    "heldout_twin": DecisionWords("resembles the held-out row"),
    LEAK: DecisionWords("resembles the held-out row", "similarity", margin=True, detail="compared by"),
    "by_hand": DecisionWords(detail="your reason"),
}
_BY_ACTION = {
    "guard": _GUARDED,
    "truncate": DecisionWords(score="tokens", threshold="limit", detail="what is cut"),
    "quarantine": DecisionWords(detail="what is wrong"),
}
_BALANCE = DecisionWords("drawn before it", "similarity", detail="quota")
_ITEM = DecisionWords("benchmark item", "score", margin=True)
_FINDING = DecisionWords(detail="what was found")


def decision_words(run: RunFolder, *, stage: str, action: str, reason: str | None) -> DecisionWords:
    """The words for the decisions of one kind.

    Args:
        run: the run.
        stage: the name of their stage.
        action: what was done.
        reason: why.
    """
    if stage == CONTAMINATION:
        return _ITEM
    if words := _BY_ACTION.get(action) or _BY_REASON.get(reason or ""):
        return words
    if stage == BALANCE:
        return _BALANCE
    return _DUPLICATE if stage in duplicate_stages(run) else _FINDING


def duplicate_stages(run: RunFolder) -> list[str]:
    """The names of the stages that drop rows as duplicates of others, in their order."""
    compared = [stage.name for stage in stages(run.recipe, base=Path()) if stage.compares]
    return [name for name in compared if name != ConflictingAnswers.name]


def decision_sentence(decision: Mapping[str, Any], words: DecisionWords) -> str:
    """A row of the ledger in the words of its kind, with its detail.

    >>> row = {"stage": "splits", "action": "drop", "reason": "heldout_twin", "score": None, "threshold": None}
    >>> row |= {"witness": "s:0", "detail": "its group is held out as test"}
    >>> decision_sentence(row, DecisionWords("resembles the held-out row"))
    'splits: drop, heldout twin, resembles the held-out row s:0. its group is held out as test'
    """
    shown = dict(decision)
    if words.score is None:
        shown["score"] = None
    if words.threshold is not None and shown["score"] is not None:
        text = decision_text(shown | {"score": None, "threshold": None}, witness=False)
        text += f", {words.score} {shown['score']:,.0f}, {words.threshold} {shown['threshold']:,.0f}"
    else:
        text = decision_text(shown, witness=False)
    if words.witness is not None and decision["witness"]:
        text += f", {words.witness} {decision['witness']}"
    return text + (f". {decision['detail']}" if decision["detail"] else "")
