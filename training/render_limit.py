"""A limit for what a chat template of a stranger may take: seconds, and characters that it writes."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: A dialogue is rendered in less than a millisecond.
SECONDS = 20.0
#: Characters beside ten times those of the dialogue, which a template may write twice and escape.
CHARACTERS = 1_000_000


class OverLimitError(Exception):
    """A template takes more than it may."""


class _Late(BaseException):
    """The time is over; not an error, which a template engine catches while it compiles."""


def render(template: Callable[[], str], characters: Callable[[], int], *, seconds: float | None = None) -> str:
    """What a template writes.

    Args:
        template: Renders it.
        characters: Counts those of the dialogue.
        seconds: After which it is stopped; `SECONDS` when None.

    Raises:
        OverLimitError: it does not end, or writes too much.
    """
    seconds = SECONDS if seconds is None else seconds
    try:
        with _time_limit(seconds):
            text = template()
    except _Late:
        raise OverLimitError(f"it does not end within {seconds:g} seconds") from None
    except MemoryError:
        raise OverLimitError("it wants more memory than there is") from None
    if len(text) > CHARACTERS and len(text) > CHARACTERS + 10 * characters():
        raise OverLimitError(f"it writes {len(text):,} characters for a dialogue of {characters():,}")
    return text


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_Late` in the body after some seconds, by a signal where that is possible, else by a timer."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return
    # Between two steps of the interpreter: a single operation on huge numbers is not stopped.
    thread = ctypes.c_ulong(threading.get_ident())
    timer = threading.Timer(seconds, ctypes.pythonapi.PyThreadState_SetAsyncExc, (thread, ctypes.py_object(_Late)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _stop(*_: Any) -> None:
    raise _Late
