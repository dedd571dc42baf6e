"""What two texts do not share, sentence by sentence: the text that distinguishes them."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

#: A sentence ends at a mark with white space behind it, at a full-width mark, or with its line.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")
_WORD = re.compile(r"\w+")


def own_sentences(one: str, other: str) -> tuple[str, str]:
    """The sentences of each text without those that both have, as texts in their order.

    Sentences are compared by their words; a sentence that one text has once more than the other is its own once. Marks
    and white space alone are no sentence.
    """
    sentences, others = _sentences(one), _sentences(other)
    counts, other_counts = (Counter(key for key, _ in listed) for listed in (sentences, others))
    return _without(sentences, other_counts), _without(others, counts)


def _without(sentences: tuple[tuple[str, str], ...], shared: Counter[str]) -> str:
    own: list[str] = []
    for key, sentence in sentences:
        if shared[key]:
            shared[key] -= 1
        else:
            own.append(sentence)
    return "\n".join(own)


@lru_cache(maxsize=100_000)
def _sentences(text: str) -> tuple[tuple[str, str], ...]:
    """Each sentence as its words in lower case, and as it stands."""
    parts = (part.strip() for part in _END.split(text))
    keyed = ((" ".join(_WORD.findall(part.lower())), part) for part in parts)
    return tuple((key, part) for key, part in keyed if key)
