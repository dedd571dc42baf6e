"""Where each file of a run lies: the one place that spells the layout of a run folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: The folder of a trained adapter, in the folder of its training run.
ADAPTER = "adapter"
_ARM_AND_SEED = re.compile(r"(?P<arm>.+)-seed-(?P<seed>\d+)")


def training_name(arm: str, seed: int) -> str:
    """The name of a training run in the manifest, in the evaluation and in the trackers: `ARM-seed-K`."""
    return f"{arm}-seed-{seed}"


def parse_training_name(name: str) -> tuple[str, int] | None:
    """Arm and seed of a name that `training_name` made; None for another name."""
    match = _ARM_AND_SEED.fullmatch(name)
    return (match["arm"], int(match["seed"])) if match else None


@dataclass(frozen=True)
class RunPaths:
    """The files of the run in `path`, whether they are there or not."""

    path: Path

    # What curation writes.

    @property
    def manifest_path(self) -> Path:
        """What was done, with what and to what effect: see `siftune.curation.run.manifest`."""
        return self.path / "manifest.json"

    @property
    def recipe_path(self) -> Path:
        """The recipe of the run, which can be curated again."""
        return self.path / "recipe.yaml"

    @property
    def ledger_path(self) -> Path:
        """LEDGER: every decision of every stage."""
        return self.path / "ledger.parquet"

    @property
    def rows_path(self) -> Path:
        """ROWS: the fate of every input row."""
        return self.path / "rows.parquet"

    @property
    def quarantine_path(self) -> Path:
        """The rows that could not be read, as JSON Lines."""
        return self.path / "quarantine.jsonl"

    @property
    def earlier_path(self) -> Path:
        """EARLIER: the rows of earlier sets that stand in decisions or stored pairs; only with `against`."""
        return self.path / "earlier.parquet"

    @property
    def embeddings_folder(self) -> Path:
        """Embeddings of the kept rows, for runs that are curated against this one."""
        return self.path / "embeddings"

    @property
    def overrides_path(self) -> Path:
        """The decisions made by hand, as JSON Lines."""
        return self.path / "overrides.jsonl"

    @property
    def labels_path(self) -> Path:
        """The labels of pairs by hand, as JSON Lines."""
        return self.path / "labels.jsonl"

    @property
    def annotations_path(self) -> Path:
        """The notes and tags that the user gave to rows, as JSON Lines."""
        return self.path / "annotations.jsonl"

    @property
    def last_action_path(self) -> Path:
        """What the last action on many rows changed, so that it can be undone."""
        return self.path / "last_action.json"

    @property
    def report_html(self) -> Path:
        """The report as one HTML file."""
        return self.path / "report.html"

    @property
    def report_markdown(self) -> Path:
        """The report as Markdown."""
        return self.path / "report.md"

    @property
    def curated_folder(self) -> Path:
        """The curated set as others read it, with its dataset card."""
        return self.path / "curated"

    def curated(self, split: str) -> Path:
        """One split of the curated set: train, test or validation."""
        return self.curated_folder / f"{split}.parquet"

    def arm(self, name: str) -> Path:
        """ARM: the rows of a training arm."""
        return self.path / "arms" / f"{name}.parquet"

    def arms(self) -> list[str]:
        """The names of the arms that curation made, sorted."""
        return sorted(path.stem for path in (self.path / "arms").glob("*.parquet"))

    def selection(self, arm: str) -> Path:
        """SELECTION: why each row of the pool is in a selected arm or not."""
        return self.path / "selection" / f"{arm}.parquet"

    def selections(self) -> list[str]:
        """The names of the selected arms that curation explained, sorted."""
        return sorted(path.stem for path in (self.path / "selection").glob("*.parquet"))

    def heldout(self, split: str) -> Path:
        """HELDOUT: the rows of a held-out set, test or validation."""
        return self.path / "heldout" / f"{split}.parquet"

    def measure_path(self, name: str, key: str, *, suffix: str = "parquet") -> Path:
        """A stored measure: its name and its cache key."""
        return self.path / "measures" / f"{name}-{key[:16]}.{suffix}"

    # What training and comparison write.

    def training(self, arm: str, seed: int) -> Path:
        """The folder of one training run."""
        return self.path / "training" / arm / f"seed-{seed}"

    def adapter(self, arm: str, seed: int) -> Path:
        """The folder of a trained adapter."""
        return self.training(arm, seed) / ADAPTER

    def trainings(self) -> list[tuple[str, int, Path]]:
        """Arm, seed and folder of every training run that has begun, by arm, then seed."""
        folders = []
        for folder in (self.path / "training").glob("*/seed-*"):
            seed = folder.name.removeprefix("seed-")
            if folder.is_dir() and seed.isdigit():
                folders.append((folder.parent.name, int(seed), folder))
        return sorted(folders)

    @property
    def evaluation_folder(self) -> Path:
        """The losses of every arm on the held-out rows."""
        return self.path / "evaluation"

    def losses(self, name: str) -> Path:
        """The losses of `base` or of the training run `ARM-seed-K` on the held-out rows."""
        return self.evaluation_folder / f"{name}.parquet"

    @property
    def tasks_folder(self) -> Path:
        """The items of every task, and how every arm answered them."""
        return self.path / "tasks"

    @property
    def verdict_json(self) -> Path:
        """The verdict as data."""
        return self.path / "verdict.json"

    @property
    def verdict_markdown(self) -> Path:
        """The verdict as Markdown."""
        return self.path / "verdict.md"

    @property
    def prompts_folder(self) -> Path:
        """The answers to the prompt suite."""
        return self.path / "prompts"

    @property
    def answers_path(self) -> Path:
        """The answers of every arm to the prompt suite, as a table."""
        return self.prompts_folder / "answers.parquet"

    @property
    def heldout_answers_path(self) -> Path:
        """The answers of every arm to the held-out prompts that a judge compares, as a table."""
        return self.prompts_folder / "heldout_answers.parquet"

    @property
    def judgments_path(self) -> Path:
        """What a judge said of each pair of answers in each order, as a table."""
        return self.prompts_folder / "judgments.parquet"

    @property
    def prompts_markdown(self) -> Path:
        """The answers to the prompt suite side by side, as Markdown."""
        return self.prompts_folder / "prompts.md"

    @property
    def prompts_csv(self) -> Path:
        """The answers to the prompt suite side by side, as CSV."""
        return self.prompts_folder / "prompts.csv"

    @property
    def ifd_path(self) -> Path:
        """IFD: the instruction-following difficulty of the rows of an arm."""
        return self.path / "ifd" / "ifd.parquet"

    @property
    def sweep_folder(self) -> Path:
        """The results of a sweep over training settings."""
        return self.path / "sweep"

    @property
    def exports_folder(self) -> Path:
        """Exported models."""
        return self.path / "exports"

    @property
    def votes_path(self) -> Path:
        """Votes and chat turns, in SQLite."""
        return self.path / "votes.sqlite"
