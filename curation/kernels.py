"""The compiled inner loops of the text measures (numba, cached on disk, no Python object inside).

Every loop runs over independent rows or positions and writes only its own slots, so results are the same for any
number of threads. Shapes: `n` rows, `t` shingles of all rows in one flat array, `offsets` int64[n + 1] into it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from curation.text import HARD, LETTER, SEPARATOR, WORD

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# FNV-1a, 64 bits (Fowler, Noll, Vo).
_FNV_START: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)
# The finalisers of MurmurHash3 (Appleby): fixed bijections that spread every input bit.
_M1: Final = np.uint64(0xFF51AFD7ED558CCD)
_M2: Final = np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_S6: Final = np.uint64(6)
_SEVEN: Final = np.uint64(7)
_SIXTY_THREE: Final = np.uint64(63)
_S33: Final = np.uint64(33)
_S32: Final = np.uint64(32)
_LOW32: Final = np.uint64(0xFFFFFFFF)
_F1: Final = np.uint32(0x85EBCA6B)
_F2: Final = np.uint32(0xC2B2AE35)
_F16: Final = np.uint32(16)
_F13: Final = np.uint32(13)
_ONE: Final = np.uint64(1)
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


@njit(cache=True, nogil=True, inline="always")
def _decode(text, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The code point whose UTF-8 begins at `place`, beyond ASCII, and how many bytes it takes."""
    byte = np.int64(text[place])
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(text[place + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(text[place + 1] & 0x3F) << 6 | np.int64(text[place + 2] & 0x3F), 3
    high = (byte & 0x07) << 18 | np.int64(text[place + 1] & 0x3F) << 12
    return high | np.int64(text[place + 2] & 0x3F) << 6 | np.int64(text[place + 3] & 0x3F), 4


@njit(cache=True, nogil=True, inline="always")
def _hash_character(h, code):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """FNV-1a over the UTF-8 bytes of a code point."""
    if code < 0x80:
        return (h ^ np.uint64(code)) * _FNV_PRIME
    if code < 0x800:
        h = (h ^ np.uint64(0xC0 | code >> 6)) * _FNV_PRIME
    else:
        if code < 0x10000:
            h = (h ^ np.uint64(0xE0 | code >> 12)) * _FNV_PRIME
        else:
            h = (h ^ np.uint64(0xF0 | code >> 18)) * _FNV_PRIME
            h = (h ^ np.uint64(0x80 | (code >> 12 & 0x3F))) * _FNV_PRIME
        h = (h ^ np.uint64(0x80 | (code >> 6 & 0x3F))) * _FNV_PRIME
    return (h ^ np.uint64(0x80 | (code & 0x3F))) * _FNV_PRIME


@njit(cache=True, nogil=True)
def _hash_words(text, start, end, out, at, kinds, lowers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Hash every word of `text[start:end]` into `out[at:]`; returns how many, or -1 at a HARD character.

    Writes one slot more than there are words. Without `kinds`, bytes beyond ASCII are part of words as they are.
    """
    found = 0
    h = _FNV_START
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
            h = (h ^ np.uint64(low)) * _FNV_PRIME if word else _FNV_START
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
            h = _FNV_START
        inside = kind == LETTER
        if kind != SEPARATOR:
            h = _hash_character(h, np.int64(lowers[code]))
        if kind == WORD:
            out[at + found] = h
            found += 1
            h = _FNV_START
        place += width
    out[at + found] = h
    return found + 1 if inside else found


@njit(cache=True, nogil=True)
def _shingle(out, at, tokens, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Turn `tokens` token hashes at `out[at:]` into hashes of runs of `size` tokens, in place; returns how many.

    Fewer tokens than `size` make one run of all of them.
    """
    if tokens <= 0:
        return tokens
    for place in range(at, at + tokens):
        out[place] = _mix64(out[place])
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
        heads[((out[place] >> _S32) * buckets >> _S32) + _ONE] += 1
    for bucket in range(count):
        heads[bucket + 1] += heads[bucket]
    for place in range(at, at + count):
        bucket = (out[place] >> _S32) * buckets >> _S32
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


@njit(cache=True, nogil=True, parallel=True)
def shingle_rows(text: U8, offsets: I64, slots: I64, size: int, kinds: U8, lowers: U32, flat: U64) -> I64:
    """The sorted set of shingle hashes of each row.

    `text` is UTF-8, row i is `text[offsets[i]:offsets[i + 1]]`. `kinds` and `lowers` say of each code point what it is
    (SEPARATOR, LETTER, WORD, HARD) and what its lower case is; without them every byte beyond ASCII is a letter. Row i
    writes to `flat[slots[i]:]`, which needs a slot for each two bytes and one more. Returns int64[n], the size of each
    set; 0 for a row without a word, -1 for a row with a HARD character.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in prange(rows):
        tokens = _hash_words(text, offsets[row], offsets[row + 1], flat, slots[row], kinds, lowers)
        count = _shingle(flat, slots[row], tokens, size)
        counts[row] = _sorted_unique(flat, slots[row], count)
    return counts


@njit(cache=True, nogil=True, parallel=True)
def gather_rows(flat: U64, slots: I64, rows: I64, offsets: I64, out: U64) -> None:
    """Copy the set at `flat[slots[i]:]` to `out[offsets[r]:offsets[r + 1]]` for each i and its row r = `rows[i]`."""
    for i in prange(rows.size):
        row = rows[i]
        for place in range(offsets[row + 1] - offsets[row]):
            out[offsets[row] + place] = flat[slots[i] + place]


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


@njit(cache=True, nogil=True, parallel=True)
def set_hashes(flat: U64, offsets: I64) -> U64:
    """Two independent 64-bit hashes of each set: uint64[n, 2]."""
    rows = offsets.size - 1
    out = np.empty((rows, 2), np.uint64)
    for row in prange(rows):
        x, y = _FNV_START, _GOLDEN
        for place in range(offsets[row], offsets[row + 1]):
            x = _mix64(x ^ flat[place]) * _GOLDEN
            y = _mix64((y + flat[place]) * _FNV_PRIME)
        out[row, 0], out[row, 1] = x, y
    return out


@njit(cache=True, nogil=True)
def bucket_work(packed: U64) -> I64:
    """For sorted `key << 32 | row`: at each position how many later positions have the same key."""
    size = packed.size
    work = np.zeros(size, np.int64)
    for place in range(size - 2, -1, -1):
        if packed[place] >> _S32 == packed[place + 1] >> _S32:
            work[place] = work[place + 1] + 1
    return work


@njit(cache=True, nogil=True, parallel=True)
def bitmaps(flat: U64, offsets: I64) -> U64:
    """A bitmap of 512 bits of each set, uint64[n, 8]: bit h mod 512 is set for each value h."""
    rows = offsets.size - 1
    out = np.zeros((rows, 8), np.uint64)
    for row in prange(rows):
        for place in range(offsets[row], offsets[row + 1]):
            h = flat[place]
            out[row, h >> _S6 & _SEVEN] |= _ONE << (h & _SIXTY_THREE)
    return out


@njit(cache=True, nogil=True, inline="always")
def _ones(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many bits of a 64-bit word are set (Warren, Hacker's Delight, 5-1); compiles to one instruction."""
    x -= x >> _ONE & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + (x >> np.uint64(2) & np.uint64(0x3333333333333333))
    x = x + (x >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(x * np.uint64(0x0101010101010101) >> np.uint64(56))


@njit(cache=True, nogil=True)
def _may_share(bits, a, b, a_size, b_size, need):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Whether the bitmaps allow sets a and b to share `need` values: a bit that only one has is a value only it has."""
    only_a, only_b = 0, 0
    for word in range(8):
        only_a += _ones(bits[a, word] & ~bits[b, word])
        only_b += _ones(bits[b, word] & ~bits[a, word])
    return a_size - only_a >= need and b_size - only_b >= need


@njit(cache=True, nogil=True)
def _shared(flat, i, i_end, j, j_end):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many values two sorted sets share; no branch depends on the values."""
    shared = 0
    while i < i_end and j < j_end:
        x, y = flat[i], flat[j]
        shared += x == y
        i += x <= y
        j += y <= x
    return shared


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
    bits: U64,
    floor: float,
    out: I32,
) -> None:
    """Intersection sizes of the candidate pairs of positions `first <= p < last` of one band.

    `rows` are the rows in bucket order; position p pairs with the
    `starts[p + 1] - starts[p]` positions after it and writes from `out[starts[p] - starts[first]]`. -1 where the
    pair is below `floor`, or where an earlier band holds it already: so each pair is emitted exactly once without a global set of pairs.
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
            if min(a_size, b_size) < need or not _may_share(bits, a, b, a_size, b_size, need):
                continue
            seen = False
            for earlier in range(band):
                if keys[a, earlier] == keys[b, earlier]:
                    seen = True
                    break
            if seen:
                continue
            shared = _shared(flat, offsets[a], offsets[a + 1], offsets[b], offsets[b + 1])
            if shared / (a_size + b_size - shared) >= floor:
                out[slot] = shared


@njit(cache=True, nogil=True)
def decide(
    starts: I64, early: I64, score: F64, guard: Bools, cap: int, pinned: Bools
) -> tuple[Bools, I64, F64, I64, F64]:
    """Greedy leaders over rows in keep order; `early[starts[i]:starts[i + 1]]` are the earlier rows similar to row i.

    Returns kept, witness, its score, guard witness, its score; see `curation.leaders`.
    """
    n = pinned.size
    kept = np.ones(n, np.bool_)
    leader = np.zeros(n, np.bool_)
    family = np.ones(n, np.int64)
    witness = np.full(n, -1, np.int64)
    best = np.full(n, np.nan)
    guard_witness = np.full(n, -1, np.int64)
    guard_best = np.full(n, np.nan)
    for row in range(n):
        for pair in range(starts[row], starts[row + 1]):
            other, value = early[pair], score[pair]
            if not leader[other]:
                continue
            if guard[pair]:
                seen, top = guard_witness[row], guard_best[row]
            else:
                seen, top = witness[row], best[row]
            if seen >= 0 and (value < top or (value == top and other > seen)):
                continue
            if guard[pair]:
                guard_witness[row], guard_best[row] = other, value
            else:
                witness[row], best[row] = other, value
        head = witness[row]
        if head < 0:
            leader[row] = True
            continue
        # The guard did not decide: the row belongs to a family anyhow.
        guard_witness[row], guard_best[row] = -1, np.nan
        if family[head] < cap:
            family[head] += 1
        elif not pinned[row]:
            kept[row] = False
    return kept, witness, best, guard_witness, guard_best


@njit(cache=True, nogil=True)
def decide_classes(
    order: I64, kind: I64, starts: I64, near: I64, score: F64, cap: int, alive: Bools, pinned: Bools
) -> tuple[Bools, I64, F64]:
    """Greedy leaders over rows that fall into classes of equal ones.

    order: rows in keep order, [n]; kind: the class of each row, named by one of its rows, [n];
    `near[starts[c]:starts[c + 1]]`: the other classes similar to class c, and their scores.
    Returns kept, witness, its score by row; rows that are not alive take no part.
    """
    n = order.size
    kept = np.zeros(n, np.bool_)
    witness = np.full(n, -1, np.int64)
    best = np.full(n, np.nan)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    family = np.ones(n, np.int64)
    leader = np.full(n, -1, np.int64)  # of each class; a class has at most one, as its rows are equal
    for row in order:
        if not alive[row]:
            continue
        kept[row] = True
        group = kind[row]
        head, top = leader[group], 1.0
        if head < 0:
            for pair in range(starts[group], starts[group + 1]):
                other = leader[near[pair]]
                if other < 0:
                    continue
                if head < 0 or score[pair] > top or (score[pair] == top and place[other] < place[head]):
                    head, top = other, score[pair]
        if head < 0:
            leader[group] = row
            continue
        witness[row], best[row] = head, top
        if family[head] < cap:
            family[head] += 1
        elif not pinned[row]:
            kept[row] = False
    return kept, witness, best


@njit(cache=True, nogil=True, parallel=True)
def token_spans(text: U8, offsets: I64, slots: I64, starts: I64, ends: I64, hashes: U64) -> I64:
    """The tokens of each row between ASCII white space, lower-cased in ASCII; a CJK character or kana is a token.

    Row i writes from slot `slots[i]`: `starts` and `ends` in `text`, and hashes. Returns int64[n], how many.
    """
    rows = offsets.size - 1
    counts = np.empty(rows, np.int64)
    for row in prange(rows):
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
            h = _FNV_START
            for at in range(place, stop):
                byte = text[at]
                if 65 <= byte <= 90:
                    byte += np.uint8(32)
                h = (h ^ np.uint64(byte)) * _FNV_PRIME
            ends[slot] = stop
            hashes[slot] = h
            slot += 1
            place = stop
        counts[row] = slot - slots[row]
    return counts


@njit(cache=True, nogil=True, parallel=True)
def run_hashes(hashes: U64, slots: I64, counts: I64, salts: U64, size: int) -> I64:
    """Turn the token hashes of each row into hashes of runs of `size` tokens, in place, salted by `salts[i]`.

    Returns int64[n], how many runs each row has: none where it has fewer tokens than `size`.
    """
    runs = np.zeros(counts.size, np.int64)
    for row in prange(counts.size):
        if counts[row] >= size:
            runs[row] = _shingle(hashes, slots[row], counts[row], size)
            for slot in range(slots[row], slots[row] + runs[row]):
                hashes[slot] = _mix64(hashes[slot] ^ salts[row])
    return runs


@njit(cache=True, nogil=True, parallel=True)
def unique_rows(hashes: U64, slots: I64, counts: I64) -> I64:
    """Sort the hashes of each row in place and drop repeats; returns int64[n], how many are left."""
    left = np.empty(counts.size, np.int64)
    for row in prange(counts.size):
        left[row] = _sorted_unique(hashes, slots[row], counts[row])
    return left


@njit(cache=True, nogil=True)
def tally(hashes: U64, slots: I64, counts: I64, table: U32) -> None:
    """Add one to the counter of each hash; `table.size` is a power of two."""
    mask = np.uint64(table.size - 1)
    for row in range(counts.size):
        for slot in range(slots[row], slots[row] + counts[row]):
            table[hashes[slot] & mask] += np.uint32(1)


@njit(cache=True, nogil=True, parallel=True)
def cover(hashes: U64, slots: I64, runs: I64, size: int, table: U32, least: I64, covered: Bools) -> None:
    """Mark the tokens of row i that lie in a run counted at least `least[i]` times.

    A run counted less than half as often as one that it overlaps does not mark: it is template and the commonest
    first words of what follows it, and those words belong to the row ("… answer: What is").
    """
    mask = np.uint64(table.size - 1)
    for row in prange(runs.size):
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


@njit(cache=True, nogil=True, parallel=True)
def copy_uncovered(
    text: U8, offsets: I64, slots: I64, counts: I64, starts: I64, ends: I64, covered: Bools, out: U8
) -> I64:
    """Write the uncovered tokens of each row, each after its own white space, to `out[offsets[i]:]`; returns lengths."""
    lengths = np.zeros(counts.size, np.int64)
    for row in prange(counts.size):
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
