"""How a decision, a score and a share are written, wherever they are read."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any


def decision_text(decision: Mapping[str, Any], *, witness: bool = True) -> str:
    """A row of the ledger in words, without its `detail`.

    Args:
        decision: a row of LEDGER.
        witness: whether the row that it was decided for is named.

    >>> decision = {"stage": "near", "action": "drop", "reason": "near_duplicate", "witness": "s:0"}
    >>> decision_text(decision | {"score": 0.79999, "threshold": 0.75})
    'near: drop, near duplicate, score 0.7999 (threshold 0.75), because of s:0'
    """
    parts = [f"{decision['stage']}: {decision['action']}"]
    if decision["reason"]:
        parts.append(reason_text(decision["reason"]))
    if decision["score"] is not None:
        threshold = f" (threshold {decision['threshold']:g})" if decision["threshold"] is not None else ""
        parts.append(f"score {score_text(decision['score'])}{threshold}")
    if witness and decision["witness"]:
        parts.append(f"because of {decision['witness']}")
    return ", ".join(parts)


def reason_text(reason: str | None) -> str:
    """A reason of the ledger as words."""
    return (reason or "no reason").replace("_", " ")


def score_text(score: float) -> str:
    """Four digits, cut and not rounded: 0.89999 is below a threshold of 0.9 and must not read as if it reached it."""
    return f"{floor(score * 10_000 + 1e-6) / 10_000:.4f}"


def percent(part: float, whole: float) -> str:
    """A share that never reads 0 % or 100 % where it is neither; empty without a whole.

    >>> percent(1, 3), percent(1, 10_000), percent(9_999, 10_000)
    ('33.3 %', '0.01 %', '99.99 %')
    """
    if not whole:
        return ""
    value = 100 * part / whole
    digits = 2 if 0 < value < 0.1 or 99.9 < value < 100 else 1
    return f"{value:.{digits}f} %"
