"""Compiled loops of the search for passages inside texts. See `siftune.curation.splits.containment`.

Texts are sequences of word hashes, one after another in a flat uint64 array, with offsets int64[n + 1] into it.
"""

# ruff: noqa: ANN001, ANN202  (what numba compiles into its callers has no types of Python)
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from siftune.curation.text.shingle_kernels import GOLDEN, I64, S32, U8, U64, Bools, mix64

#: Anchors are looked up in a table of bits by the high bits of their hash before the exact search.
TABLE_BITS: Final = 22
_TABLE_SHIFT: Final = np.uint64(64 - TABLE_BITS)


@njit(cache=True, nogil=True, inline="always")
def _run_hash(words, start, size):
    h = np.uint64(size)
    for at in range(start, start + size):
        h = (h ^ words[at]) * GOLDEN
        h ^= h >> S32
    return mix64(h)


@njit(cache=True, nogil=True)
def sequence_hashes(words: U64, offsets: I64, groups: I64) -> U64:
    """A hash of each group of sequences: of the words in order and of where one sequence ends.

    Args:
        words: uint64, the words of all sequences.
        offsets: int64[s + 1], sequence i is `words[offsets[i]:offsets[i + 1]]`.
        groups: int64[g + 1], group j holds the sequences from `groups[j]` to `groups[j + 1]`.

    Returns:
        uint64[g].
    """
    hashes = np.empty(groups.size - 1, np.uint64)
    for group in range(groups.size - 1):
        h = np.uint64(groups[group + 1] - groups[group])
        for sequence in range(groups[group], groups[group + 1]):
            h = mix64(h * GOLDEN ^ _run_hash(words, offsets[sequence], offsets[sequence + 1] - offsets[sequence]))
        hashes[group] = h
    return hashes


@njit(cache=True, nogil=True)
def choose_anchors(
    words: U64, offsets: I64, groups: I64, longest_run: int, counts: U8, sequence: I64, start: I64, hashes: U64
) -> None:
    """For each group the run of words by which it is looked up: of its longest sequence, the run that is rarest.

    Args:
        words: uint64, the words of all sequences.
        offsets: int64[s + 1], as in `sequence_hashes`.
        groups: int64[g + 1], as in `sequence_hashes`.
        longest_run: words in a run; a shorter sequence is looked up as a whole.
        counts: uint8, counters of zero; their number is a power of two. Written to.
        sequence: int64[g], written to: the sequence that holds the run.
        start: int64[g], written to: where the run begins in that sequence.
        hashes: uint64[g], written to: the hash of the run.
    """
    mask = np.uint64(counts.size - 1)
    for i in range(offsets.size - 1):
        size = min(longest_run, offsets[i + 1] - offsets[i])
        for at in range(offsets[i], offsets[i + 1] - size + 1):
            slot = _run_hash(words, at, size) & mask
            if counts[slot] < 255:
                counts[slot] += np.uint8(1)
    for group in range(groups.size - 1):
        best = int(groups[group])
        for i in range(groups[group], groups[group + 1]):
            if offsets[i + 1] - offsets[i] > offsets[best + 1] - offsets[best]:
                best = i
        size = min(longest_run, offsets[best + 1] - offsets[best])
        rarest = 256
        for at in range(offsets[best], offsets[best + 1] - size + 1):
            h = _run_hash(words, at, size)
            if counts[h & mask] < rarest:
                rarest = int(counts[h & mask])
                start[group] = at - offsets[best]
                hashes[group] = h
        sequence[group] = best


@njit(cache=True, nogil=True, inline="always")
def _equal(one, at, other, start, size):
    step = 0
    while step < size and one[at + step] == other[start + step]:
        step += 1
    return step == size


@njit(cache=True, nogil=True)
def _in_order(words, offsets, first, last, text, begin, end):
    """Whether the sequences `first` to `last` stand in `text[begin:end]` one after another, without overlap."""
    at = begin
    for sequence in range(first, last):
        size = offsets[sequence + 1] - offsets[sequence]
        while at + size <= end and not _equal(text, at, words, offsets[sequence], size):
            at += 1
        if at + size > end:
            return False
        at += size
    return True


@njit(cache=True, nogil=True)
def find_groups(
    text: U64,
    text_offsets: I64,
    size: int,
    table: Bools,
    anchors: U64,
    anchor_group: I64,
    words: U64,
    offsets: I64,
    groups: I64,
    sequence: I64,
    start: I64,
) -> tuple[I64, I64]:
    """Which groups of sequences stand in which texts: every word is compared.

    Args:
        text: uint64, the words of all texts.
        text_offsets: int64[n + 1], text i is `text[text_offsets[i]:text_offsets[i + 1]]`.
        size: words in the runs by which these groups are looked up.
        table: bool[2**TABLE_BITS], true where an anchor has these high bits.
        anchors: uint64[a], the hashes of the runs, sorted.
        anchor_group: int64[a], the group of each.
        words: uint64, as in `sequence_hashes`.
        offsets: int64[s + 1], as in `sequence_hashes`.
        groups: int64[g + 1], as in `sequence_hashes`.
        sequence: int64[g], of `choose_anchors`.
        start: int64[g], of `choose_anchors`.

    Returns:
        int64[m], groups; int64[m], the text that holds each. A pair may come more than once.
    """
    in_group, in_text = np.empty(1024, np.int64), np.empty(1024, np.int64)
    count = 0
    for row in range(text_offsets.size - 1):
        begin, end = text_offsets[row], text_offsets[row + 1]
        for at in range(begin, end - size + 1):
            h = _run_hash(text, at, size)
            if not table[h >> _TABLE_SHIFT]:
                continue
            for i in range(np.searchsorted(anchors, h), anchors.size):
                if anchors[i] != h:
                    break
                group = anchor_group[i]
                own = offsets[sequence[group]]
                length = offsets[sequence[group] + 1] - own
                first = at - start[group]
                if first < begin or first + length > end or not _equal(text, first, words, own, length):
                    continue
                several = groups[group + 1] - groups[group] > 1
                if several and not _in_order(words, offsets, groups[group], groups[group + 1], text, begin, end):
                    continue
                if count == in_group.size:
                    in_group = np.concatenate((in_group, np.empty_like(in_group)))
                    in_text = np.concatenate((in_text, np.empty_like(in_text)))
                in_group[count], in_text[count] = group, row
                count += 1
    return in_group[:count], in_text[:count]
