"""The manifest of a run: what `manifest.json` holds, as typed documents.

Curation writes it stage by stage, training adds a record for each finished training run, and every report reads it.
Keys that a later version may add are ignored, so that its runs stay readable.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from siftune.curation.atomic_files import write_json
from siftune.curation.errors import UserError

#: The number of the format that this version writes and reads.
FORMAT = 1


class Document(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class WriterRecord(Document):
    """Which siftune wrote the run."""

    format: int
    version: str = "unknown"


class FileRecord(Document):
    """One file of a source: its path relative to the source, the hash and number of its bytes, its rows."""

    file: str
    sha256: str
    bytes: int
    rows: int


class SourceRecord(Document):
    """One source as it was read; rows = examples + the sum of `quarantined`."""

    name: str
    path: str
    format: str
    columns: list[str] = []
    files: list[FileRecord] = []
    rows: int
    examples: int
    #: Rows that could not be used, by reason.
    quarantined: dict[str, int] = {}
    warnings: list[str] = []


class EarlierRecord(Document):
    """An earlier set that the rows of the run were compared with: a name of the recipe's `against`."""

    name: str
    path: str
    kind: Literal["run", "data set", "index"]
    #: Its rows: of a run those that it kept, of an index those that it proposed.
    rows: int
    warnings: list[str] = []


class StageRecord(Document):
    """What a stage did, and what it cost."""

    stage: str
    #: Rows that came in, and rows that stayed.
    rows: int
    kept: int
    #: Decisions by action.
    actions: dict[str, int] = {}
    #: Wall clock, and the most resident memory (MiB) that the process held meanwhile.
    seconds: float = 0.0
    peak_mb: int = 0
    #: Whether the measure was there from an earlier run.
    reused: bool = False

    @property
    def removed(self) -> int:
        """Rows that the stage took out."""
        return self.rows - self.kept


class LeakageRecord(Document):
    """The leakage under a random split by one measure: see `splits.random_split_leakage`."""

    measure: str
    test_rows: int
    #: Test rows with a similar training row, and their share of the test rows; exact expectations.
    expected: float
    share: float
    #: 5 % and 95 % quantiles of the share over simulated random splits.
    low: float
    high: float


class GivenLeakageRecord(Document):
    """The leakage of the splits that the data came with by one measure: see `splits.given_split_leakage`."""

    measure: str
    #: Held-out rows with a similar training row, and all held-out rows.
    rows: int
    held_out: int


class CertificateCheckRecord(Document):
    """One measure over one pair of splits: how many pairs reach the threshold, and which pair comes closest."""

    left: str
    right: str
    measure: str
    threshold: float
    comparisons: int
    pairs: int
    highest: float | None = None
    highest_pair: tuple[str, str] | None = None


class CertificateRecord(Document):
    """The outcome of the search for similar rows across the splits as they were written."""

    passed: bool
    method: str = ""
    #: The leak thresholds by measure, and the rows by split.
    thresholds: dict[str, float] = {}
    rows: dict[str, int] = {}
    comparisons: int
    pairs: int
    checks: list[CertificateCheckRecord] = []


class LengthRecord(Document):
    """The spread of instruction lengths over the bins: see `balance.length_bins`."""

    rows: int
    #: Shannon entropy in nats, and its exponential.
    entropy: float
    effective_bins: float
    #: Total variation distance to the target, 0 to 1.
    distance: float = 0.0


class LengthBinRecord(Document):
    """One bin of instruction lengths from `low` to `high`, both included."""

    bin: int = 0
    low: int
    high: int
    #: `all`, or `single` and `multi` when bins are joint with the number of turns.
    turns: str = "all"
    #: Rows before and after, rows allotted, and the share that the target gives to the bin.
    before: int
    after: int
    allotted: int = 0
    target: float = 0.0


class BalanceRecord(Document):
    """What balancing did to the instruction lengths of the training rows."""

    #: What lengths are counted in: words, or tokens of a tokenizer.
    unit: str = "words"
    #: How rows inside a bin were chosen.
    chosen_by: str = "—"
    before: LengthRecord
    after: LengthRecord
    bins: list[LengthBinRecord] = []


class DiversityRecord(Document):
    """The Vendi score of the prompts: of all rows that could be read, and of the training rows after curation."""

    rows_before: int
    rows_after: int
    before: float
    after: float


class ArmRecord(Document):
    """One arm or held-out set: its rows, how many of these curation kept, its words, the arms with the same rows."""

    rows: int
    kept: int
    prompt_words: int
    answer_words: int
    same_as: list[str] = []
    #: Of an arm by stage: the stages that did not decide, and for each stage that did, the rows that reach it in this
    #: arm though it never measured them. It cannot drop these rows, nor others for them.
    left_out: list[str] = []
    unmeasured: dict[str, int] = {}
    #: Of a selected arm and of its controls: how the rows were chosen, in words.
    selection: str = ""


class WordCounts(Document):
    """Words of prompts and answers in the input, and in what is kept."""

    input: int = 0
    kept: int = 0

    @property
    def removed(self) -> int:
        """Words of the rows that were not kept."""
        return self.input - self.kept


class RowCounts(Document):
    """How many rows met which fate, and how many of the kept rows stand in which split."""

    input: int
    kept: int
    dropped: int
    quarantined: int
    train: int
    test: int
    validation: int
    words: WordCounts = WordCounts()
    #: Every arm and held-out set by name.
    arms: dict[str, ArmRecord] = {}


class TrainingRecord(Document):
    """A finished training run in short; the whole result stands in the folder of that training run."""

    #: sha256 of the dialogues that were trained on, and of the adapter that was made.
    data: str
    adapter_hash: str
    #: The base model, and how it was loaded and why.
    model: dict[str, str]
    load: dict[str, str]
    #: The budget that was set, and what was used of it: optimiser steps, trained tokens, minutes.
    budget: dict[str, float | int]
    steps: int
    tokens: int
    minutes: float
    #: Rows of the arm that were longer than `training.max_length`.
    truncated_rows: int


class Manifest(Document):
    """Everything that `manifest.json` holds. What a run has not come to yet is None or empty."""

    siftune: WriterRecord
    status: Literal["curating", "curated"] = "curating"
    recipe_name: str = ""
    #: The text of the recipe, and the folder that its relative paths start from.
    recipe: str = ""
    recipe_folder: str = ""
    seed: int = 0
    #: Whether `encoder: auto` went without, since the extra was not installed.
    without_encoder: bool = False
    #: Whether the splits that the data came with were kept although the recipe has no section `splits`.
    splits_of_data: bool = False
    #: Rows of held-out splits of the data that the recipe's `splits: null` makes training rows.
    merged_held_out: int = 0
    #: Versions of Python and of the packages that can change a result.
    versions: dict[str, str] = {}
    #: Whether its digits are those of every processor; see `siftune.curation.portable_arithmetic`.
    portable_arithmetic: bool = False
    inputs: list[SourceRecord] = []
    against: list[EarlierRecord] = []
    #: The encoder of the embeddings that are kept with the run; empty where there are none.
    encoder: str = ""
    #: Measures and other files of the run by name, relative to the run folder.
    files: dict[str, str] = {}
    stages: list[StageRecord] = []
    #: By stage, how its measure was taken: the method of a search, its recall.
    notes: dict[str, dict[str, str]] = {}
    naive_split: list[LeakageRecord] = []
    given_split: list[GivenLeakageRecord] = []
    certificate: CertificateRecord | None = None
    balance: BalanceRecord | None = None
    diversity: DiversityRecord | None = None
    counts: RowCounts | None = None
    #: The finished training runs by `ARM-seed-K`.
    training: dict[str, TrainingRecord] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest.

        Raises:
            UserError: the file was written in another format.
            ValueError: it is damaged, or no manifest of siftune.
        """
        document = json.loads(path.read_text(encoding="utf-8"))
        writer = document.get("siftune") if isinstance(document, dict) else None
        if not isinstance(writer, dict) or "format" not in writer:
            raise ValueError(f"{path} is no manifest of siftune")
        if writer["format"] != FORMAT:
            raise UserError(
                f"{path.parent} has run format {writer['format']}; this version reads format {FORMAT}. "
                "Curate again with it."
            )
        return cls.model_validate(document)

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON types; parts that the run has not come to are left out."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}

    def write(self, path: Path) -> None:
        """Write the manifest in one step."""
        write_json(self.to_json(), path)

    def finished_counts(self) -> RowCounts:
        """The counts of a finished run. Raises `UserError` while it is being curated."""
        if self.counts is None:
            raise UserError("This run is not finished. Finish it with: siftune curate RECIPE.yaml")
        return self.counts
