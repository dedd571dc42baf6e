"""What a data set is, at a glance: format, roles, turns, lengths, duplicates, and what looks wrong with it."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus, batches, measure_index, write_texts
from siftune.curation.dedup.exact import first_equal_row
from siftune.curation.dedup.leaders import leaders
from siftune.curation.dedup.minhash import jaccard_pairs
from siftune.curation.errors import UserError
from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.example_writer import ExampleWriter
from siftune.curation.ingest.sources import IngestedRow, SourceCounts, SourceReport, locate_sources, stream_rows
from siftune.curation.prepare import rank
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Near, Recipe, Source
from siftune.curation.text import words as text

Positions = NDArray[np.uint32]
_QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_LENGTHS = ("prompt_words", "prompt_characters", "answer_words", "answer_characters")
_FEW = 10  # rows; below, shares say nothing
_PARTS = ("source", "dataset")  # columns that usually say where the rows of a mixture are from
_MOST_PARTS = 100


@dataclass(frozen=True)
class Duplicates:
    """Rows that a run with the default recipe would drop; `near` are besides the `exact` ones, None: not measured.

    `conflicting`: rows whose prompt stands in the source with another answer as well.
    """

    exact: int
    near: int | None
    near_threshold: float
    conflicting: int


@dataclass(frozen=True)
class Inspection:
    """A source at a glance.

    Attributes:
        source: What ingest reports: format, columns, files, rows, examples, quarantined rows by reason.
        splits: Examples by split ("" where the rows have none).
        roles: Turns by role.
        turns: Examples by their number of turns.
        lengths: Quantiles (min, p10, p50, p90, p99, max) of the words and characters of prompts and answers.
        duplicates: None when there are no examples.
        samples: Three examples: the first, the middle one and the last.
        warnings: What looks wrong, in words.
    """

    source: SourceReport
    splits: dict[str, int]
    roles: dict[str, int]
    turns: dict[int, int]
    lengths: dict[str, dict[str, int]]
    duplicates: Duplicates | None
    samples: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)


def inspect(source: Source, *, base: Path, progress: Progress | None = None) -> Inspection:
    """Read a source and describe it; nothing is kept on disk.

    Raises:
        UserError: the source is not there, cannot be read, or is of no known format.
    """
    seen = _Seen()
    with tempfile.TemporaryDirectory(prefix="siftune-") as folder:
        examples = Path(folder) / "examples.parquet"
        report = _read(source, base, examples, seen, progress)
        if not report.examples:
            return Inspection(report, {}, {}, {}, {}, None, (), report.warnings)
        shape = _Shape()
        for batch in batches(examples):
            shape.add(batch)
        corpus = _corpus(source, examples, Path(folder))
        measured = _measured(corpus)
        lengths = _lengths(measured)
        notes: list[str] = []
        duplicates = _duplicates(source, corpus, measured, notes, progress)
        samples = _samples(examples, report.examples)
    warnings = [*report.warnings, *notes, *_warnings(report, seen, shape, lengths, duplicates)]
    return Inspection(
        source=report,
        splits=dict(sorted(shape.splits.items())),
        roles=dict(sorted(shape.roles.items(), key=lambda role: (-role[1], role[0]))),
        turns=dict(sorted(shape.turns.items())),
        lengths=lengths,
        duplicates=duplicates,
        samples=samples,
        warnings=tuple(warnings),
    )


@dataclass
class _Seen:
    """What only the raw rows tell: how often an instruction repeats, how often `input` is blank, parts of a mixture."""

    counts: Counter[int] = field(default_factory=Counter)
    repeated: dict[int, str] = field(default_factory=dict)
    with_input: int = 0
    blank_input: int = 0
    parts: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _PARTS})

    def add(self, item: IngestedRow) -> None:
        """Look at one row."""
        if item.row_format is None or isinstance(item.result, Fault):
            return
        for name, values in self.parts.items():
            value = item.value.get(name)
            if isinstance(value, str) and len(values) <= _MOST_PARTS:
                values.add(value)
        columns = item.row_format.columns
        said = item.value.get(columns.get("instruction", ""))
        if not isinstance(said, str):
            said = next((turn.content for turn in item.result.turns if turn.role == "user"), "")
        key = hash(said)
        self.counts[key] += 1
        if self.counts[key] == 2:
            self.repeated[key] = said
        if "input" in columns and item.row_format.format.name == "alpaca":
            self.with_input += 1
            self.blank_input += not str(item.value.get(columns["input"]) or "").strip()

    def commonest(self) -> tuple[str, int]:
        """The instruction that most rows share, and how many do."""
        ((key, count),) = self.counts.most_common(1) or [(0, 0)]
        return self.repeated.get(key, ""), count


@dataclass
class _Shape:
    """Roles, turns, splits and repairs, summed over batches of EXAMPLES."""

    splits: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    repaired: int = 0

    def add(self, batch: pl.DataFrame) -> None:
        """Count one batch."""
        roles = batch.select(pl.col("messages").explode().struct.field("role"))
        turns = batch.select(pl.col("messages").list.len())
        self.roles.update(dict(roles["role"].value_counts().iter_rows()))
        self.turns.update(dict(turns["messages"].value_counts().iter_rows()))
        self.splits.update(dict(batch["split"].fill_null("").value_counts().iter_rows()))
        self.repaired += int(batch["meta"].str.contains('"_repairs":', literal=True).sum())


def _read(source: Source, base: Path, out: Path, seen: _Seen, progress: Progress | None) -> SourceReport:
    (location,) = locate_sources([source], base=base)
    counts = SourceCounts(name=location.name, path=source.path)
    with ExampleWriter(out, out.with_name("quarantine.jsonl")) as writer:
        for item in stream_rows(source, location, counts, progress=progress):
            seen.add(item)
            if not isinstance(item.result, Fault):
                writer.add(f"{location.name}:{item.position}", location.name, item.result)
    return counts.report()


def _corpus(source: Source, examples: Path, folder: Path) -> Corpus:
    texts = folder / "texts.parquet"
    write_texts(examples, texts, Recipe(sources=[source]).keys)
    return Corpus(examples=examples, texts=texts, key="")


def _measured(corpus: Corpus) -> pl.DataFrame:
    """Lengths of every example, and hashes of its normalised prompt and answer."""
    words = {f"{side}_words": text.word_count(pl.col(side)) for side in ("prompt", "answer")}
    characters = {f"{side}_characters": pl.col(side).str.len_chars() for side in ("prompt", "answer")}
    hashes = {side: text.normalise(pl.col(side)).hash(0) for side in ("prompt", "answer")}
    return pl.concat(
        batch.select(**words, **characters, **hashes) for batch in batches(corpus.texts, ["prompt", "answer"])
    )


def _lengths(measured: pl.DataFrame) -> dict[str, dict[str, int]]:
    return {
        name: {
            label: int(np.quantile(measured[name].to_numpy(), share, method="lower"))
            for label, share in _QUANTILES.items()
        }
        for name in _LENGTHS
    }


def _duplicates(
    source: Source, corpus: Corpus, measured: pl.DataFrame, notes: list[str], progress: Progress | None
) -> Duplicates:
    """What the first duplicate stages of a run with the default recipe would drop."""
    recipe = Recipe(sources=[source])
    settings, key = recipe.duplicates.near or Near(), recipe.keys.duplicates
    every = np.arange(measured.height, dtype=np.uint32)
    left = every[first_equal_row(corpus.key_texts(key, every)) == every]
    try:
        dropped = _near(recipe, settings, corpus, left, progress)
    except UserError as fault:
        notes.append(f"near duplicates were not counted: {fault}")
        dropped = None
    answers = pl.col("answer").n_unique().over("prompt") > 1
    conflicting = int(measured.select(answers.sum()).item())
    return Duplicates(measured.height - left.size, dropped, settings.threshold, conflicting)


def _near(recipe: Recipe, settings: Near, corpus: Corpus, left: Positions, progress: Progress | None) -> int:
    """How many of the rows `left` greedy leaders in keep order would drop."""
    key = recipe.keys.duplicates
    guard = np.concatenate(
        [
            texts.to_frame("text").select(text.guard_hash(pl.col("text"), recipe.duplicates.guard))["text"].to_numpy()
            for texts in corpus.key_texts(key, left)
        ]
    )
    pairs = jaccard_pairs(
        corpus.key_texts(key, left),
        shingle=settings.shingle,
        permutations=settings.permutations,
        floor=settings.floor,
        guard=guard,
        progress=progress,
    )
    order = rank(pl.concat(measure_index(corpus.examples, corpus.texts)), recipe)["rank"].to_numpy()
    guarded = guard[pairs.a] != guard[pairs.b]
    decided = leaders(left.size, order[left], pairs, threshold=settings.threshold, guarded=guarded)
    return int(left.size - decided.kept.sum())


def _samples(examples: Path, count: int) -> tuple[dict[str, Any], ...]:
    wanted = sorted({0, count // 2, count - 1})
    found, start = [], 0
    for batch in batches(examples):
        found += [batch.row(place - start, named=True) for place in wanted if start <= place < start + batch.height]
        start += batch.height
    return tuple(found)


def _warnings(
    report: SourceReport, seen: _Seen, shape: _Shape, lengths: dict[str, dict[str, int]], duplicates: Duplicates
) -> list[str]:
    rows = report.examples
    lost = report.rows - rows
    said = []
    if lost:
        most = max(report.quarantined, key=lambda reason: report.quarantined[reason])
        said.append(f"{_share(lost, report.rows)} of the rows cannot be used, mostly because of {most}")
    if shape.repaired:
        said.append(f"{shape.repaired:,} dialogues were repaired (see `_repairs` in meta)")
    if rows < _FEW:
        return said
    said += [
        f"the column {name!r} names {len(values)} sets: the recipe's `source_column: {name}` tells them apart"
        for name, values in seen.parts.items()
        if 2 <= len(values) <= _MOST_PARTS
    ]
    instruction, count = seen.commonest()
    if count * 5 >= rows:
        said.append(
            f"one instruction covers {_share(count, rows)} of this source: {_short(instruction)!r}. "
            "Rows are compared by the whole prompt; what a large part of the prompts share is left out of it"
        )
    if seen.with_input and seen.blank_input * 10 >= seen.with_input * 9:
        said.append(f"`input` is blank in {_share(seen.blank_input, seen.with_input)} of the rows")
    if duplicates.conflicting * 100 >= rows:
        said.append(
            f"{_share(duplicates.conflicting, rows)} of the rows have a prompt that repeats with different answers"
        )
    if (duplicates.exact + (duplicates.near or 0)) * 2 > rows:
        said.append("more than half of the rows are duplicates of others")
    said += [
        f"all {side}s have the same length ({lengths[f'{side}_characters']['max']} characters)"
        for side in ("prompt", "answer")
        if lengths[f"{side}_characters"]["min"] == lengths[f"{side}_characters"]["max"]
    ]
    if lengths["answer_words"]["p50"] <= 2:
        said.append(
            f"half of the answers have at most {lengths['answer_words']['p50']} words: labels rather than answers"
        )
    return said


def _share(part: int, whole: int) -> str:
    """A percentage that never rounds to 100 or to 0 what is neither."""
    percent = 100 * part / whole
    return f"{percent:.2f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


def _short(said: str) -> str:
    line = " ".join(said.split())
    return line if len(line) <= 80 else line[:79] + "…"
