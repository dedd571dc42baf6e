"""A run in the making: its folder, its manifest and its ledger so far."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

import polars as pl

from siftune.curation import portable_arithmetic
from siftune.curation.atomic_files import write_text
from siftune.curation.progress import Progress
from siftune.curation.recipe.loading import parse_recipe, with_splits_of_data
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.ledger import Ledger
from siftune.curation.run.manifest import FORMAT, Manifest, StageRecord, WriterRecord
from siftune.curation.run.recipe_file import RecipeFile
from siftune.curation.run.resources import ResourceMonitor
from siftune.curation.split_names import HELD_OUT, TRAIN, given_splits

_VERSIONED = (
    "siftune",
    "polars",
    "numpy",
    "numba",
    "pyarrow",
    "datasets",
    "ftfy",
    "torch",
    "sentence-transformers",
    "transformers",
    "faiss-cpu",
    "pacmap",
)


@dataclass
class RunRecorder:
    """What the steps of the pipeline share while a run is written.

    Attributes:
        run: the folder that is written.
        recipe: what the run is to do.
        base: the folder that the recipe's paths are relative to.
        progress: called while long work goes on.
        manifest: what is known of the run so far.
        ledger: the decisions so far.
    """

    run: RunFolder
    recipe: Recipe
    base: Path
    progress: Progress | None
    manifest: Manifest
    ledger: Ledger = field(default_factory=Ledger)

    @classmethod
    def begin(cls, run: RunFolder, recipe_file: RecipeFile, progress: Progress | None) -> RunRecorder:
        """Start a run: its manifest says that curation has begun, and the recipe is kept beside it.

        The records of earlier training runs are left out, since the arms may change.
        """
        recipe = recipe_file.recipe
        manifest = Manifest(
            siftune=WriterRecord(format=FORMAT, version=metadata.version("siftune")),
            recipe_name=recipe_file.name,
            recipe=recipe_file.text,
            recipe_folder=str(recipe_file.base.resolve()),
            seed=recipe.seed,
            without_encoder=recipe.encoder is None and parse_recipe(recipe_file.text).encoder is not None,
            versions=_versions(),
            portable_arithmetic=portable_arithmetic.is_requested(),
        )
        recorder = cls(run, recipe, recipe_file.base, progress, manifest)
        recorder.save()
        write_text(recipe_file.text, run.recipe_path)
        return recorder

    def keep_given_splits(self, names: pl.Series) -> None:
        """Keep the splits that the data came with where the recipe does not mention `splits`; count what null merges.

        Args:
            names: String[n], the split of each row as the data name it, or null.
        """
        given = given_splits(names)
        if given is None or TRAIN not in given or self.recipe.splits is not None:
            return
        if "splits" in self.recipe.model_fields_set:
            self.manifest.merged_held_out = int(given.is_in(HELD_OUT).sum())
        else:
            self.recipe = with_splits_of_data(self.recipe)
            self.manifest.splits_of_data = True

    def save(self) -> None:
        """Write the manifest as it stands, so that the app can watch."""
        self.manifest.write(self.run.manifest_path)

    def keep_file(self, name: str, path: Path) -> None:
        """Name a file of the run in its manifest."""
        self.manifest.files[name] = str(path.relative_to(self.run.path))

    @contextmanager
    def stage(self, name: str, *, rows: int) -> Iterator[StageRecord]:
        """Time a stage, and add its record to the manifest when the block ends well.

        Args:
            name: the stage.
            rows: the rows that come in. They all stay unless the block says otherwise, usually through `decide`.
        """
        record = StageRecord(stage=name, rows=rows, kept=rows)
        with ResourceMonitor() as monitor:
            yield record
        record.seconds, record.peak_mb = monitor.seconds, monitor.peak_mb
        self.manifest.stages.append(record)
        self.save()

    def decide(self, record: StageRecord, decisions: pl.DataFrame, alive: pl.DataFrame) -> pl.DataFrame:
        """Enter the DECISIONS of a stage on the rows of `alive` (INDEX) and count them.

        Returns:
            The rows that are still alive (INDEX).
        """
        remaining = self.ledger.enter(record.stage, decisions, alive)
        record.kept = remaining.height
        record.actions = dict(sorted(decisions["action"].value_counts().iter_rows()))
        return remaining


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
