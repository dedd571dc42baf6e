"""Decoys: items that a benchmark might hold and does not, so that whatever matches them is a false match.

Searching real and false entries side by side and counting what matches the false ones is how proteomics estimates the
false discovery rate of its searches (Elias and Gygi 2007, doi 10.1038/nmeth1019). A decoy here is an item in which
numbers, names, identifiers and the weightiest words were exchanged for those of a neighbouring item: the same kind of
task, on the same subject, that nobody published.
"""

from __future__ import annotations

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.contamination_outcomes import benchmark
from siftune.curation.decontamination.content_words import WordWeights, content_words, stem

#: This share of an item's words is exchanged, at least one: the weightiest.
_EXCHANGED_SHARE = 1 / 3
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]\w*")


def make_decoys(references: pl.DataFrame, donors: NDArray[np.int64]) -> pl.DataFrame:
    """Decoys of a reference's items.

    Args:
        references: `reference`, `prompt`, `answer`, perhaps `distractors`.
        donors: int64[n], for each item the other item whose words it gets; the item itself where there is none.

    Returns:
        The columns of `references`, and `item`, the position of the item that the decoy was made from; none of an item
        that has no donor or that comes out as an item. They depend on the references alone, so their embeddings are
        encoded once for all data sets.
    """
    prompts = references["prompt"].fill_null("").to_list()
    of = references.select(benchmark())["reference"]
    weights = WordWeights()
    for (name,), items in references.with_columns(of=of).group_by("of", maintain_order=True):
        weights.count_items(str(name), items["prompt"].fill_null("").to_list())
    changed = [
        _exchange(text, prompts[donor], reference, weights)
        for text, donor, reference in zip(prompts, donors, of, strict=True)
    ]
    of_donor = references[donors].drop("reference", "prompt")
    decoys = references.select("reference", prompt=pl.Series(changed), item=pl.int_range(pl.len(), dtype=pl.Int64))
    is_new = ~pl.Series(changed).is_in(pl.Series(prompts).implode())
    return pl.concat([decoys, of_donor], how="horizontal").filter(is_new & pl.Series(donors != np.arange(len(donors))))


def _exchange(text: str, donor: str, reference: str, weights: WordWeights) -> str:
    """`text` with its numbers, names and weightiest words exchanged for those of `donor`."""
    numbers = list(dict.fromkeys(_NUMBER.findall(donor)))
    own_numbers = list(dict.fromkeys(_NUMBER.findall(text)))
    new_number = {
        old: numbers[position % len(numbers)] if numbers else str(len(old) + 1) + old
        for position, old in enumerate(own_numbers)
    }
    words, others = _by_weight(text, reference, weights), _by_weight(donor, reference, weights)
    held = {stem(word.lower()) for word in _WORD.findall(text)}
    free = [word for word in others if stem(word) not in held]
    count = max(1, round(len(words) * _EXCHANGED_SHARE))
    new_word = dict(zip((stem(word) for word in words[:count]), free, strict=False))

    def replaced(match: re.Match[str]) -> str:
        word = match.group()
        new = new_word.get(stem(word.lower()))
        return word if new is None else new.capitalize() if word[0].isupper() else new

    return _WORD.sub(replaced, _NUMBER.sub(lambda match: new_number[match.group()], text))


def _by_weight(text: str, reference: str, weights: WordWeights) -> list[str]:
    """The content words of a text, names taken apart, the weightiest first."""
    words = content_words(text, code=True)
    return [word.form for word in sorted(words, key=lambda word: (-weights.weight(word, reference), word.form))]
