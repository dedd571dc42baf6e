"""What distinguishes two prompts that are nearly alike: words that each of them has and the other lacks.

A long passage makes two prompts similar whatever is asked about it, so the similarity says nothing of the question. Two
observations do. Beside a short answer ("yes", a name, a label), which many questions share, every word of the prompt
counts. And where the answers differ as well, the differences of prompts and answers belong together: "is it rough? …
no", "is it soft? … yes". A word that only one prompt has besides ("Question:", "please") is no such difference.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.text.guard_tokens import SHORT_ANSWER
from siftune.curation.text.shingle_kernels import I64, U32, U64, Bools
from siftune.curation.text.shingle_sets import word_sequences
from siftune.curation.text.words import words

_LISTED_WORDS = 6


def asks_for_another_thing(corpus: Corpus, rows: NDArray[np.uint32], pairs: Pairs) -> NDArray[np.bool_]:
    """Which pairs of rows with similar prompts are of different tasks: bool [m].

    Both prompts have a word that the other lacks (counted: a second "the" is a word more), and the answers are shorter
    than `siftune.curation.text.guard_tokens.SHORT_ANSWER` words or each have such a word too.

    Args:
        corpus: the texts; only those of rows in pairs whose prompts differ are read.
        rows: ascending positions in EXAMPLES of the rows that were compared, [n].
        pairs: positions in `rows`, with the similarity of both sides.
    """
    another = np.zeros(len(pairs), bool)
    assert pairs.sides is not None
    differing = np.flatnonzero(pairs.sides[:, 0] < 1.0)
    involved = np.unique(np.concatenate([pairs.a[differing], pairs.b[differing]]))
    frames = list(corpus.frames(["core", "answer"], rows[involved]))
    if not frames:
        return another
    texts = pl.concat(frames)
    a, b = (np.searchsorted(involved, side[differing]).astype(np.uint32) for side in (pairs.a, pairs.b))
    prompts, answers = (word_sequences(texts[column].fill_null("")) for column in ("core", "answer"))
    another[differing] = another_task(prompts, answers, a, b)
    return another


def another_task(prompts: tuple[U64, I64], answers: tuple[U64, I64], a: U32, b: U32) -> Bools:
    """What `asks_for_another_thing` says of pairs of rows, from the words of their prompts and answers: bool [m].

    Args:
        prompts: hashes of words uint64 [t] and where each prompt begins, int64 [n + 1]; sorted within each in place.
        answers: the same of the answers.
        a: rows, uint32 [m].
        b: rows, uint32 [m].
    """
    answer_words = np.diff(answers[1])
    is_short = np.minimum(answer_words[a], answer_words[b]) < SHORT_ANSWER
    return both_lack_a_word(*prompts, a, b) & (is_short | both_lack_a_word(*answers, a, b))


def both_lack_a_word(words: U64, offsets: I64, a: U32, b: U32) -> Bools:
    """For each pair of texts whether each of them has a word that the other has not, or not as often: bool [m].

    Args:
        words: the hashes of the words of all texts, uint64 [t]; sorted within each text in place.
        offsets: text i has `words[offsets[i]:offsets[i + 1]]`, int64 [n + 1].
        a: texts, uint32 [m].
        b: texts, uint32 [m].
    """
    return _both_lack_a_word(words, offsets, a, b)


@njit(cache=True, nogil=True)
def _both_lack_a_word(words, offsets, a, b):  # noqa: ANN001, ANN202
    for row in range(offsets.size - 1):
        words[offsets[row] : offsets[row + 1]].sort()
    out = np.zeros(a.size, np.bool_)
    for pair in range(a.size):
        i, i_end = offsets[a[pair]], offsets[a[pair] + 1]
        j, j_end = offsets[b[pair]], offsets[b[pair] + 1]
        only_a, only_b = False, False
        while i < i_end and j < j_end and not (only_a and only_b):
            x, y = words[i], words[j]
            only_a |= x < y
            only_b |= y < x
            i += x <= y
            j += y <= x
        out[pair] = (only_a or i < i_end) and (only_b or j < j_end)
    return out


def replaced_words(pairs: pl.DataFrame) -> list[str]:
    """For each pair of texts the words that each has and the other lacks: "rough ≠ soft"; at most six of each.

    Args:
        pairs: two columns of texts.
    """
    listed = pairs.select(words(pl.all())).iter_rows()
    return [f"{_listed(one, Counter(other))} ≠ {_listed(other, Counter(one))}" for one, other in listed]


def _listed(words_in_order: Iterable[str], elsewhere: Counter[str]) -> str:
    remaining, only = elsewhere.copy(), []
    for word in words_in_order:
        if remaining[word]:
            remaining[word] -= 1
        else:
            only.append(word)
    return (" ".join(only[:_LISTED_WORDS]) or "(nothing)") + (" …" if len(only) > _LISTED_WORDS else "")
