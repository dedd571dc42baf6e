"""What a data set is: format, roles, turns, lengths, duplicates, and what looks wrong with it.

Duplicates are counted by the stages of a run with the default recipe, in a temporary folder, so a run finds the same.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.corpus import batches
from siftune.curation.dedup.near import NearDuplicates
from siftune.curation.errors import UserError
from siftune.curation.formats.faults import REASONS, Fault, Reason
from siftune.curation.ingest.example_writer import row_text
from siftune.curation.ingest.sources import IngestedRow
from siftune.curation.prepare import Prepared, prepare
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Checks, Near, Source
from siftune.curation.review.wording import percent
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.ledger import Ledger
from siftune.curation.run.manifest import SourceRecord
from siftune.curation.stages import measure_stage, stages
from siftune.curation.text.words import word_count

_QUANTILES = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_MIN_ROWS = 10  # of fewer rows, shares say nothing
_PART_COLUMNS = ("source", "dataset")  # columns that usually say where the rows of a mixture are from
_MAX_PARTS = 100
_KEPT = 2_000  # characters of a quarantined row
#: Thresholds of near duplicates whose effect is counted; the lowest one is the default.
NEAR_THRESHOLDS = (0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class DuplicateCounts:
    """What the duplicate stages of a run with the default recipe would find.

    Attributes:
        exact: rows dropped as exact duplicates.
        prefixes: rows dropped besides, because their dialogue is the beginning of another row's.
        prefix: the first of these rows, and the longer one.
        near: rows dropped as near duplicates besides; None: not measured.
        answers: rows dropped besides, because too many rows have their answer; None: not measured.
        conflicts: remaining rows reported because another row has the same prompt and a different answer.
        near_threshold: the least Jaccard similarity of near duplicates.
        near_at: what `near` would be at some thresholds; empty: not measured.
    """

    exact: int
    near: int | None
    answers: int | None
    conflicts: int
    near_threshold: float
    prefixes: int = 0
    prefix: tuple[str, str] | None = None
    near_at: dict[float, int] = field(default_factory=dict)


#: What to do about rows that are quarantined for a reason.
ADVICE: dict[Reason, str] = {
    "bad_json": "correct the line, or write the file again with a JSON library",
    "bad_encoding": "convert the file: iconv -f LATIN1 -t UTF-8",
    "truncated": "fetch or write the file again",
    "ragged_row": "put fields that hold the separator, a quote or a new line in quotes, and write inner quotes twice",
    "not_an_object": "give every row named columns",
    "missing_prompt": "fill in the prompt, or name its column in the recipe with `columns:`",
    "missing_answer": "fill in the answer, or name its column in the recipe with `columns:`",
    "empty_answer": "fill in the answer, or leave the row out",
    "rejected_answer": "nothing, if the label means what it says; else call its column another name",
    "wrong_type": "write a text or a list of turns there, or name another column in the recipe with `columns:`",
    "bad_roles": "let the dialogue begin with a user turn and give every turn a role that is known",
    "nul_byte": "remove the NUL characters",
    "lone_surrogate": "write the file again as valid UTF-8",
    "oversized_cell": "look for a quote that does not close, or leave the row out",
    "oversized_row": "look for a line end that is missing, write each row into a line of its own, or leave it out",
}


@dataclass(frozen=True)
class QuarantineReason:
    """Why rows cannot be used, with the first of them.

    Attributes:
        reason: A key of `faults.REASONS`.
        rows: How many rows.
        meaning: What the reason means.
        file: The file of the first row.
        row: Its position in the file, from 0.
        detail: What exactly was found there.
        text: The beginning of the row.
        advice: What to do.
    """

    reason: str
    rows: int
    meaning: str
    file: str
    row: int
    detail: str
    text: str
    advice: str


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
        quarantined: Why rows cannot be used, the most frequent reason first.
        text_columns: Role to column, as most of the examples are read; empty where rows have no columns.
        parts: Columns that seem to say which data set a row is from, and how many they name (2 to 100).
    """

    source: SourceRecord
    splits: dict[str, int]
    roles: dict[str, int]
    turns: dict[int, int]
    lengths: dict[str, dict[str, int]]
    duplicates: DuplicateCounts | None
    samples: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    quarantined: tuple[QuarantineReason, ...] = ()
    text_columns: dict[str, str] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self) | {"source": self.source.model_dump()}


def inspect(source: Source, *, base: Path, progress: Progress | None = None) -> Inspection:
    """Read a source and describe it; nothing is kept on disk.

    Args:
        source: as in a recipe.
        base: the folder that its path is relative to.
        progress: called while long work goes on.

    Raises:
        UserError: the source is not there, cannot be read, or is of no known format.
    """
    # Checks that only report would take most of the time and drop no row.
    only_reported = [name for name, severity in Checks().model_dump().items() if severity == "report"]
    checks = Checks.model_validate(dict.fromkeys(only_reported, "off"))
    recipe = Recipe(sources=[source], encoder=None, checks=checks)
    raw = _RawRows()
    with tempfile.TemporaryDirectory(prefix="siftune-") as folder:
        run = RunFolder(Path(folder))
        prepared = prepare(recipe, run, base=base, progress=progress, on_row=raw.add)
        (record,) = prepared.sources
        if not record.examples:
            quarantined = raw.quarantine_reasons(record)
            return Inspection(record, {}, {}, {}, {}, None, (), tuple(record.warnings), quarantined)
        shape = _Shape()
        for batch in batches(prepared.corpus.examples):
            shape.add(batch)
        lengths = _lengths(prepared.corpus.texts)
        duplicates, unmeasured = _duplicates(recipe, run, prepared, base=base, progress=progress)
        samples = _samples(prepared.corpus.examples, record.examples)
    warnings = [*record.warnings, *unmeasured, *_warnings(record, raw, shape, lengths, duplicates)]
    return Inspection(
        source=record,
        splits=dict(sorted(shape.splits.items())),
        roles=dict(sorted(shape.roles.items(), key=lambda role: (-role[1], role[0]))),
        turns=dict(sorted(shape.turns.items())),
        lengths=lengths,
        duplicates=duplicates,
        samples=samples,
        warnings=tuple(warnings),
        quarantined=raw.quarantine_reasons(record),
        text_columns=raw.text_columns(record),
        parts=raw.named_parts(),
    )


@dataclass
class _RawRows:
    """What only the raw rows tell: how often an instruction repeats, how often `input` is blank, parts of a mixture."""

    counts: Counter[int] = field(default_factory=Counter)
    repeated: dict[int, str] = field(default_factory=dict)
    with_input: int = 0
    blank_input: int = 0
    parts: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _PART_COLUMNS})
    first_faults: dict[Reason, IngestedRow] = field(default_factory=dict)
    column_roles: Counter[tuple[tuple[str, str], ...]] = field(default_factory=Counter)

    def add(self, row: IngestedRow) -> None:
        """Look at one row."""
        if isinstance(row.result, Fault):
            if row.result.reason not in self.first_faults:
                text = (row.result.raw or row_text(row.value))[:_KEPT]  # the row itself may be as large as a file
                self.first_faults[row.result.reason] = row._replace(value=None, result=replace(row.result, raw=text))
            return
        if row.row_format is None:
            return
        for name, values in self.parts.items():
            value = row.value.get(name)
            if isinstance(value, str) and len(values) <= _MAX_PARTS:
                values.add(value)
        columns = row.row_format.columns
        self.column_roles[tuple(columns.items())] += 1
        instruction = row.value.get(columns.get("instruction", ""))
        if not isinstance(instruction, str):
            instruction = next((turn.content for turn in row.result.turns if turn.role == "user"), "")
        key = hash(instruction)
        self.counts[key] += 1
        if self.counts[key] == 2:
            self.repeated[key] = instruction
        if "input" in columns and row.row_format.format.name == "alpaca":
            self.with_input += 1
            self.blank_input += not str(row.value.get(columns["input"]) or "").strip()

    def quarantine_reasons(self, record: SourceRecord) -> tuple[QuarantineReason, ...]:
        """The reasons for which rows of the source are quarantined, each with its first row."""
        reasons = []
        for reason, row in self.first_faults.items():
            fault = row.result
            if isinstance(fault, Fault):
                reasons.append(
                    QuarantineReason(
                        reason=reason,
                        rows=record.quarantined[reason],
                        meaning=REASONS[reason],
                        file=row.file,
                        row=row.file_row,
                        detail=fault.detail,
                        text=_short(fault.raw),
                        advice=ADVICE[reason],
                    )
                )
        return tuple(sorted(reasons, key=lambda entry: (-entry.rows, entry.reason)))

    def text_columns(self, record: SourceRecord) -> dict[str, str]:
        """Role to column, as most of the rows of the source are read."""
        ((roles, _),) = self.column_roles.most_common(1) or [((), 0)]
        return {role: column for role, column in roles if column in record.columns}

    def named_parts(self) -> dict[str, int]:
        """Columns that seem to say which data set a row is from, and how many they name."""
        return {name: len(values) for name, values in self.parts.items() if 2 <= len(values) <= _MAX_PARTS}

    def most_common(self) -> tuple[str, int]:
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


def _lengths(texts: Path) -> dict[str, dict[str, int]]:
    sides = ("prompt", "answer")
    words = {f"{side}_words": word_count(pl.col(side)) for side in sides}
    characters = {f"{side}_characters": pl.col(side).str.len_chars() for side in sides}
    counted = pl.concat(batch.select(**words, **characters) for batch in batches(texts, sides))
    return {
        f"{side}_{unit}": {
            label: int(np.quantile(counted[f"{side}_{unit}"].to_numpy(), share, method="lower"))
            for label, share in _QUANTILES.items()
        }
        for side in sides
        for unit in ("words", "characters")
    }


def _duplicates(
    recipe: Recipe, run: RunFolder, prepared: Prepared, *, base: Path, progress: Progress | None
) -> tuple[DuplicateCounts, list[str]]:
    """What the stages find, as in a run; and in words which of them could not measure the rows."""
    ledger, alive = Ledger(), prepared.index
    counts: dict[str, int] = {}
    prefix = None
    near_at: dict[float, int] = {}
    unmeasured = []
    for stage in stages(recipe, base=base):
        try:
            path, _ = measure_stage(stage, run, prepared.corpus, alive, progress=progress)
        except UserError as fault:
            unmeasured.append(f"{stage.title.lower()} were not counted: {fault}")
            continue
        measured = pl.read_parquet(path, glob=False)
        decisions = stage.decide(alive, measured)
        if isinstance(stage, NearDuplicates):
            near_at = {
                threshold: replace(stage, settings=stage.settings.model_copy(update={"threshold": threshold}))
                .decide(alive, measured)
                .filter(pl.col("action") == "drop")
                .height
                for threshold in NEAR_THRESHOLDS
            }
        counts[stage.name] = decisions.filter(pl.col("action").is_in(["drop", "report"]))["id"].n_unique()
        if stage.name == "prefixes" and decisions.height:
            prefix = decisions.select("id", "witness").row(0)
        alive = ledger.enter(stage.name, decisions, alive)
    near = recipe.duplicates.near or Near()
    duplicate_counts = DuplicateCounts(
        exact=counts["exact"],
        near=counts.get("near"),
        answers=counts.get("answers"),
        conflicts=counts["conflicts"],
        near_threshold=near.threshold,
        prefixes=counts["prefixes"],
        prefix=prefix,
        near_at=near_at,
    )
    return duplicate_counts, unmeasured


def _samples(examples: Path, count: int) -> tuple[dict[str, Any], ...]:
    positions = sorted({0, count // 2, count - 1})
    samples, start = [], 0
    for batch in batches(examples):
        inside = [position - start for position in positions if start <= position < start + batch.height]
        samples += [batch.row(position, named=True) for position in inside]
        start += batch.height
    return tuple(samples)


def _warnings(
    record: SourceRecord, raw: _RawRows, shape: _Shape, lengths: dict[str, dict[str, int]], duplicates: DuplicateCounts
) -> list[str]:
    rows = record.examples
    lost = record.rows - rows
    warnings = []
    if lost:
        reason = max(record.quarantined, key=lambda reason: record.quarantined[reason])
        warnings.append(f"{percent(lost, record.rows)} of the rows cannot be used, mostly because of {reason}")
    if shape.repaired:
        warnings.append(f"{shape.repaired:,} dialogues were repaired (see `_repairs` in meta)")
    if rows < _MIN_ROWS:
        return warnings
    warnings += [
        f"the column {name!r} names {count} sets: the recipe's `source_column: {name}` tells them apart"
        for name, count in raw.named_parts().items()
    ]
    instruction, count = raw.most_common()
    if count * 5 >= rows:
        warnings.append(
            f"one instruction covers {percent(count, rows)} of this source: {_short(instruction)!r}. "
            "Rows are compared by the whole prompt; what a large part of the prompts share is left out of it"
        )
    if raw.with_input and raw.blank_input * 10 >= raw.with_input * 9:
        warnings.append(f"`input` is blank in {percent(raw.blank_input, raw.with_input)} of the rows")
    if duplicates.conflicts * 100 >= rows:
        warnings.append(f"{percent(duplicates.conflicts, rows)} of the rows repeat a prompt with a different answer")
    if duplicates.prefix:
        warnings.append(
            f"{duplicates.prefixes:,} rows are the beginning of another row's dialogue ({duplicates.prefix[0]} opens "
            f"{duplicates.prefix[1]}); `duplicates: {{prefixes: true}}`, the default, keeps the longest"
        )
    if (duplicates.exact + (duplicates.near or 0)) * 2 > rows:
        warnings.append("more than half of the rows are duplicates of others")
    for side in ("prompt", "answer"):
        characters = lengths[f"{side}_characters"]
        if characters["min"] == characters["max"]:
            warnings.append(f"all {side}s have the same length ({characters['max']} characters)")
    if (median := lengths["answer_words"]["p50"]) <= 2:
        warnings.append(f"half of the answers have at most {median} words: labels rather than answers")
    return warnings


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
