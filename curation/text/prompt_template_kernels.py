"""Compiled loops of the detection of prompt templates. See `siftune.curation.text.shingle_kernels`."""

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

    Args:
        text: uint8, the UTF-8 of all rows.
        offsets: int64[n + 1]: row i is `text[offsets[i]:offsets[i + 1]]`.
        slots: int64[n + 1]: the tokens of row i are written from element `slots[i]` on.
        starts: int64, written to: the first byte of each token in `text`.
        ends: int64, written to: the byte after its last one.
        hashes: uint64, written to: FNV-1a of each token.

    Returns:
        int64[n], the number of tokens of each row.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in range(rows):
        slot = slots[row]
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            byte = text[i]
            if byte == 32 or 9 <= byte <= 13:
                i += 1
                continue
            starts[slot] = i
            wide = 0xE3 <= byte <= 0xE9  # the UTF-8 lead bytes of U+3000 to U+9FFF
            stop = i + 3 if wide else i + 1
            while not wide and stop < end:
                byte = text[stop]
                if byte == 32 or 9 <= byte <= 13 or 0xE3 <= byte <= 0xE9:
                    break
                stop += 1
            h = FNV_START
            for at in range(i, stop):
                byte = text[at]
                if 65 <= byte <= 90:
                    byte += np.uint8(32)
                h = (h ^ np.uint64(byte)) * FNV_PRIME
            ends[slot] = stop
            hashes[slot] = h
            slot += 1
            i = stop
        counts[row] = slot - slots[row]
    return counts


@njit(cache=True, nogil=True)
def run_hashes(hashes: U64, slots: I64, counts: I64, salts: U64, size: int) -> I64:
    """Replace the token hashes of each row by hashes of its runs of tokens, in place.

    Args:
        hashes: uint64, as `token_spans` wrote them.
        slots: int64[n + 1]: the hashes of row i begin at `hashes[slots[i]]`.
        counts: int64[n], the number of tokens of each row.
        salts: uint64[n], mixed into the hashes of each row, so that equal runs of two sources differ.
        size: Tokens in a run.

    Returns:
        int64[n], the number of runs of each row: none where it has fewer tokens than `size`.
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
    """Sort the hashes of each row in place and drop repeats.

    Args:
        hashes: uint64.
        slots: int64[n + 1]: the hashes of row i begin at `hashes[slots[i]]`.
        counts: int64[n], the number of hashes of each row.

    Returns:
        int64[n], how many are left of each row.
    """
    left = np.empty(counts.size, np.int64)
    for row in range(counts.size):
        left[row] = sorted_unique(hashes, slots[row], counts[row])
    return left


@njit(cache=True, nogil=True)
def count_hashes(hashes: U64, slots: I64, counts: I64, table: U32) -> None:
    """Add one to the counter of each hash.

    Args:
        hashes: uint64.
        slots: int64[n + 1]: the hashes of row i begin at `hashes[slots[i]]`.
        counts: int64[n], the number of hashes of each row.
        table: uint32, the counters; their number is a power of two, and a hash counts in the one of its low bits.
    """
    mask = np.uint64(table.size - 1)
    for row in range(counts.size):
        for slot in range(slots[row], slots[row] + counts[row]):
            table[hashes[slot] & mask] += np.uint32(1)


@njit(cache=True, nogil=True)
def cover_templates(hashes: U64, slots: I64, runs: I64, size: int, table: U32, minimums: I64, covered: Bools) -> None:
    """Mark the tokens of each row that are in a run that was counted often.

    A run counted less than half as often as one that it overlaps does not mark: it is template and the most common
    first words of what follows it, and those words belong to the row ("… answer: What is").

    Args:
        hashes: uint64, as `run_hashes` wrote them.
        slots: int64[n + 1]: the runs of row i begin at `hashes[slots[i]]`, and so do its tokens in `covered`.
        runs: int64[n], the number of runs of each row.
        size: Tokens in a run.
        table: uint32, the counters of `count_hashes`.
        minimums: int64[n], how often a run must be counted to be a template of the row's source.
        covered: bool, written to: one element for each token.
    """
    mask = np.uint64(table.size - 1)
    for row in range(runs.size):
        start, stop = slots[row], slots[row] + runs[row]
        until = start
        for slot in range(start, stop):
            count = np.int64(table[hashes[slot] & mask])
            if count < minimums[row]:
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
    """Copy the tokens of each row that are not covered, each after its own white space.

    Args:
        text: uint8, the UTF-8 of all rows.
        offsets: int64[n + 1]: row i is written to `out[offsets[i]:]`.
        slots: int64[n + 1]: the tokens of row i begin at element `slots[i]`.
        counts: int64[n], the number of tokens of each row.
        starts: int64, the first byte of each token in `text`.
        ends: int64, the byte after its last one.
        covered: bool, which tokens are left out.
        out: uint8, written to.

    Returns:
        int64[n], the number of bytes written for each row.
    """
    lengths = np.zeros(counts.size, np.int64)
    for row in range(counts.size):
        at = offsets[row]
        for slot in range(slots[row], slots[row] + counts[row]):
            if covered[slot]:
                continue
            if at > offsets[row]:
                before = ends[slot - 1]
                for i in range(before, starts[slot]):
                    out[at] = text[i]
                    at += 1
                if before == starts[slot] and covered[slot - 1]:
                    out[at] = 32
                    at += 1
            for i in range(starts[slot], ends[slot]):
                out[at] = text[i]
                at += 1
        lengths[row] = at - offsets[row]
    return lengths
