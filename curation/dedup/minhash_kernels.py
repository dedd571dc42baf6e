"""The compiled inner loops of MinHash LSH: signatures, bands, buckets, verified pairs."""

# ruff: noqa: ANN001, ANN202  (what numba compiles into its callers has no types of Python)
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from siftune.curation.text.shingle_kernels import FNV_PRIME, FNV_START, GOLDEN, I16, I32, I64, ONE, S32, U32, U64, mix64

# The 32-bit finaliser of MurmurHash3 (Appleby), with which datasketch's scheme `affine32` begins.
_F1: Final = np.uint32(0x85EBCA6B)
_F2: Final = np.uint32(0xC2B2AE35)
_F16: Final = np.uint32(16)
_F13: Final = np.uint32(13)
_LOW32: Final = np.uint64(0xFFFFFFFF)
_MAX32: Final = np.uint32(0xFFFFFFFF)
_S6: Final = np.uint64(6)
_SEVEN: Final = np.uint64(7)
_SIXTY_THREE: Final = np.uint64(63)
#: Turns the shingles of answers into others than those of prompts, for signatures and bitmaps.
ANSWER: Final = np.uint64(0xD1B54A32D192ED03)


@njit(cache=True, nogil=True, inline="always")
def _mix32(shingle):
    """fmix32 of the low half of a shingle hash."""
    h = np.uint32(shingle & _LOW32)
    h = np.uint32((h ^ (h >> _F16)) * _F1)
    h = np.uint32((h ^ (h >> _F13)) * _F2)
    return np.uint32(h ^ (h >> _F16))


@njit(cache=True, nogil=True)
def _sign(flat, start, middle, end, a, b, signature):
    """MinHash of one row: the minimum over its shingles of `a * fmix32(h) + b mod 2**32`, for each permutation.

    The shingles from `middle` on are those of the answer. They count as others than the same ones in a prompt.
    """
    for slot in range(a.size):
        signature[slot] = _MAX32
    for position in range(start, end):
        h = _mix32(flat[position] if position < middle else flat[position] ^ ANSWER)
        for slot in range(a.size):
            # numba widens 32-bit products to 64 bits; the cast is the modulo
            value = np.uint32(a[slot] * h + b[slot])
            # Written in any case: a loop that writes under a condition is not vectorised, and five times as slow.
            signature[slot] = min(signature[slot], value)


@njit(cache=True, nogil=True)
def signatures(flat: U64, offsets: I64, a: U32, b: U32) -> U32:
    """MinHash signatures uint32 [n, permutations], bit for bit those of datasketch's scheme `affine32`.

    A shingle's 32-bit hash is the low half of its 64-bit hash. The empty set has 2**32 - 1 everywhere. Time:
    t x permutations for t shingles.

    Args:
        flat: the sets one after another, uint64 [t].
        offsets: where each set begins, int64 [n + 1].
        a: odd factors, uint32 [permutations].
        b: summands, uint32 [permutations].
    """
    rows = offsets.size - 1
    out = np.empty((rows, a.size), np.uint32)
    for row in range(rows):
        _sign(flat, offsets[row], offsets[row + 1], offsets[row + 1], a, b, out[row])
    return out


@njit(cache=True, nogil=True)
def band_keys(flat: U64, offsets: I64, middles: I64, a: U32, b: U32, bands: int, out: U32) -> None:
    """The LSH band keys of each row, without keeping its signature.

    A key hashes `a.size // bands` consecutive MinHash values. Two keys that are equal by chance only make a
    candidate more; candidates are verified.

    Args:
        flat: the sets one after another, uint64 [t].
        offsets: where each row begins, int64 [n + 1].
        middles: where the set of its answer begins, int64 [n].
        a: odd factors, uint32 [permutations].
        b: summands, uint32 [permutations].
        bands: how many bands there are.
        out: the keys, uint32 [n, bands].
    """
    width = a.size // bands
    for row in range(offsets.size - 1):
        signature = np.empty(a.size, np.uint32)
        _sign(flat, offsets[row], middles[row], offsets[row + 1], a, b, signature)
        for band in range(bands):
            h = np.uint64(width)
            for slot in range(band * width, band * width + width):
                h = mix64((h ^ np.uint64(signature[slot])) * GOLDEN)
            out[row, band] = np.uint32(h >> S32)


@njit(cache=True, nogil=True)
def set_hashes(flat: U64, offsets: I64) -> U64:
    """Two independent 64-bit hashes of each set: uint64[n, 2]."""
    rows = offsets.size - 1
    out = np.empty((rows, 2), np.uint64)
    for row in range(rows):
        x, y = FNV_START, GOLDEN
        for position in range(offsets[row], offsets[row + 1]):
            x = mix64(x ^ flat[position]) * GOLDEN
            y = mix64((y + flat[position]) * FNV_PRIME)
        out[row, 0], out[row, 1] = x, y
    return out


@njit(cache=True, nogil=True)
def bucket_work(packed: U64) -> I32:
    """For sorted `key << 32 | row`: at each position how many later positions have the same key."""
    size = packed.size
    work = np.zeros(size, np.int32)
    for position in range(size - 2, -1, -1):
        if packed[position] >> S32 == packed[position + 1] >> S32:
            work[position] = work[position + 1] + 1
    return work


@njit(cache=True, nogil=True)
def join_sides(prompts: U64, prompt_offsets: I64, answers: U64, answer_offsets: I64, out: U64) -> None:
    """Write the set of each prompt and after it the set of its answer.

    Args:
        prompts: the sets of the prompts one after another, uint64 [p].
        prompt_offsets: where each of them begins, int64 [n + 1].
        answers: the sets of the answers one after another, uint64 [q].
        answer_offsets: where each of them begins, int64 [n + 1].
        out: uint64 [p + q].
    """
    at = 0
    for row in range(prompt_offsets.size - 1):
        for position in range(prompt_offsets[row], prompt_offsets[row + 1]):
            out[at] = prompts[position]
            at += 1
        for position in range(answer_offsets[row], answer_offsets[row + 1]):
            out[at] = answers[position]
            at += 1


@njit(cache=True, nogil=True)
def bitmaps(flat: U64, offsets: I64, middles: I64) -> U64:
    """A bitmap of 512 bits of each row, uint64[n, 8]: a bit is set for each shingle, another for one of an answer."""
    rows = offsets.size - 1
    out = np.zeros((rows, 8), np.uint64)
    for row in range(rows):
        for position in range(offsets[row], offsets[row + 1]):
            h = flat[position] if position < middles[row] else flat[position] ^ ANSWER
            out[row, h >> _S6 & _SEVEN] |= ONE << (h & _SIXTY_THREE)
    return out


@njit(cache=True, nogil=True, inline="always")
def _ones(x):
    """How many bits of a 64-bit word are set (Warren, Hacker's Delight, 5-1); compiles to one instruction."""
    x -= x >> ONE & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + (x >> np.uint64(2) & np.uint64(0x3333333333333333))
    x = x + (x >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(x * np.uint64(0x0101010101010101) >> np.uint64(56))


@njit(cache=True, nogil=True)
def _may_share(bits, a, b, a_size, b_size, need):
    """Whether the bitmaps allow sets a and b to share `need` values: a bit that only one has is a value only it has."""
    only_a, only_b = 0, 0
    for word in range(8):
        only_a += _ones(bits[a, word] & ~bits[b, word])
        only_b += _ones(bits[b, word] & ~bits[a, word])
    return a_size - only_a >= need and b_size - only_b >= need


@njit(cache=True, nogil=True)
def _shared(flat, i, i_end, j, j_end):
    """How many values two sorted sets share; no branch depends on the values."""
    shared = 0
    while i < i_end and j < j_end:
        x, y = flat[i], flat[j]
        shared += x == y
        i += x <= y
        j += y <= x
    return shared


@njit(cache=True, nogil=True, inline="always")
def _shared_enough(flat, i, i_end, j, j_end, floor):
    """How many values two sorted sets share; -1 where their Jaccard similarity is below `floor`. Two empty sets: 0."""
    total = (i_end - i) + (j_end - j)
    if total == 0:
        return 0
    # |A ∩ B| / |A ∪ B| >= floor  <=>  |A ∩ B| >= floor (|A| + |B|) / (1 + floor); a hair less, for rounding
    if min(i_end - i, j_end - j) < floor * total / (1.0 + floor) - 1e-6:
        return -1
    shared = _shared(flat, i, i_end, j, j_end)
    return shared if shared / (total - shared) >= floor else -1


@njit(cache=True, nogil=True)
def verify_bucket_pairs(
    rows: U32,
    bands: I16,
    starts: I64,
    first: int,
    last: int,
    keys: U32,
    flat: U64,
    offsets: I64,
    middles: I64,
    bits: U64,
    floor: float,
    answer_floor: float,
    out: I32,
) -> None:
    """Intersection sizes of the candidate pairs of positions `first <= p < last`, of prompts and of answers.

    Position p pairs with the `starts[p + 1] - starts[p]` positions after it and writes from
    `out[starts[p] - starts[first]]`: -1 where a side of the pair is below `floor`, or where an earlier band holds the
    pair already. So each pair is emitted exactly once without a global set of pairs. A pair costs O(bands) and, where
    bitmaps do not rule it out, the sizes of its sets.

    Args:
        rows: the rows in bucket order, uint32 [p].
        bands: the band of their bucket, int16 [p].
        starts: where the candidates of each position begin, int64 [p + 1].
        first: the first position.
        last: the position after the last one.
        keys: band keys of all rows, uint32 [n, bands].
        flat: the sorted sets one after another, uint64 [t].
        offsets: where each row begins, int64 [n + 1].
        middles: where the set of its answer begins, int64 [n].
        bits: `bitmaps` of the rows, uint64 [n, 8].
        floor: the least Jaccard similarity of prompts; two without any shingle are alike.
        answer_floor: the least one of answers.
        out: int32 [starts[last] - starts[first], 2], the sizes for prompts and for answers.
    """
    base = starts[first]
    joint_floor = min(floor, answer_floor)
    for position in range(first, last):
        a = rows[position]
        a_size = offsets[a + 1] - offsets[a]
        for step in range(starts[position + 1] - starts[position]):
            b = rows[position + 1 + step]
            slot = starts[position] - base + step
            out[slot, 0] = -1
            b_size = offsets[b + 1] - offsets[b]
            # Where both sides reach the floor, the shingles of both together do.
            need = np.int64(np.ceil(joint_floor * (a_size + b_size) / (1.0 + joint_floor) - 1e-6))
            if min(a_size, b_size) < need or not _may_share(bits, a, b, a_size, b_size, need):
                continue
            seen = False
            for earlier in range(bands[position]):
                if keys[a, earlier] == keys[b, earlier]:
                    seen = True
                    break
            if seen:
                continue
            answers = _shared_enough(flat, middles[a], offsets[a + 1], middles[b], offsets[b + 1], answer_floor)
            if answers < 0:
                continue
            out[slot, 0] = _shared_enough(flat, offsets[a], middles[a], offsets[b], middles[b], floor)
            out[slot, 1] = answers
