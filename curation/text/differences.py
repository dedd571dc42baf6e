"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "changed"]
Part = tuple[Kind, str]

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
#: Words beyond this are compared as one block: the matcher takes quadratic time.
_MOST = 4_000


def word_differences(left: str, right: str) -> tuple[list[Part], list[Part]]:
    """Both texts cut into parts that they share and parts that only one of them has.

    Joining the parts of a side gives its text back. Only the first 4,000 words are compared one by one.
    """
    a, b = _split(left), _split(right)
    sides: tuple[list[Part], list[Part]] = ([], [])
    for tag, a_from, a_to, b_from, b_to in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        kind: Kind = "same" if tag == "equal" else "changed"
        for side, text in zip(sides, ("".join(a[a_from:a_to]), "".join(b[b_from:b_to])), strict=True):
            if text:
                side.append((kind, text))
    return sides


def by_length(parts: list[Part], lengths: list[int]) -> list[list[Part]]:
    """Parts cut into pieces of these many characters, for texts joined to be compared; the last may be short."""
    pieces: list[list[Part]] = []
    left = list(reversed(parts))
    for length in lengths:
        piece: list[Part] = []
        while length and left:
            kind, text = left.pop()
            piece.append((kind, text[:length]))
            if len(text) > length:
                left.append((kind, text[length:]))
            length -= min(length, len(text))
        pieces.append(piece)
    return pieces


def _split(text: str) -> list[str]:
    words = _WORDS.findall(text)
    return words if len(words) <= _MOST else [*words[:_MOST], "".join(words[_MOST:])]
