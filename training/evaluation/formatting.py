"""Numbers of a comparison as people read them: one spelling for the report, the pages of the app and the model card."""

from __future__ import annotations

import re

from siftune.curation.recipe.training_sections import Budget
from siftune.training.evaluation.statistics import Estimate

_BUDGET_UNITS = {"tokens": "trained tokens", "steps": "optimiser steps", "epochs": "epochs", "minutes": "minutes"}
_STRATUM_NAMES = {"length_bin": "prompt length", "source": "source", "leaked": "similar row in raw", "topic": "topic"}


def format_number(value: float | None, *, digits: int = 4, signed: bool = True) -> str:
    """A number with its sign and a true minus; an em dash for what is not known.

    >>> format_number(-0.06), format_number(0.25, digits=2), format_number(None)
    ('−0.0600', '+0.25', '—')
    """
    if value is None:
        return "—"
    return format(value, f"{'+' if signed else ''}.{digits}f").replace("-", "−")


def format_interval(estimate: Estimate) -> str:
    """An estimate with its 95 % interval: `−0.0600 [−0.0740, −0.0460]`."""
    value, low, high = (format_number(bound) for bound in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def format_share(estimate: Estimate) -> str:
    """A share with its 95 % interval where there is one: `62% [55%, 69%]`."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.0%}"
    return f"{estimate.value:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"


def format_p(p: float | None) -> str:
    """A p value without the letter: `0.012`, `< 0.001`; an em dash where there is none."""
    if p is None:
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_budget(budget: Budget | None) -> str:
    """The budget of every arm, such as `200,000 trained tokens`."""
    if budget is None:
        return "not recorded"
    limits = {name: getattr(budget, name) for name in _BUDGET_UNITS}
    return next(f"{value:,g} {_BUDGET_UNITS[name]}" for name, value in limits.items() if value is not None)


def format_length_bin(length_bin: str) -> str:
    """A length bin without the zeros that make it sort.

    >>> format_length_bin("0033-0064 prompt tokens")
    '33–64 prompt tokens'
    """
    return re.sub(r"\b0+(?=\d)", "", length_bin).replace("-", "–", 1)


def format_stratum(column: str, value: str) -> tuple[str, str]:
    """What a stratum is cut by and its value, such as `("similar row in raw", "yes")`."""
    if column == "leaked":
        value = {"true": "yes", "false": "no"}.get(value.lower(), value)
    if column == "length_bin":
        value = format_length_bin(value)
    return _STRATUM_NAMES[column], value
