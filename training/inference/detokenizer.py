"""Tokens to text as they come, never showing half a character."""

from __future__ import annotations

from collections.abc import Callable

_UNFINISHED = "\ufffd"


class Detokenizer:
    """Text of a growing list of tokens. A character that needs tokens still to come waits for them.

    Only the tokens since the last text, and the ones before it that decide about spaces, are decoded again.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        #: Decoding starts at `_context`; the text of the tokens before `_decoded` has been returned.
        self._context = 0
        self._decoded = 0

    def add(self, token: int) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        self._ids.append(token)
        text = self._new_text()
        if text.endswith(_UNFINISHED):
            return ""
        self._context, self._decoded = self._decoded, len(self._ids)
        return text

    def flush(self) -> str:
        """What is left at the end, an unfinished character included."""
        text = self._new_text()
        self._context = self._decoded = len(self._ids)
        return text

    def _new_text(self) -> str:
        returned = self._decode(self._ids[self._context : self._decoded])
        return self._decode(self._ids[self._context :])[len(returned) :]
