"""The compiled inner loops of the text measures (numba, cached on disk, no Python object inside).

Every loop runs over independent rows or positions and writes only its own slots, so results are the same for any
number of threads. Shapes: `n` rows, `t` shingles of all rows in one flat array, `offsets` int64[n + 1] into it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

# FNV-1a, 64 bits (Fowler, Noll, Vo).
_FNV_START: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)
# The finalisers of MurmurHash3 (Appleby): fixed bijections that spread every input bit.
_M1: Final = np.uint64(0xFF51AFD7ED558CCD)
_M2: Final = np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_S33: Final = np.uint64(33)
_S32: Final = np.uint64(32)
_LOW32: Final = np.uint64(0xFFFFFFFF)
_F1: Final = np.uint32(0x85EBCA6B)
_F2: Final = np.uint32(0xC2B2AE35)
_F16: Final = np.uint32(16)
_F13: Final = np.uint32(13)
_MAX32: Final = np.uint32(0xFFFFFFFF)


def _word_bytes() -> U8:
    """For each byte its lower-case form if it is part of a word, else 0. Bytes beyond ASCII are part of words."""
    table = np.zeros(256, np.uint8)
    for code in range(256):
        if code >= 128 or chr(code).isalnum() or code == ord("_"):
            table[code] = ord(chr(code).lower()) if code < 128 else code
    return table


_WORD_BYTES: Final = _word_bytes()


@njit(cache=True, nogil=True, inline="always")
def _mix64(h):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    h ^= h >> _S33
    h *= _M1
    h ^= h >> _S33
    h *= _M2
    return h ^ (h >> _S33)


@njit(cache=True, nogil=True, inline="always")
def _mix32(shingle):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """fmix32 of the low half of a shingle hash."""
    h = np.uint32(shingle & _LOW32)
    h = np.uint32((h ^ (h >> _F16)) * _F1)
    h = np.uint32((h ^ (h >> _F13)) * _F2)
    return np.uint32(h ^ (h >> _F16))


@njit(cache=True, nogil=True)
def _hash_words(text, start, end, out, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Hash every word of `text[start:end]` into `out[at:]`; returns how many there are."""
    found = 0
    h = _FNV_START
    inside = False
    for place in range(start, end):
        byte = _WORD_BYTES[text[place]]
        if byte:
            h = (h ^ np.uint64(byte)) * _FNV_PRIME
            inside = True
        elif inside:
            out[at + found] = _mix64(h)
            found += 1
            h = _FNV_START
            inside = False
    if inside:
        out[at + found] = _mix64(h)
        found += 1
    return found


@njit(cache=True, nogil=True)
def _shingle(out, at, tokens, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Turn `tokens` word hashes at `out[at:]` into hashes of runs of `size` words, in place; returns how many.

    Fewer words than `size` make one shingle of all of them.
    """
    if tokens == 0:
        return 0
    width = min(tokens, size)
    count = tokens - width + 1
    for place in range(at, at + count):
        h = np.uint64(width)
        for step in range(width):
            h = (h ^ out[place + step]) * _GOLDEN
            h ^= h >> _S32
        out[place] = _mix64(h)
    return count


@njit(cache=True, nogil=True)
def _sorted_unique(out, at, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Sort `out[at : at + count]` in place and drop repeats; returns how many are left."""
    if count < 2:
        return count
    part = out[at : at + count]
    part.sort()
    kept = 1
    for place in range(1, count):
        if part[place] != part[kept - 1]:
            part[kept] = part[place]
            kept += 1
    return kept


@njit(cache=True, nogil=True, parallel=True)
def shingle_rows(text: U8, offsets: I64, slots: I64, size: int, flat: U64) -> I64:
    """The sorted set of shingle hashes of each row.

    `text` uint8, row i is `text[offsets[i]:offsets[i + 1]]`; ASCII, or words joined by single spaces. Row i writes to
    `flat[slots[i]:]`, which must have room for one hash for each two bytes, rounded up. Returns int64[n], the size of
    each set; 0 for a row without a word.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in prange(rows):
        tokens = _hash_words(text, offsets[row], offsets[row + 1], flat, slots[row])
        count = _shingle(flat, slots[row], tokens, size)
        counts[row] = _sorted_unique(flat, slots[row], count)
    return counts


@njit(cache=True, nogil=True, parallel=True)
def gather_rows(flat: U64, slots: I64, offsets: I64, out: U64) -> None:
    """Copy the set of row i from `flat[slots[i]:]` to `out[offsets[i]:offsets[i + 1]]`."""
    for row in prange(slots.size):
        shift = slots[row] - offsets[row]
        for place in range(offsets[row], offsets[row + 1]):
            out[place] = flat[place + shift]


@njit(cache=True, nogil=True)
def _sign(flat, start, end, a, b, signature):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """MinHash of one set: the minimum over the set of `a * fmix32(h) + b mod 2**32`, for each permutation."""
    for slot in range(a.size):
        signature[slot] = _MAX32
    for place in range(start, end):
        h = _mix32(flat[place])
        for slot in range(a.size):
            # numba widens 32-bit products to 64 bits; the cast is the modulo
            value = np.uint32(a[slot] * h + b[slot])
            if value < signature[slot]:
                signature[slot] = value


@njit(cache=True, nogil=True, parallel=True)
def signatures(flat: U64, offsets: I64, a: U32, b: U32) -> U32:
    """MinHash signatures uint32[n, permutations], bit for bit those of datasketch's scheme `affine32`.

    A shingle's 32-bit hash is the low half of its 64-bit hash. The empty set has 2**32 - 1 everywhere.
    """
    rows = offsets.size - 1
    out = np.empty((rows, a.size), np.uint32)
    for row in prange(rows):
        _sign(flat, offsets[row], offsets[row + 1], a, b, out[row])
    return out


@njit(cache=True, nogil=True, parallel=True)
def band_keys(flat: U64, offsets: I64, a: U32, b: U32, bands: int, out: U32) -> None:
    """The LSH band keys uint32[n, bands] of each set, without keeping its signature.

    A key hashes `a.size // bands` consecutive MinHash values. Two keys that are equal by chance only make a
    candidate more; candidates are verified.
    """
    width = a.size // bands
    for row in prange(offsets.size - 1):
        signature = np.empty(a.size, np.uint32)
        _sign(flat, offsets[row], offsets[row + 1], a, b, signature)
        for band in range(bands):
            h = np.uint64(width)
            for slot in range(band * width, band * width + width):
                h = _mix64((h ^ np.uint64(signature[slot])) * _GOLDEN)
            out[row, band] = np.uint32(h >> _S32)


@njit(cache=True, nogil=True)
def bucket_work(packed: U64) -> I64:
    """For sorted `key << 32 | row`: at each position how many later positions have the same key."""
    size = packed.size
    work = np.zeros(size, np.int64)
    for place in range(size - 2, -1, -1):
        if packed[place] >> _S32 == packed[place + 1] >> _S32:
            work[place] = work[place + 1] + 1
    return work


@njit(cache=True, nogil=True)
def _shared(flat, i, i_end, j, j_end, need):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many values two sorted sets share, or -1 as soon as it is certain that there are fewer than `need`."""
    shared = 0
    while i < i_end and j < j_end:
        x, y = flat[i], flat[j]
        if x == y:
            shared += 1
            i += 1
            j += 1
        else:
            if shared + min(i_end - i, j_end - j) < need:
                return -1
            if x < y:
                i += 1
            else:
                j += 1
    return shared if shared >= need else -1


@njit(cache=True, nogil=True, parallel=True)
def verify_bucket_pairs(
    rows: U32,
    starts: I64,
    first: int,
    last: int,
    keys: U32,
    band: int,
    flat: U64,
    offsets: I64,
    floor: float,
    out: I32,
) -> None:
    """Intersection sizes of the candidate pairs of positions `first <= p < last` of one band.

    `rows` are the rows in bucket order; position p pairs with the
    `starts[p + 1] - starts[p]` positions after it and writes from `out[starts[p] - starts[first]]`. -1 where the pair is below `floor`, or where an earlier band holds it already:
    so each pair is emitted exactly once without a global set of pairs.
    """
    base = starts[first]
    for place in prange(first, last):
        a = rows[place]
        a_size = offsets[a + 1] - offsets[a]
        for step in range(starts[place + 1] - starts[place]):
            b = rows[place + 1 + step]
            slot = starts[place] - base + step
            out[slot] = -1
            b_size = offsets[b + 1] - offsets[b]
            # |A ∩ B| / |A ∪ B| >= floor  <=>  |A ∩ B| >= floor (|A| + |B|) / (1 + floor); a hair less, for rounding
            need = np.int64(np.ceil(floor * (a_size + b_size) / (1.0 + floor) - 1e-6))
            if min(a_size, b_size) < need:
                continue
            seen = False
            for earlier in range(band):
                if keys[a, earlier] == keys[b, earlier]:
                    seen = True
                    break
            if seen:
                continue
            shared = _shared(flat, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1], need)
            if shared >= 0 and shared / (a_size + b_size - shared) >= floor:
                out[slot] = shared
