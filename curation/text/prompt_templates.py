"""Prompt templates: text that a large part of a source's prompts share, left out of the compared text.

A template is a run of at least 8 tokens found in many distinct prompts of a source. Copies of one prompt count once,
so a big family of true duplicates is not mistaken for a template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from siftune.curation.packed_arrays import pack, unpack
from siftune.curation.text import prompt_template_kernels as kernels

#: Tokens in a run. Shorter runs are ordinary language, such as "what is the difference between the two".
RUN_TOKENS: Final = 8
#: Counters, 4 bytes each. Runs share them by hash: 100 million distinct runs put 3 others on each counter on average,
#: far below any threshold in use (at least 50 by default), so overcounting does not make templates.
COUNTERS: Final = 1 << 25


@dataclass(frozen=True)
class TemplateCounts:
    """What `PromptTemplates` counted, as far as it decides: handed on with a curated set, whose rows are fewer.

    Attributes:
        rows: with
        share: what counted as a template.
        minimums: in how many distinct prompts a run had to be, by source.
        slots: uint32[k], the counters that reach the least of these minimums, and
        counts: uint32[k], how far they had counted.
    """

    rows: int
    share: float
    minimums: Mapping[str, int]
    slots: NDArray[np.uint32]
    counts: NDArray[np.uint32]

    def to_json(self) -> str:
        """All of it as JSON; `from_json` reads it."""
        arrays = {"slots": pack(self.slots), "counts": pack(self.counts)}
        return json.dumps({"rows": self.rows, "share": self.share, "minimums": dict(self.minimums), **arrays})

    @classmethod
    def from_json(cls, text: str) -> TemplateCounts:
        """What `to_json` wrote. Raises `ValueError`, `KeyError`, `TypeError` or `zlib.error` for any other text."""
        document = json.loads(text)
        slots, counts = (unpack(document[name], np.uint32) for name in ("slots", "counts"))
        if slots.shape != counts.shape or (slots >= COUNTERS).any():
            raise ValueError("the counters do not fit together")
        minimums = {str(source): int(minimum) for source, minimum in document["minimums"].items()}
        return cls(int(document["rows"]), float(document["share"]), minimums, slots, counts)


class PromptTemplates:
    """Two passes over (source, prompt): `count` every batch, then `strip` every batch.

    A run of tokens is a template of a source if at least `rows` distinct prompts of the source have it, and as many as
    are `share` of the source's rows.

    Memory: the counters (128 MiB) and 8 bytes per row. The order of batches does not matter.
    """

    def __init__(self, *, rows: int, share: float) -> None:
        self._rows, self._share = rows, share
        self._counters = np.zeros(COUNTERS, np.uint32)
        self._sizes: dict[str, int] = {}
        self._minimums: dict[str, int] = {}
        self._seen = np.empty(0, np.uint64)

    @classmethod
    def counted(cls, counts: TemplateCounts) -> PromptTemplates:
        """The templates of the data that `counts` was taken from: rows of its sources need not be counted again."""
        templates = cls(rows=counts.rows, share=counts.share)
        templates._counters[counts.slots] = counts.counts
        templates._minimums = dict(counts.minimums)
        return templates

    def counts(self) -> TemplateCounts:
        """What decides about the sources that were counted."""
        minimums = {source: self._minimum(source) for source in sorted({*self._sizes, *self._minimums})}
        frequent = np.flatnonzero(self._counters >= min(minimums.values(), default=0))
        slots = frequent.astype(np.uint32) if minimums else np.empty(0, np.uint32)
        return TemplateCounts(self._rows, self._share, minimums, slots, self._counters[slots])

    def count(self, frame: pl.DataFrame) -> None:
        """Count the runs of a batch with the columns `source` and `prompt`."""
        if frame.is_empty():
            return
        for source, size in frame["source"].value_counts().iter_rows():
            self._sizes[source] = self._sizes.get(source, 0) + size
        keyed = frame.select("source", "prompt", key=prompt_keys(frame)).unique(
            "key", keep="first", maintain_order=True
        )
        fresh = keyed.filter(~_contains(self._seen, keyed["key"].to_numpy()))
        self._seen = np.sort(np.concatenate([self._seen, fresh["key"].to_numpy()]))
        self.count_distinct(fresh)

    def count_distinct(self, frame: pl.DataFrame) -> None:
        """Count the runs of a batch (`source`, `prompt`) whose prompts are distinct, and in no other batch."""
        if frame.is_empty():
            return
        tokens = _Tokens(frame["prompt"])
        runs = tokens.hash_runs(_salts(frame["source"]))
        distinct = kernels.unique_rows(tokens.hashes, tokens.slots, runs)
        kernels.count_hashes(tokens.hashes, tokens.slots, distinct, self._counters)

    def counted_slots(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The counters that have counted anything, uint32 [k], ascending, and how far, uint32 [k]."""
        slots = np.flatnonzero(self._counters).astype(np.uint32)
        return slots, self._counters[slots]

    def strip(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with a column `core`: the prompt without template text.

        What is left keeps its own white space. A prompt that would have no word left stays whole.
        """
        if frame.is_empty():
            return frame.with_columns(core="prompt")
        tokens = _Tokens(frame["prompt"])
        runs = tokens.hash_runs(_salts(frame["source"]))
        covered = np.zeros(tokens.hashes.size, np.bool_)
        minimums = frame["source"].replace_strict(
            {source: self._minimum(source) for source in frame["source"].unique()}, return_dtype=pl.Int64
        )
        kernels.cover_templates(
            tokens.hashes, tokens.slots, runs, RUN_TOKENS, self._counters, minimums.to_numpy(), covered
        )
        core = tokens.uncovered(covered).alias("core")
        stripped = pl.Series(np.add.reduceat(np.append(covered, False), tokens.slots[:-1]) > 0)
        remaining = pl.when(stripped & pl.col("core").str.contains(r"\w")).then("core").otherwise("prompt")
        return frame.with_columns(core).with_columns(core=remaining)

    def _minimum(self, source: str) -> int:
        """In how many distinct prompts of `source` a run must be found to be a template."""
        counted = max(self._rows, int(np.ceil(self._share * self._sizes.get(source, 0))))
        return self._minimums.get(source, counted)


def prompt_keys(frame: pl.DataFrame) -> pl.Series:
    """A key of the source and the prompt of each row, uint64 [n]."""
    return frame.select(key=pl.struct("source", "prompt").hash(0))["key"]


class _Tokens:
    """The tokens of a batch of texts, in flat arrays with room to spare; see `prompt_template_kernels.token_spans`."""

    def __init__(self, texts: pl.Series) -> None:
        array = texts.fill_null("").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, data = array.buffers()
        self.text = np.frombuffer(data or b"\0", np.uint8)
        self.offsets = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        # A token and the white space after it take two bytes or more; a CJK character takes three.
        self.slots = np.concatenate([[0], np.cumsum((np.diff(self.offsets) + 1) // 2)])
        room = max(int(self.slots[-1]), 1)
        self.starts, self.ends = np.empty(room, np.int64), np.empty(room, np.int64)
        self.hashes = np.empty(room, np.uint64)
        self.counts = kernels.token_spans(self.text, self.offsets, self.slots, self.starts, self.ends, self.hashes)

    def hash_runs(self, salts: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Replace `hashes` by those of runs, salted by row (uint64[n]); int64[n], the number of runs of each row."""
        return kernels.run_hashes(self.hashes, self.slots, self.counts, salts, RUN_TOKENS)

    def uncovered(self, covered: NDArray[np.bool_]) -> pl.Series:
        """The texts without the tokens that are `covered` (bool, one element for each token)."""
        base = self.offsets - self.offsets[0]
        out = np.empty(max(int(base[-1]), 1), np.uint8)
        text = self.text[int(self.offsets[0]) :]
        starts, ends = self.starts - self.offsets[0], self.ends - self.offsets[0]
        lengths = kernels.copy_uncovered(text, base, self.slots, self.counts, starts, ends, covered, out)
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        # Row i's bytes lie at base[i]; close the gaps.
        take = np.repeat(base[:-1] - bounds[:-1], lengths) + np.arange(int(bounds[-1]))
        packed = pa.LargeStringArray.from_buffers(lengths.size, pa.py_buffer(bounds), pa.py_buffer(out[take]))
        return pl.Series(pl.from_arrow(packed))


def _salts(sources: pl.Series) -> NDArray[np.uint64]:
    return sources.hash(1).to_numpy()


def _contains(ordered: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    index = np.minimum(np.searchsorted(ordered, values), max(ordered.size - 1, 0))
    return ordered[index] == values if ordered.size else np.zeros(values.size, np.bool_)
