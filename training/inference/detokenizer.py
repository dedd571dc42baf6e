"""Tokens to text, piece by piece, never showing half a character."""

from __future__ import annotations

from collections.abc import Callable

_BROKEN = "\ufffd"


class Detokenizer:
    """Text of a growing list of tokens. A character that needs tokens still to come waits for them.

    Only the tokens since the last piece, and the ones before it that decide about spaces, are decoded again.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0
        self._shown = 0

    def add(self, token: int) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        self._ids.append(token)
        before, after = self._both()
        if after.endswith(_BROKEN):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return after[len(before) :]

    def flush(self) -> str:
        """What is left at the end, an unfinished character included."""
        before, after = self._both()
        self._context = self._shown = len(self._ids)
        return after[len(before) :]

    def _both(self) -> tuple[str, str]:
        window = self._ids[self._context :]
        return self._decode(window[: self._shown - self._context]), self._decode(window)
