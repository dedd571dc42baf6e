"""Faults of the user, told apart from faults of ours.

The command line turns a `UserError` into one message and exit code 2; every other exception is a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: what was found, what is accepted, what to do."""


class ConservationError(Exception):
    """Rows were lost, doubled or decided on twice: a fault of siftune, never of the user; nothing can be trusted."""


def require_conserved(holds: bool, fault: str) -> None:  # noqa: FBT001 - reads as the assert that it stands for
    """Raise `ConservationError` with the sentence `fault` unless `holds`; an assert would go under `python -O`."""
    if not holds:
        raise ConservationError(f"{fault}. This is a fault of siftune; please report it with the recipe.")


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """A ready sentence (" Did you mean 'x'?") for the closest accepted word; empty when none is close."""
    close = difflib.get_close_matches(
        word.lower(), {candidate.lower(): candidate for candidate in accepted}, n=1, cutoff=0.6
    )
    return f" Did you mean {close[0]!r}?" if close else ""


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed; the message is the command that mends it."""
    return UserError(f"{package} is not installed. Install it with: pip install 'siftune[{extra}]'")
