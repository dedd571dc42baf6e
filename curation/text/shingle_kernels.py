"""Compiled loops (numba, cached on disk) over UTF-8 text: hashing words, and the sets of shingles of rows.

No loop here starts threads: they release the interpreter's lock, and callers run them on independent blocks of rows in
threads of their own. So results are the same for any number of threads, nothing spins on a busy machine, and compiling
takes seconds. Shapes: `n` rows; the sets of all rows are in one flat array, with `offsets` int64[n + 1] into it.
After a change here run `make clean`: numba does not rebuild cached kernels of other modules that call these.
"""

# ruff: noqa: ANN001, ANN201, ANN202  (what numba compiles into its callers has no types of Python)
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from siftune.curation.text.words import HARD, LETTER, SEPARATOR, WORD

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Offset basis and prime of FNV-1a for 64 bits (Fowler, Noll and Vo; draft-eastlake-fnv).
FNV_START: Final = np.uint64(0xCBF29CE484222325)
FNV_PRIME: Final = np.uint64(0x100000001B3)
# Multipliers of `fmix64`, the finaliser of MurmurHash3 (Appleby, 2011).
_M1: Final = np.uint64(0xFF51AFD7ED558CCD)
_M2: Final = np.uint64(0xC4CEB9FE1A85EC53)
# 2**64 over the golden ratio, made odd: the increment of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_S33: Final = np.uint64(33)
S32: Final = np.uint64(32)
ONE: Final = np.uint64(1)


def _word_bytes() -> U8:
    """For each byte its lower-case form if it is part of a word, else 0. Bytes beyond ASCII are part of words."""
    table = np.zeros(256, np.uint8)
    for code in range(256):
        if code >= 128 or chr(code).isalnum() or code == ord("_"):
            table[code] = ord(chr(code).lower()) if code < 128 else code
    return table


_WORD_BYTES: Final = _word_bytes()


@njit(cache=True, nogil=True, inline="always")
def mix64(h):
    """`fmix64`, the finaliser of MurmurHash3: a bijection of uint64 that spreads every bit over all of them."""
    h ^= h >> _S33
    h *= _M1
    h ^= h >> _S33
    h *= _M2
    return h ^ (h >> _S33)


@njit(cache=True, nogil=True, inline="always")
def _decode(text, at):
    """The code point beyond ASCII whose UTF-8 begins at `text[at]` (uint8), and how many bytes it takes (2 to 4)."""
    byte = np.int64(text[at])
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(text[at + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(text[at + 1] & 0x3F) << 6 | np.int64(text[at + 2] & 0x3F), 3
    high = (byte & 0x07) << 18 | np.int64(text[at + 1] & 0x3F) << 12
    return high | np.int64(text[at + 2] & 0x3F) << 6 | np.int64(text[at + 3] & 0x3F), 4


@njit(cache=True, nogil=True, inline="always")
def _hash_character(h, code):
    """The FNV-1a state `h` (uint64) after the UTF-8 bytes of a code point."""
    if code < 0x80:
        return (h ^ np.uint64(code)) * FNV_PRIME
    if code < 0x800:
        h = (h ^ np.uint64(0xC0 | code >> 6)) * FNV_PRIME
    else:
        if code < 0x10000:
            h = (h ^ np.uint64(0xE0 | code >> 12)) * FNV_PRIME
        else:
            h = (h ^ np.uint64(0xF0 | code >> 18)) * FNV_PRIME
            h = (h ^ np.uint64(0x80 | (code >> 12 & 0x3F))) * FNV_PRIME
        h = (h ^ np.uint64(0x80 | (code >> 6 & 0x3F))) * FNV_PRIME
    return (h ^ np.uint64(0x80 | (code & 0x3F))) * FNV_PRIME


@njit(cache=True, nogil=True)
def _hash_words(text, start, end, out, at, kinds, lowers):
    """Hash every word of `text[start:end]` (FNV-1a of its lower-case UTF-8) to `out[at:]`.

    Args:
        text: uint8, UTF-8.
        start: The first byte.
        end: The byte after the last one.
        out: uint64; one element more than there are words is written.
        at: The first element of `out` to be written.
        kinds: uint8, what each code point is; when it is empty, every byte beyond ASCII is part of a word.
        lowers: uint32, the lower case of each code point.

    Returns:
        The number of words, or -1 at a HARD character.
    """
    count = 0
    h = FNV_START
    inside = False
    i = start
    while i < end:
        byte = text[i]
        if byte < 128 or kinds.size == 0:
            # No branch on whether a word ends here: it would be mispredicted at every word.
            low = _WORD_BYTES[byte]
            word = low != 0
            out[at + count] = h
            count += inside and not word
            h = (h ^ np.uint64(low)) * FNV_PRIME if word else FNV_START
            inside = word
            i += 1
            continue
        code, width = _decode(text, i)
        kind = kinds[code] if code < kinds.size else HARD
        if kind == HARD:
            return -1
        if inside and kind != LETTER:
            out[at + count] = h
            count += 1
            h = FNV_START
        inside = kind == LETTER
        if kind != SEPARATOR:
            h = _hash_character(h, np.int64(lowers[code]))
        if kind == WORD:
            out[at + count] = h
            count += 1
            h = FNV_START
        i += width
    out[at + count] = h
    return count + 1 if inside else count


@njit(cache=True, nogil=True)
def shingle(out, at, tokens, size):
    """Replace token hashes by the hashes of shingles (runs of tokens), in place.

    Args:
        out: uint64, the token hashes.
        at: The first of them.
        tokens: How many there are; zero and -1 are returned as they are.
        size: Tokens in a shingle. Fewer tokens than that make one shingle of all of them.

    Returns:
        The number of shingles, which are at `out[at:]`.
    """
    if tokens <= 0:
        return tokens
    for i in range(at, at + tokens):
        out[i] = mix64(out[i])
    width = min(tokens, size)
    count = tokens - width + 1
    for i in range(at, at + count):
        h = np.uint64(width)
        for step in range(width):
            h = (h ^ out[i + step]) * GOLDEN
            h ^= h >> S32
        out[i] = mix64(h)
    return count


@njit(cache=True, nogil=True)
def sorted_unique(out, at, count):
    """Sort `out[at : at + count]` (uint64) in place and drop repeats; returns how many are left.

    The values are hashes and so evenly spread: a bucket sort by their high bits, with as many buckets as values, brings
    each near its final position, and an insertion sort does the rest. Linear time in expectation.
    """
    if count < 2:
        return count
    buckets = np.uint64(count)
    heads = np.zeros(count + 1, np.int32)
    spread = np.empty(count, np.uint64)
    for i in range(at, at + count):
        heads[((out[i] >> S32) * buckets >> S32) + ONE] += 1
    for bucket in range(count):
        heads[bucket + 1] += heads[bucket]
    for i in range(at, at + count):
        bucket = (out[i] >> S32) * buckets >> S32
        spread[heads[bucket]] = out[i]
        heads[bucket] += 1
    for i in range(1, count):
        value = spread[i]
        before = i - 1
        while before >= 0 and spread[before] > value:
            spread[before + 1] = spread[before]
            before -= 1
        spread[before + 1] = value
    kept = 0
    for i in range(count):
        if i == 0 or spread[i] != spread[i - 1]:
            out[at + kept] = spread[i]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def shingle_rows(text: U8, offsets: I64, slots: I64, size: int, kinds: U8, lowers: U32, flat: U64) -> I64:
    """The sorted set of shingle hashes of each row.

    Args:
        text: uint8, the UTF-8 of all rows.
        offsets: int64[n + 1]: row i is `text[offsets[i]:offsets[i + 1]]`.
        slots: int64[n]: the set of row i is written to `flat[slots[i]:]`.
        size: Words in a shingle.
        kinds: uint8, what each code point is: SEPARATOR, LETTER, WORD or HARD. When it is empty, every byte beyond
            ASCII is a letter.
        lowers: uint32, the lower case of each code point.
        flat: uint64, written to; each row needs an element for every two of its bytes, and one more.

    Returns:
        int64[n], the size of each set; 0 for a row without a word, -1 for a row with a HARD character.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in range(rows):
        tokens = _hash_words(text, offsets[row], offsets[row + 1], flat, slots[row], kinds, lowers)
        count = shingle(flat, slots[row], tokens, size)
        counts[row] = sorted_unique(flat, slots[row], count)
    return counts


@njit(cache=True, nogil=True)
def word_rows(text: U8, offsets: I64, slots: I64, kinds: U8, lowers: U32, flat: U64) -> I64:
    """The hashes of the words of each row, in order.

    Args:
        text: uint8, the UTF-8 of all rows.
        offsets: int64[n + 1]: row i is `text[offsets[i]:offsets[i + 1]]`.
        slots: int64[n]: the words of row i are written to `flat[slots[i]:]`.
        kinds: uint8, as in `shingle_rows`.
        lowers: uint32, as in `shingle_rows`.
        flat: uint64, written to; each row needs an element for every two of its bytes, and one more.

    Returns:
        int64[n], the number of words of each row; 0 for a row without a word, -1 for a row with a HARD character.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in range(rows):
        at = slots[row]
        counts[row] = _hash_words(text, offsets[row], offsets[row + 1], flat, at, kinds, lowers)
        for i in range(at, at + counts[row]):
            flat[i] = mix64(flat[i])
    return counts


@njit(cache=True, nogil=True)
def gather_rows(flat: U64, slots: I64, rows: I64, offsets: I64, out: U64) -> None:
    """Copy the sets of some rows to their final positions.

    Args:
        flat: uint64, the sets where `shingle_rows` wrote them.
        slots: int64[m]: set i begins at `flat[slots[i]]`.
        rows: int64[m]: set i is that of row r = `rows[i]`.
        offsets: int64[n + 1]: the set of row r belongs to `out[offsets[r]:offsets[r + 1]]`.
        out: uint64, written to.
    """
    for i in range(rows.size):
        row = rows[i]
        for step in range(offsets[row + 1] - offsets[row]):
            out[offsets[row] + step] = flat[slots[i] + step]
