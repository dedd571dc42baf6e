"""Containment: the prompt of one row stands word for word inside another row.

Jaccard similarity and cosine are symmetric, so a question inside a long row, or the beginning of a dialogue inside its
continuation, resembles it little. Here every word is compared, and nothing is estimated.

What is searched for are *passages* of a row: its prompt, that is all its turns that are neither of the assistant nor of
the system, and its `core` (TEXTS) where that differs. A passage stands inside a row if all its turns stand, in their
order and without overlap, in the row's dialogue (all turns of all roles, in order), or in the row's core. Words are
those of `siftune.curation.text.words.words`: case, punctuation and white space do not matter.

A passage identifies its row when its longest turn has at least `LEAST_WORDS` words and few other prompts hold it: fewer
than make a template by the recipe's `keys`, and fewer than `SHORT_PROMPTS` where it has less than `LONG_PASSAGE` words.
What more prompts hold is a template or a phrase of everyday language ("Thank you very much."), and no leak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.decisions import pair_positions, pairs_frame
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.packed_arrays import pack, unpack
from siftune.curation.splits import containment_kernels as kernels
from siftune.curation.text.shingle_sets import word_sequences

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Words of the longest turn of a passage that can identify a row.
LEAST_WORDS = 4
#: Words from which on a passage is a sentence that says what it is about. Also the longest run by which passages are
#: looked up, so that every run is a whole passage or has this many words.
LONG_PASSAGE = 8
#: A shorter passage identifies its row only if fewer other prompts than this hold it.
SHORT_PROMPTS = 5
#: Counters by which the rarest run of a passage is chosen; no result depends on them.
_COUNTERS = 1 << 24

#: What is compared of a row: its turns that are neither of the assistant nor of the system; its core where that is not
#: the prompt as a whole, else null; all its turns as one text.
PASSAGE_TEXTS = pl.Schema({"turns": pl.List(pl.String), "core": pl.String(), "dialogue": pl.String()})

#: Gives the PASSAGE_TEXTS of rows in batches, anew at each call.
PassageTexts = Callable[[], Iterable[pl.DataFrame]]


def passage_texts(corpus: Corpus, rows: NDArray[np.uint32]) -> Iterator[pl.DataFrame]:
    """PASSAGE_TEXTS of the rows at the ascending positions `rows`, in batches."""
    role, content = pl.element().struct.field("role"), pl.element().struct.field("content")
    asked = content.filter(~role.is_in(["assistant", "system"]))
    examples, texts = corpus.example_frames(["messages"], rows), corpus.frames(["prompt", "core"], rows)
    for example, text in zip(examples, texts, strict=True):
        own = example.hstack(text)
        yield own.select(
            pl.col("messages").list.eval(asked).alias("turns"),
            pl.when(pl.col("core") != pl.col("prompt")).then("core").alias("core"),
            pl.col("messages").list.eval(content).list.join("\n", ignore_nulls=True).fill_null("").alias("dialogue"),
        )


@dataclass(frozen=True)
class Passages:
    """The passages of n rows, each distinct one once.

    Attributes:
        words: uint64[t], the words of all turns.
        offsets: int64[s + 1], turn i is `words[offsets[i]:offsets[i + 1]]`.
        groups: int64[p + 1], passage j holds the turns from `groups[j]` to `groups[j + 1]`.
        hashes: uint64[p], ascending.
        passage: int64[h], and
        row: int64[h]: which rows have which passage as their own.
        prompt: int64[n], the passage that is the whole prompt of each row; -1 for a prompt without words.
    """

    words: U64
    offsets: I64
    groups: I64
    hashes: U64
    passage: I64
    row: I64
    prompt: I64

    @classmethod
    def of(cls, frames: Iterable[pl.DataFrame]) -> Passages:
        """The passages of rows in batches of PASSAGE_TEXTS."""
        words, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        turns, owners, is_prompt = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, bool)]
        rows = 0
        for frame in frames:
            for column, listed in (("turns", frame["turns"]), ("core", frame.select(pl.concat_list("core"))["core"])):
                texts = pl.DataFrame({"row": np.arange(rows, rows + frame.height), "text": listed})
                texts = texts.explode("text").drop_nulls()
                batch_words, offsets = word_sequences(texts["text"].cast(pl.String))
                size = np.diff(offsets)
                owner, turn_count = np.unique(texts["row"].to_numpy()[size > 0], return_counts=True)
                words.append(batch_words)
                sizes.append(size[size > 0])
                turns.append(turn_count)
                owners.append(owner)
                is_prompt.append(np.full(len(owner), column == "turns"))
            rows += frame.height
        return cls._distinct(
            np.concatenate(words),
            np.concatenate(sizes),
            np.concatenate(turns),
            row=np.concatenate(owners),
            is_prompt=np.concatenate(is_prompt),
            rows=rows,
        )

    @classmethod
    def _distinct(cls, words: U64, sizes: I64, turns: I64, *, row: I64, is_prompt: Bools, rows: int) -> Passages:
        """Passages from the words of each turn, the turns of each passage and the row that each belongs to."""
        offsets, groups = _starts(sizes), _starts(turns)
        hashes, first, passage = np.unique(
            kernels.sequence_hashes(words, offsets, groups), return_index=True, return_inverse=True
        )
        prompt = np.full(rows, -1, np.int64)
        prompt[row[is_prompt]] = passage[is_prompt]
        kept = _gathered(groups, first)
        return cls(
            words=words[_gathered(offsets, kept)],
            offsets=_starts(sizes[kept]),
            groups=_starts(turns[first]),
            hashes=hashes,
            passage=passage.astype(np.int64),
            row=row,
            prompt=prompt,
        )

    @property
    def total_words(self) -> I64:
        """int64[p], the words of all turns of each passage."""
        return np.diff(self.offsets[self.groups])

    @property
    def longest_turn(self) -> I64:
        """int64[p], the words of the longest turn of each passage."""
        return np.maximum.reduceat(np.append(np.diff(self.offsets), 0), self.groups[:-1])


def _starts(sizes: I64) -> I64:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def _gathered(offsets: I64, chosen: I64) -> I64:
    """The positions of the elements of the chosen parts, part by part."""
    sizes = np.diff(offsets)[chosen]
    return np.repeat(offsets[chosen] - _starts(sizes)[:-1], sizes) + np.arange(sizes.sum())


class PassageSearch:
    """Finds passages inside texts: `find` takes any number of batches."""

    def __init__(self, passages: Passages, chosen: Bools) -> None:
        """Prepare the search for some passages, bool[p]; their longest turns have at least `LEAST_WORDS` words."""
        self._passages = passages
        sequence, start = np.zeros(len(passages.hashes), np.int64), np.zeros(len(passages.hashes), np.int64)
        hashes = np.zeros(len(passages.hashes), np.uint64)
        counts = np.zeros(_COUNTERS, np.uint8)
        kernels.choose_anchors(
            passages.words, passages.offsets, passages.groups, LONG_PASSAGE, counts, sequence, start, hashes
        )
        self._sequence, self._start = sequence, start
        # Passages of fewer words than a run are looked up as a whole: one table for each number of words.
        size = np.minimum(passages.longest_turn, LONG_PASSAGE)
        self._tables = []
        for width in range(LEAST_WORDS, LONG_PASSAGE + 1):
            groups = np.flatnonzero((size == width) & chosen)
            order = groups[np.argsort(hashes[groups], kind="stable")]
            table = np.zeros(1 << kernels.TABLE_BITS, np.bool_)
            table[hashes[order] >> np.uint64(64 - kernels.TABLE_BITS)] = True
            if len(order):
                self._tables.append((width, table, hashes[order], order))

    def find(self, texts: pl.Series) -> tuple[I64, I64]:
        """Passages, int64[m], and the position of the text that holds each, int64[m]; each pair once, sorted."""
        text, offsets = word_sequences(texts)
        own = self._passages
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for width, table, anchors, groups in self._tables:
            parts.append(
                kernels.find_groups(
                    text,
                    offsets,
                    width,
                    table,
                    anchors,
                    groups,
                    own.words,
                    own.offsets,
                    own.groups,
                    self._sequence,
                    self._start,
                )
            )
        passage, position = (np.concatenate(column) for column in zip(*parts, strict=True))
        pairs = np.unique(passage * max(1, len(texts)) + position)
        return np.divmod(pairs, max(1, len(texts)))

    def find_in_rows(self, frames: Iterable[pl.DataFrame]) -> tuple[I64, I64]:
        """Passages, int64[m], and the row that holds each, int64[m], in batches of PASSAGE_TEXTS; a pair may repeat."""
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        rows = 0
        for frame in frames:
            passage, row = self.find(frame["dialogue"])
            parts.append((passage, rows + row))
            with_core = np.flatnonzero(frame["core"].is_not_null().to_numpy())
            passage, position = self.find(frame["core"].drop_nulls())
            parts.append((passage, rows + with_core[position]))
            rows += frame.height
        passage, row = (np.concatenate(column) for column in zip(*parts, strict=True))
        return passage, row


@dataclass(frozen=True)
class Containment:
    """Which of n rows stand inside one another.

    Attributes:
        pairs: a row, and one that holds a passage which identifies it; also rows that have such a passage in common.
            Rows with the same passage are paired with the first of them. The score is 1.
        common: uint64, ascending: the hashes of the passages that identify nothing, since too many prompts hold them.
        templates: uint32, ascending: the rows with such a passage of at least `LONG_PASSAGE` words.
    """

    pairs: Pairs
    common: U64
    templates: NDArray[np.uint32]

    def write(self, path: Path, index: pl.DataFrame) -> None:
        """Store it as PAIRS of the rows of `index` (INDEX), with the arrays in the metadata."""
        notes = {"common": pack(self.common), "templates": pack(self.templates)}
        pairs_frame(index, self.pairs, measure="containment").write_parquet(path, metadata=notes)

    @classmethod
    def read(cls, path: Path, index: pl.DataFrame) -> Containment:
        """What `write` stored for the same rows."""
        notes = pl.read_parquet_metadata(path)
        pairs, _ = pair_positions(index, pl.read_parquet(path, glob=False))
        return cls(pairs, unpack(notes["common"], np.uint64), unpack(notes["templates"], np.uint32))


def measure_containment(texts: PassageTexts, *, most_prompts: int, common: U64 | None = None) -> Containment:
    """Search the passages of all rows in all rows. Time is linear in the text and in the pairs.

    Args:
        texts: of the n rows.
        most_prompts: a passage that at least this many other prompts hold identifies nothing.
        common: hashes of passages that are known to identify nothing.
    """
    passages = Passages.of(texts())
    passage, row = PassageSearch(passages, passages.longest_turn >= LEAST_WORDS).find_in_rows(texts())

    # Rows that hold a passage which is not their own; how many prompts these are decides what the passage says.
    rows = max(1, len(passages.prompt))
    inside = np.setdiff1d(passage * rows + row, passages.passage * rows + passages.row)
    passage, row = np.divmod(inside, rows)
    numbers = len(passages.hashes) + 1  # of prompts, the one without words included
    prompts = np.unique(passage * numbers + passages.prompt[row] + 1) // numbers
    held_by = np.bincount(prompts, minlength=len(passages.hashes))
    is_short = passages.total_words < LONG_PASSAGE
    is_common = held_by >= np.where(is_short, min(SHORT_PROMPTS, most_prompts), most_prompts)
    if common is not None:
        is_common |= np.isin(passages.hashes, common)

    # Each passage is named by the first row that has it.
    order = np.lexsort((passages.row, passages.passage))
    own_passage, own_row = passages.passage[order], passages.row[order]
    _, first = np.unique(own_passage, return_index=True)
    identifies = (passages.longest_turn >= LEAST_WORDS) & ~is_common
    one = own_row[first][np.concatenate([own_passage, passage])]
    other = np.concatenate([own_row, row])
    joins = identifies[np.concatenate([own_passage, passage])] & (one != other)
    joined = np.unique(np.minimum(one, other)[joins] * rows + np.maximum(one, other)[joins])
    a, b = np.divmod(joined, rows)
    return Containment(
        pairs=Pairs(a.astype(np.uint32), b.astype(np.uint32), np.ones(len(a))),
        common=passages.hashes[is_common],
        templates=np.unique(own_row[(is_common & ~is_short)[own_passage]]).astype(np.uint32),
    )


class RowPassages:
    """The passages of some rows that identify them, and the search for these; made when they are first needed."""

    def __init__(self, texts: PassageTexts, common: U64) -> None:
        """Remember the rows.

        Args:
            texts: of the rows.
            common: the hashes of the passages that identify nothing, as in `Containment`.
        """
        self.texts, self.common = texts, common

    @cached_property
    def _passages(self) -> Passages:
        return Passages.of(self.texts())

    @cached_property
    def _search(self) -> PassageSearch:
        own = self._passages
        return PassageSearch(own, (own.longest_turn >= LEAST_WORDS) & ~np.isin(own.hashes, self.common))

    def inside(self, others: PassageTexts) -> tuple[I64, I64]:
        """Each row, int64[m], with each of the others, int64[m], that it stands inside."""
        own = self._passages
        passage, other = self._search.find_in_rows(others())
        # From each passage to every row that has it.
        order = np.argsort(own.passage, kind="stable")
        starts = _starts(np.bincount(own.passage, minlength=len(own.hashes)))
        owners = _gathered(starts, passage)
        return own.row[order][owners], np.repeat(other, np.diff(starts)[passage])


def contained_across(left: RowPassages, right: RowPassages) -> tuple[I64, I64]:
    """Pairs of a left and a right row one of which stands inside the other: positions, int64[m] each, sorted."""
    left_row, in_right = left.inside(right.texts)
    right_row, in_left = right.inside(left.texts)
    pairs = np.unique(
        np.stack([np.concatenate([left_row, in_left]), np.concatenate([in_right, right_row])], axis=1), axis=0
    )
    return pairs[:, 0], pairs[:, 1]
