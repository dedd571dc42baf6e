"""Faults of the user, told apart from faults of ours: the command line turns these into one message and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: what was found, what is accepted, what to do."""


def did_you_mean(found: str, accepted: Iterable[str]) -> str:
    """A ready sentence (" Did you mean 'x'?") for the closest accepted word, or an empty string."""
    close = difflib.get_close_matches(found.lower(), {word.lower(): word for word in accepted}, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed; the message is the command that mends it."""
    return UserError(f"{package} is not installed. Install it with: pip install 'siftune[{extra}]'")
