"""The compiled inner loops (numba, cached on disk): hashing, tokenising, sets of shingles.

No loop here starts threads: they release the interpreter's lock, and callers run them on independent blocks of rows in
threads of their own. So results are the same for any number of threads, nothing spins on a busy machine, and compiling
takes seconds. Shapes: `n` rows; the sets of all rows stand in one flat array, `offsets` int64[n + 1] into it.
After a change here run `make clean`: numba's cache of the other kernels does not notice.
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

# FNV-1a, 64 bits (Fowler, Noll, Vo).
FNV_START: Final = np.uint64(0xCBF29CE484222325)
FNV_PRIME: Final = np.uint64(0x100000001B3)
# The 64-bit finaliser of MurmurHash3 (Appleby): a fixed bijection that spreads every input bit.
_M1: Final = np.uint64(0xFF51AFD7ED558CCD)
_M2: Final = np.uint64(0xC4CEB9FE1A85EC53)
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
    """The finaliser of MurmurHash3: spreads every bit of a 64-bit word over all of it."""
    h ^= h >> _S33
    h *= _M1
    h ^= h >> _S33
    h *= _M2
    return h ^ (h >> _S33)


@njit(cache=True, nogil=True, inline="always")
def _decode(text, place):
    """The code point whose UTF-8 begins at `place`, beyond ASCII, and how many bytes it takes."""
    byte = np.int64(text[place])
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(text[place + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(text[place + 1] & 0x3F) << 6 | np.int64(text[place + 2] & 0x3F), 3
    high = (byte & 0x07) << 18 | np.int64(text[place + 1] & 0x3F) << 12
    return high | np.int64(text[place + 2] & 0x3F) << 6 | np.int64(text[place + 3] & 0x3F), 4


@njit(cache=True, nogil=True, inline="always")
def _hash_character(h, code):
    """FNV-1a over the UTF-8 bytes of a code point."""
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
    """Hash every word of `text[start:end]` into `out[at:]`; returns how many, or -1 at a HARD character.

    Writes one slot more than there are words. Without `kinds`, bytes beyond ASCII are part of words as they are.
    """
    found = 0
    h = FNV_START
    inside = False
    place = start
    while place < end:
        byte = text[place]
        if byte < 128 or kinds.size == 0:
            # No branch on whether a word ends here: it would be mispredicted at every word.
            low = _WORD_BYTES[byte]
            word = low != 0
            out[at + found] = h
            found += inside and not word
            h = (h ^ np.uint64(low)) * FNV_PRIME if word else FNV_START
            inside = word
            place += 1
            continue
        code, width = _decode(text, place)
        kind = kinds[code] if code < kinds.size else HARD
        if kind == HARD:
            return -1
        if inside and kind != LETTER:
            out[at + found] = h
            found += 1
            h = FNV_START
        inside = kind == LETTER
        if kind != SEPARATOR:
            h = _hash_character(h, np.int64(lowers[code]))
        if kind == WORD:
            out[at + found] = h
            found += 1
            h = FNV_START
        place += width
    out[at + found] = h
    return found + 1 if inside else found


@njit(cache=True, nogil=True)
def shingle(out, at, tokens, size):
    """Turn `tokens` token hashes at `out[at:]` into hashes of runs of `size` tokens, in place; returns how many.

    Fewer tokens than `size` make one run of all of them.
    """
    if tokens <= 0:
        return tokens
    for place in range(at, at + tokens):
        out[place] = mix64(out[place])
    width = min(tokens, size)
    count = tokens - width + 1
    for place in range(at, at + count):
        h = np.uint64(width)
        for step in range(width):
            h = (h ^ out[place + step]) * GOLDEN
            h ^= h >> S32
        out[place] = mix64(h)
    return count


@njit(cache=True, nogil=True)
def sorted_unique(out, at, count):
    """Sort `out[at : at + count]` in place and drop repeats; returns how many are left.

    The values are hashes, so evenly spread: each is thrown near its final place by its high bits (as many buckets as
    values), and an insertion sort mends the rest. Linear in expectation, several times faster than comparing.
    """
    if count < 2:
        return count
    buckets = np.uint64(count)
    heads = np.zeros(count + 1, np.int32)
    spread = np.empty(count, np.uint64)
    for place in range(at, at + count):
        heads[((out[place] >> S32) * buckets >> S32) + ONE] += 1
    for bucket in range(count):
        heads[bucket + 1] += heads[bucket]
    for place in range(at, at + count):
        bucket = (out[place] >> S32) * buckets >> S32
        spread[heads[bucket]] = out[place]
        heads[bucket] += 1
    for place in range(1, count):
        value = spread[place]
        before = place - 1
        while before >= 0 and spread[before] > value:
            spread[before + 1] = spread[before]
            before -= 1
        spread[before + 1] = value
    kept = 0
    for place in range(count):
        if place == 0 or spread[place] != spread[place - 1]:
            out[at + kept] = spread[place]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def shingle_rows(text: U8, offsets: I64, slots: I64, size: int, kinds: U8, lowers: U32, flat: U64) -> I64:
    """The sorted set of shingle hashes of each row.

    `text` is UTF-8, row i is `text[offsets[i]:offsets[i + 1]]`. `kinds` and `lowers` say of each code point what it is
    (SEPARATOR, LETTER, WORD, HARD) and what its lower case is; without them every byte beyond ASCII is a letter. Row i
    writes to `flat[slots[i]:]`, which needs a slot for each two bytes and one more. Returns int64[n], the size of each
    set; 0 for a row without a word, -1 for a row with a HARD character.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in range(rows):
        tokens = _hash_words(text, offsets[row], offsets[row + 1], flat, slots[row], kinds, lowers)
        count = shingle(flat, slots[row], tokens, size)
        counts[row] = sorted_unique(flat, slots[row], count)
    return counts


@njit(cache=True, nogil=True)
def gather_rows(flat: U64, slots: I64, rows: I64, offsets: I64, out: U64) -> None:
    """Copy the set at `flat[slots[i]:]` to `out[offsets[r]:offsets[r + 1]]` for each i and its row r = `rows[i]`."""
    for i in range(rows.size):
        row = rows[i]
        for place in range(offsets[row + 1] - offsets[row]):
            out[offsets[row] + place] = flat[slots[i] + place]
