"""The compiled inner loops of template detection. See `siftune.curation.text.shingle_kernels`."""


# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

from siftune.curation.text.shingle_kernels import (
    FNV_PRIME,
    FNV_START,
    I64,
    U8,
    U32,
    U64,
    Bools,
    mix64,
    shingle,
    sorted_unique,
)


@njit(cache=True, nogil=True)
def token_spans(text: U8, offsets: I64, slots: I64, starts: I64, ends: I64, hashes: U64) -> I64:
    """The tokens of each row between ASCII white space, lower-cased in ASCII; a CJK character or kana is a token.

    Row i writes from slot `slots[i]`: `starts` and `ends` in `text`, and hashes. Returns int64[n], how many.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in range(rows):
        slot = slots[row]
        place, end = offsets[row], offsets[row + 1]
        while place < end:
            byte = text[place]
            if byte == 32 or 9 <= byte <= 13:
                place += 1
                continue
            starts[slot] = place
            wide = 0xE3 <= byte <= 0xE9  # the UTF-8 lead bytes of U+3000 to U+9FFF
            stop = place + 3 if wide else place + 1
            while not wide and stop < end:
                byte = text[stop]
                if byte == 32 or 9 <= byte <= 13 or 0xE3 <= byte <= 0xE9:
                    break
                stop += 1
            h = FNV_START
            for at in range(place, stop):
                byte = text[at]
                if 65 <= byte <= 90:
                    byte += np.uint8(32)
                h = (h ^ np.uint64(byte)) * FNV_PRIME
            ends[slot] = stop
            hashes[slot] = h
            slot += 1
            place = stop
        counts[row] = slot - slots[row]
    return counts


@njit(cache=True, nogil=True)
def run_hashes(hashes: U64, slots: I64, counts: I64, salts: U64, size: int) -> I64:
    """Turn the token hashes of each row into hashes of runs of `size` tokens, in place, salted by `salts[i]`.

    Returns int64[n], how many runs each row has: none where it has fewer tokens than `size`.
    """
    runs = np.zeros(counts.size, np.int64)
    for row in range(counts.size):
        if counts[row] >= size:
            runs[row] = shingle(hashes, slots[row], counts[row], size)
            for slot in range(slots[row], slots[row] + runs[row]):
                hashes[slot] = mix64(hashes[slot] ^ salts[row])
    return runs


@njit(cache=True, nogil=True)
def unique_rows(hashes: U64, slots: I64, counts: I64) -> I64:
    """Sort the hashes of each row in place and drop repeats; returns int64[n], how many are left."""
    left = np.empty(counts.size, np.int64)
    for row in range(counts.size):
        left[row] = sorted_unique(hashes, slots[row], counts[row])
    return left


@njit(cache=True, nogil=True)
def tally(hashes: U64, slots: I64, counts: I64, table: U32) -> None:
    """Add one to the counter of each hash; `table.size` is a power of two."""
    mask = np.uint64(table.size - 1)
    for row in range(counts.size):
        for slot in range(slots[row], slots[row] + counts[row]):
            table[hashes[slot] & mask] += np.uint32(1)


@njit(cache=True, nogil=True)
def cover(hashes: U64, slots: I64, runs: I64, size: int, table: U32, least: I64, covered: Bools) -> None:
    """Mark the tokens of row i that lie in a run counted at least `least[i]` times.

    A run counted less than half as often as one that it overlaps does not mark: it is template and the commonest
    first words of what follows it, and those words belong to the row ("… answer: What is").
    """
    mask = np.uint64(table.size - 1)
    for row in range(runs.size):
        start, stop = slots[row], slots[row] + runs[row]
        until = start
        for slot in range(start, stop):
            count = np.int64(table[hashes[slot] & mask])
            if count < least[row]:
                continue
            top = count
            for other in range(max(start, slot - size + 1), min(stop, slot + size)):
                top = max(top, np.int64(table[hashes[other] & mask]))
            if 2 * count >= top:
                for token in range(max(slot, until), slot + size):
                    covered[token] = True
                until = slot + size


@njit(cache=True, nogil=True)
def copy_uncovered(
    text: U8, offsets: I64, slots: I64, counts: I64, starts: I64, ends: I64, covered: Bools, out: U8
) -> I64:
    """Write the uncovered tokens of row i, each after its own white space, to `out[offsets[i]:]`; returns lengths."""
    lengths = np.zeros(counts.size, np.int64)
    for row in range(counts.size):
        at = offsets[row]
        for slot in range(slots[row], slots[row] + counts[row]):
            if covered[slot]:
                continue
            if at > offsets[row]:
                before = ends[slot - 1]
                for place in range(before, starts[slot]):
                    out[at] = text[place]
                    at += 1
                if before == starts[slot] and covered[slot - 1]:
                    out[at] = 32
                    at += 1
            for place in range(starts[slot], ends[slot]):
                out[at] = text[place]
                at += 1
        lengths[row] = at - offsets[row]
    return lengths
