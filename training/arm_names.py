"""The names of the training arms, in the order in which they are shown."""

from __future__ import annotations

#: The untrained base model, shown beside the arms.
BASE = "base"
ARM_ORDER = (BASE, "raw", "curated", "random", "random-2", "balanced-random", "longest")


def arm_sort_key(arm: str) -> tuple[int, str]:
    """Known arms first and in their order, then the others by name."""
    return (ARM_ORDER.index(arm) if arm in ARM_ORDER else len(ARM_ORDER), arm)
