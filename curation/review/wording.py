"""How a decision, a score and a share are written, wherever they are read."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, isinf
from typing import Any

_COUNTED = (("decoys", "decoy"), ("matches", "row"))


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


def threshold_text(threshold: float) -> str:
    """The threshold of a benchmark, cut like a score; `none` where no score is high enough."""
    return "none" if isinf(threshold) else f"{float(score_text(threshold)):g}"


def false_discovery_text(line: Mapping[str, Any]) -> str:
    """The estimated share of false matches of a benchmark, with its interval; `line` is a row of FALSE_DISCOVERY.

    >>> false_discovery_text({"matches": 40, "decoys": 2, "rate": 0.05, "low": 0.00606, "high": 0.1806})
    '5.0 % (0.6 % to 18.1 %): 2 decoys, 40 rows'
    """
    if line["rate"] is None:
        return "no row in other words"
    interval = f"{percent(line['low'], 1)} to {percent(line['high'], 1)}"
    counts = (f"{line[name]:,} {one}{'' if line[name] == 1 else 's'}" for name, one in _COUNTED)
    return f"{percent(line['rate'], 1)} ({interval}): {', '.join(counts)}"


def false_discovery_note(most: float | None) -> str:
    """What `false_discovery_text` estimates; `most` is `contamination.max_false_discovery`."""
    raised = f" The threshold of a benchmark is raised until the share is at most {percent(most, 1)}." if most else ""
    return (
        "Estimated false discovery rate, with its 95 % interval: the share of rows that only seem to be an item in "
        "other words. Decoys are made from the items by exchanging what distinguishes them; nobody published them, so "
        f"every row that matches one is a false match.{raised}"
    )


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
