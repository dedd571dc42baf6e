"""The examples of a run and the texts that are compared, on disk and streamed: nothing here holds all of the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.measurement import Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Keys
from siftune.curation.schema import Key
from siftune.curation.text.prompt_templates import PromptTemplates, TemplateCounts
from siftune.curation.text.words import key_text, word_count

#: Rows that are held in memory at a time.
BATCH = 50_000
#: The key of `TemplateCounts` in the metadata of TEXTS.
TEMPLATES = "templates"
#: INDEX without what depends on the recipe and on decisions by hand.
STORED_INDEX = pl.Schema([(name, dtype) for name, dtype in schema.INDEX.items() if name not in ("rank", "pinned")])


@dataclass(frozen=True)
class EarlierSet:
    """Rows of an earlier run, or of another set, that new rows are compared with; see `docs/incremental.md`.

    Attributes:
        prefix: what its rows' ids begin with here, before the id in the files: `RUN:`.
        examples: parquet with EXAMPLES, aligned with
        texts: parquet with TEXTS.
        rows: uint32 [m], ascending: the positions of its rows in these files.
    """

    prefix: str
    examples: Path
    texts: Path
    rows: NDArray[np.uint32]

    def frames(self, path: Path, columns: Sequence[str], rows: NDArray[np.uint32]) -> Iterator[pl.DataFrame]:
        """The rows of one of the two files at the ascending positions `rows` of the set, in batches of `BATCH`."""
        for start in range(0, len(rows), BATCH):
            frame = _read_rows(path, columns, self.rows[rows[start : start + BATCH]])
            yield frame.with_columns(self.spelled_id()) if "id" in columns else frame

    def spelled_id(self) -> pl.Expr:
        """The ids in its files as they are spelled among new rows."""
        return (pl.lit(self.prefix) + pl.col("id")).alias("id")


class ClusterMeasures(Protocol):
    """Takes measures where the texts of a run lie on a cluster: see `siftune.curation.cluster`."""

    def measure(self, stage: Any, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        """What a stage of `siftune.curation.stages` measures.

        Args:
            stage: the stage.
            corpus: the rows.
            alive: INDEX of the rows to measure.
            progress: called while tasks are done.
        """

    def equal_texts(self, rows: NDArray[np.uint32], text: pl.Expr) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in `rows`: the first row with a text, and each later one with the same; in the order of these.

        `rows` are ascending positions in the corpus; `text` is an expression over TEXTS, and an empty one equals none.
        """

    def similar_texts(
        self, rows: NDArray[np.uint32], key: Key, *, shingle: int, permutations: int, floor: float
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]:
        """The pairs that `siftune.curation.dedup.minhash.jaccard_pairs` gives for the `key` texts of rows.

        Args:
            rows: ascending positions in the corpus.
            key: the compared text.
            shingle: words in a shingle.
            permutations: MinHash permutations.
            floor: the least similarity.

        Returns:
            Positions in `rows`, and the similarity of both sides, float64 [m, 2].
        """


@dataclass(frozen=True)
class Corpus:
    """EXAMPLES and TEXTS of a run, aligned row by row; `key` is their cache key.

    Rows of earlier sets, in their order, come after the run's own rows: positions count through all of them. Where the
    rows were prepared on a `cluster`, measures are taken there.
    """

    examples: Path
    texts: Path
    key: str
    earlier: tuple[EarlierSet, ...] = ()
    cluster: ClusterMeasures | None = None

    @cached_property
    def own_rows(self) -> int:
        """How many rows are the run's own."""
        return int(pq.read_metadata(self.texts).num_rows)

    def frames(self, columns: Sequence[str], rows: np.ndarray) -> Iterator[pl.DataFrame]:
        """TEXTS at the ascending positions `rows` (uint32), in batches."""
        yield from _selected(batches(self.texts, columns), rows)
        for earlier, positions in self._earlier_rows(rows):
            yield from earlier.frames(earlier.texts, columns, positions)

    def example_frames(self, columns: Sequence[str], rows: np.ndarray) -> Iterator[pl.DataFrame]:
        """EXAMPLES at the ascending positions `rows` (uint32), in the same batches as `frames`."""
        yield from _selected(batches(self.examples, columns), rows)
        for earlier, positions in self._earlier_rows(rows):
            yield from earlier.frames(earlier.examples, columns, positions)

    def key_texts(self, key: Key, rows: np.ndarray) -> Iterator[pl.Series]:
        """The compared text of the rows at the ascending positions `rows`, in batches."""
        for frame in self.frames(["core", "answer"], rows):
            yield frame.select(key_text(key).alias("text"))["text"]

    def _earlier_rows(self, rows: np.ndarray) -> Iterator[tuple[EarlierSet, NDArray[np.uint32]]]:
        """Each earlier set that has some of `rows`, with their positions in it."""
        start = self.own_rows if self.earlier else 0
        for earlier in self.earlier:
            low, high = np.searchsorted(rows, (start, start + len(earlier.rows)))
            if low < high:
                yield earlier, (rows[low:high] - start).astype(np.uint32)
            start += len(earlier.rows)


def _selected(frames: Iterator[pl.DataFrame], rows: np.ndarray) -> Iterator[pl.DataFrame]:
    """The rows at these ascending positions, counted through all frames."""
    start = 0
    for batch in frames:
        low, high = np.searchsorted(rows, (start, start + batch.height))
        yield batch if high - low == batch.height else batch[rows[low:high] - start]
        start += batch.height


def _read_rows(path: Path, columns: Sequence[str], rows: NDArray[np.uint32]) -> pl.DataFrame:
    """The rows of a parquet file at these ascending positions; only row groups that hold some are read."""
    start, parts = 0, []
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            height = file.metadata.row_group(group).num_rows
            low, high = np.searchsorted(rows, (start, start + height))
            if low < high:
                table = pl.from_arrow(file.read_row_group(group, columns=list(columns)))
                assert isinstance(table, pl.DataFrame)
                parts.append(table if high - low == height else table[rows[low:high] - start])
            start += height
    return pl.concat(parts)


def batches(path: Path, columns: Sequence[str] | None = None, *, size: int | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a parquet file, in order, at most `size` (default: `BATCH`) at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=size or BATCH, columns=None if columns is None else list(columns)):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def write_batches(
    frames: Iterator[pl.DataFrame], path: Path, columns: pl.Schema, *, notes: Mapping[str, str] | None = None
) -> int:
    """Write frames to one parquet file as they come; an empty iterator makes a file of no rows.

    Args:
        frames: what is written.
        path: the file.
        columns: its columns.
        notes: its metadata.

    Returns:
        The number of rows.
    """
    rows = 0
    arrow = schema.empty(columns).to_arrow().schema
    with pq.ParquetWriter(path, arrow, compression="zstd") as writer:
        for frame in frames:
            if frame.height:
                writer.write_table(schema.conform(frame, columns).to_arrow().cast(arrow), row_group_size=BATCH)
                rows += frame.height
        writer.add_key_value_metadata(notes or {})
    return rows


def write_texts(
    examples: Path,
    out: Path,
    keys: Keys,
    counted: Mapping[str, TemplateCounts] | None = None,
    earlier: Sequence[TemplateCounts] = (),
) -> None:
    """Derive TEXTS from EXAMPLES: two passes over the prompts (templates are counted, then removed).

    Args:
        examples: parquet with EXAMPLES.
        out: the parquet file to write; `template_counts` reads what was counted from it.
        keys: what counts as a template.
        counted: for sources that are curated sets, by the prefix of their ids, what was counted in the whole data. It
            is used where it was counted by the same `keys`.
        earlier: what was counted in earlier runs: in prompts without a template of their own, text that is one in the
            earlier source of the same name is left out too.
    """
    fresh = PromptTemplates(rows=keys.template_rows, share=keys.template_share)
    known: list[tuple[pl.Expr, PromptTemplates]] = []
    for name, counts in (counted or {}).items():
        if (counts.rows, counts.share) == (keys.template_rows, keys.template_share):
            is_own = pl.col("id").str.replace(r":\d+$", "") == name
            is_own &= pl.col("source").is_in(list(counts.minimums))
            known.append((is_own, PromptTemplates.counted(counts)))
    is_known = pl.any_horizontal(pl.lit(value=False), *[is_own for is_own, _ in known])
    for frame in _all_turns(examples):
        fresh.count(frame.filter(~is_known))

    def stripped() -> Iterator[pl.DataFrame]:
        for frame in _all_turns(examples):
            numbered = frame.with_row_index("order")
            parts = [fresh.strip(numbered.filter(~is_known))]
            parts += [templates.strip(numbered.filter(is_own)) for is_own, templates in known]
            texts = pl.concat(parts).sort("order").drop("order")
            for counts in earlier:
                again = PromptTemplates.counted(counts).strip(texts.drop("core"))["core"]
                is_whole = (pl.col("core") == pl.col("prompt")) & pl.col("source").is_in(list(counts.minimums))
                texts = texts.with_columns(core=pl.when(is_whole).then(again).otherwise("core"))
            yield texts

    # Counters of several tables cannot be handed on as one.
    every = [counts for templates in (fresh, *[table for _, table in known]) if (counts := templates.counts()).minimums]
    notes = {TEMPLATES: every[0].to_json()} if len(every) == 1 else {}
    write_batches(stripped(), out, schema.TEXTS, notes=notes)


def template_counts(texts: Path) -> TemplateCounts | None:
    """What was counted to write TEXTS; None where rows of several tables of counters stand together."""
    text = pl.read_parquet_metadata(texts).get(TEMPLATES)
    return TemplateCounts.from_json(text) if text else None


def _all_turns(examples: Path) -> Iterator[pl.DataFrame]:
    return map(split_turns, batches(examples, ["id", "source", "messages"]))


def split_turns(batch: pl.DataFrame) -> pl.DataFrame:
    """`id`, `source`, and the texts of the `system`, the `prompt` and the `answer` turns of a batch of EXAMPLES."""
    return batch.select(
        "id",
        "source",
        system_text().alias("system"),
        turns_text(answers=False).alias("prompt"),
        turns_text(answers=True).alias("answer"),
    )


def turns_text(*, answers: bool) -> pl.Expr:
    """All assistant turns of `messages` as one text, or all turns that are neither assistant nor system."""
    role = pl.element().struct.field("role")
    return _joined(role == "assistant" if answers else ~role.is_in(["assistant", "system"]))


def system_text() -> pl.Expr:
    """All system turns of `messages` as one text."""
    return _joined(pl.element().struct.field("role") == "system")


def _joined(included: pl.Expr) -> pl.Expr:
    contents = pl.col("messages").list.eval(pl.element().filter(included).struct.field("content"))
    return contents.list.join("\n", ignore_nulls=True).fill_null("")


def measure_index(examples: Path, texts: Path) -> Iterator[pl.DataFrame]:
    """INDEX without rank and pinned, in batches, aligned with EXAMPLES."""
    start = 0
    pairs = zip(
        batches(examples, ["id", "source", "split", "messages"]),
        batches(texts, ["prompt", "answer"]),
        strict=True,
    )
    for example_batch, text_batch in pairs:
        yield example_batch.select(
            pl.int_range(start, start + example_batch.height, dtype=pl.UInt32).alias("row"),
            "id",
            "source",
            "split",
            pl.col("messages").list.len().alias("turns"),
            text_batch.select(word_count(pl.col("prompt")).alias("prompt_words"))["prompt_words"],
            text_batch.select(word_count(pl.col("answer")).alias("answer_words"))["answer_words"],
        )
        start += example_batch.height
