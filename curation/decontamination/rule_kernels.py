"""The loops of the published contamination rules, compiled. Plain versions of the rules are in their tests.

No loop starts threads: they release the interpreter's lock, and callers may run them on blocks of rows in threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]


@njit(cache=True, nogil=True)
def _with_room(result: I64, count: int) -> I64:
    """`result`, or a copy twice as long where its first `count` rows fill it."""
    if count < len(result):
        return result
    larger = np.empty((2 * count, result.shape[1]), np.int64)
    larger[:count] = result
    return larger


@njit(cache=True, nogil=True)
def extend_seeds(
    row: I64,
    position: I64,
    gram: I64,
    row_words: U64,
    row_offsets: I64,
    starts: I64,
    text: I64,
    text_position: I64,
    item_words: U64,
    item_offsets: I64,
    contaminated: NDArray[np.bool_],
    seed_words: int,
    skip_budget: int,
) -> I64:
    """Every span that begins with one of the given seeds, and the words in it.

    Args:
        row, position, gram: int64[m], the seeds: an n-gram of an item at a position of a row.
        row_words, row_offsets: uint64[w] and int64[rows + 1], the words of the rows.
        starts, text, text_position: where the n-grams stand in item texts, as in `GramPostings`.
        item_words, item_offsets: uint64[v] and int64[t + 1], the words of the item texts.
        contaminated: bool[v], in which the words that both sides of a span have are marked.
        seed_words: words in a seed; a span is longer.
        skip_budget: positions in which the two sides of a span may differ.

    Returns:
        int64[s, 4]: row, text, the span's first word in the text, and its length.
    """
    result = np.empty((1024, 4), np.int64)
    count = 0
    for seed in range(len(row)):
        row_start, row_end = row_offsets[row[seed]], row_offsets[row[seed] + 1]
        a0 = row_start + position[seed]
        for posting in range(starts[gram[seed]], starts[gram[seed] + 1]):
            item_start, item_end = item_offsets[text[posting]], item_offsets[text[posting] + 1]
            b0 = item_start + text_position[posting]
            # Where the words before are equal too, the seed one word earlier has the same span and one word more.
            if a0 > row_start and b0 > item_start and row_words[a0 - 1] == item_words[b0 - 1]:
                continue
            length, step, differing = seed_words, seed_words, 0
            while a0 + step < row_end and b0 + step < item_end:
                if row_words[a0 + step] == item_words[b0 + step]:
                    length = step + 1
                else:
                    differing += 1
                    if differing > skip_budget:
                        break
                step += 1
            if length <= seed_words:
                continue
            for step in range(length):
                if row_words[a0 + step] == item_words[b0 + step]:
                    contaminated[b0 + step] = True
            result = _with_room(result, count)
            result[count, 0], result[count, 1] = row[seed], text[posting]
            result[count, 2], result[count, 3] = text_position[posting], length
            count += 1
    return result[:count].copy()


@njit(cache=True, nogil=True)
def _subsequence_length(item: I32, local: I32, masks: U64, size: int, width: int) -> int:
    """The length of the longest common subsequence, 64 positions of the row at a time.

    The recurrence of Hyyrö (2004, "Bit-parallel LCS-length computation revisited"): with V all ones at first, each word
    of the item gives U = V & mask, V = (V + U) | (V - U); the length is the number of zeros in V.
    """
    state = np.full(width, ~np.uint64(0), np.uint64)
    for word in item:
        number = local[word]
        if number < 0:
            continue
        carry = np.uint64(0)
        for block in range(width):
            old = state[block]
            matched = old & masks[number, block]
            total = old + matched
            overflow = np.uint64(total < old)
            total += carry
            overflow |= np.uint64(total < carry)
            carry = overflow
            state[block] = total | (old & ~matched)
    length = 0
    for position in range(size):
        length += 1 - int((state[position // 64] >> np.uint64(position % 64)) & np.uint64(1))
    return length


@njit(cache=True, nogil=True)
def common_subsequences(
    start: int,
    stop: int,
    row_words: I32,
    row_offsets: I64,
    starts: I64,
    texts: I32,
    times: I32,
    item_words: I32,
    item_offsets: I64,
    least_length: int,
    least_tenths: int,
) -> I64:
    """Pairs of a row, from `start` to `stop`, and an item text with a common subsequence that is long enough.

    Args:
        start, stop: the range of rows.
        row_words, row_offsets: int32[w] and int64[rows + 1], the words of the rows by number; -1 is in no item.
        starts, texts, times: word i is `times[k]` times in text `texts[k]`, for k from `starts[i]` to `starts[i + 1]`.
        item_words, item_offsets: int32[v] and int64[t + 1], the words of the item texts by number.
        least_length: the least length of a common subsequence.
        least_tenths: its least share of the shorter text, in tenths.

    Returns:
        int64[s, 3]: row, text, length of the longest common subsequence.
    """
    text_count, vocabulary = len(item_offsets) - 1, len(starts) - 1
    shared = np.zeros(text_count, np.int32)  # words that the row and each text have in common
    local = np.full(vocabulary, -1, np.int32)  # the words of the present row, numbered anew
    result = np.empty((1024, 3), np.int64)
    count = 0
    for row in range(start, stop):
        first, end = row_offsets[row], row_offsets[row + 1]
        size = end - first
        if size < least_length:
            continue
        # Number the row's words and mark in which positions each stands.
        width = (size + 63) // 64
        masks = np.zeros((size, width), np.uint64)
        repeats = np.zeros(size, np.int32)
        distinct = np.empty(size, np.int32)
        different = 0
        for position in range(size):
            word = row_words[first + position]
            if word < 0:
                continue
            if local[word] < 0:
                local[word] = different
                distinct[different] = word
                different += 1
            masks[local[word], position // 64] |= np.uint64(1) << np.uint64(position % 64)
            repeats[local[word]] += 1
        shared[:] = 0
        for index in range(different):
            word = distinct[index]
            for posting in range(starts[word], starts[word + 1]):
                shared[texts[posting]] += min(repeats[index], times[posting])
        for text in range(text_count):
            if shared[text] < least_length:
                continue
            item_first, item_end = item_offsets[text], item_offsets[text + 1]
            shorter = min(size, item_end - item_first)
            if 10 * shared[text] < least_tenths * shorter:
                continue
            length = _subsequence_length(item_words[item_first:item_end], local, masks, size, width)
            if length >= least_length and 10 * length >= least_tenths * shorter:
                result = _with_room(result, count)
                result[count, 0], result[count, 1], result[count, 2] = row, text, length
                count += 1
        for index in range(different):
            local[distinct[index]] = -1
    return result[:count].copy()


@njit(cache=True, nogil=True)
def rows_with_idf(bounds: I64, gram: I64, starts: I64, texts: I64, idf: F64, least: F64) -> I64:
    """Rows and texts whose shared n-grams have a summed idf of at least `least[text]`.

    Args:
        bounds: int64[rows + 1], row r has the n-grams `gram[k]`, for k from `bounds[r]` to `bounds[r + 1]`.
        gram: int64[m], n-grams of the texts in the rows.
        starts, texts, idf: as in `_WeighedGrams`.
        least: float64[t].

    Returns:
        int64[s, 2]: row and text.
    """
    shared = np.zeros(len(least))
    last_row = np.full(len(starts), -1, np.int64)
    touched = np.empty(len(least), np.int64)
    result = np.empty((1024, 2), np.int64)
    count = 0
    for row in range(len(bounds) - 1):
        touches = 0
        for index in range(bounds[row], bounds[row + 1]):
            number = gram[index]
            if last_row[number] == row or idf[number] == 0.0:  # what every text has says nothing
                continue
            last_row[number] = row
            for posting in range(starts[number], starts[number + 1]):
                text = texts[posting]
                if shared[text] == 0.0:
                    touched[touches] = text
                    touches += 1
                shared[text] += idf[number]
        for index in range(touches):
            text = touched[index]
            if shared[text] >= least[text]:
                result = _with_room(result, count)
                result[count, 0], result[count, 1] = row, text
                count += 1
            shared[text] = 0.0
    return result[:count].copy()
