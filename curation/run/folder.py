"""The run folder: where a run keeps its manifest, its measures, its decisions and its results.

Everything is written to a temporary name and then renamed, so a folder never holds half a file; a run that was
killed and started again finds whole measures and makes the missing ones.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import PARTIAL, remove_leftovers, replacing, write_text
from siftune.curation.checksums import checksum, checksum_path, is_whole, whole
from siftune.curation.contamination_outcomes import settle
from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import parse_recipe, with_model_paths, with_splits_of_data
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.manifest import Manifest
from siftune.curation.run.paths import RunPaths

_ANOTHER_FOLDER = "Give another folder: with `run:` in the recipe, or with --run for data files."

#: The run folders that this thread holds for writing.
_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())


@dataclass(frozen=True)
class RunFolder(RunPaths):
    """A run folder that is known to be one of ours."""

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run.

        Raises:
            UserError: there is no such folder, or it was not written by siftune, or by a newer format.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise UserError(f"There is no run folder at {path}. Make one with: siftune curate RECIPE.yaml")
        if not run.manifest_path.is_file():
            raise UserError(
                f"{path} is not a run folder: it holds no manifest.json. Make one with: siftune curate RECIPE.yaml"
            )
        try:
            _ = run.manifest
        except ValueError:
            raise UserError(
                f"{run.manifest_path} is not a manifest of siftune, or it is damaged. Move it away and curate again."
            ) from None
        return run

    @classmethod
    def create(cls, path: Path, *, recipe_name: str) -> RunFolder:
        """Make a run folder, or continue the one that the same recipe made.

        Raises:
            UserError: the folder holds something else, or the run of another recipe.
        """
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; a run needs a folder of its own. {_ANOTHER_FOLDER}")
        run = cls(path)
        names = [entry.name for entry in path.iterdir()] if path.exists() else []
        # A run that was killed while it wrote its first file left only these two.
        entries = [name for name in names if name != ".lock" and not fnmatch(name, f".manifest.json.*{PARTIAL}")]
        is_ours = run.manifest_path.is_file() or (
            ".lock" in names and run.measure_path("", "").parent.is_dir()  # somebody moved a damaged manifest away
        )
        if entries and not is_ours:
            raise UserError(
                f"{path} is not empty and was not made by siftune (it holds {', '.join(sorted(entries)[:3])}); "
                f"nothing was written. {_ANOTHER_FOLDER}"
            )
        if run.manifest_path.is_file() and (made_by := cls.open(path).manifest.recipe_name) != recipe_name:
            raise UserError(
                f"{path} holds the run of the recipe {made_by!r}, not of {recipe_name!r}. Set another `run:`."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as fault:  # no folder can be made in such places as /proc
            raise UserError(f"The run folder {path} cannot be made: {fault.strerror}. {_ANOTHER_FOLDER}") from None
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing; a block inside of another one for the same folder holds it already.

        Raises:
            UserError: another process, or another thread, holds it.
        """
        folder = self.path.resolve()
        if folder in _HELD.get():
            yield
            return
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"Another process is writing to {self.path}. Wait for it, or stop it.") from None
            remove_leftovers(self.path)
            outer = _HELD.set(_HELD.get() | {folder})
            try:
                yield
            finally:
                _HELD.reset(outer)

    def measure(
        self, name: str, key: str, make: Callable[[Path], object], *, beside: Sequence[Path] = ()
    ) -> tuple[Path, bool]:
        """The file of a measure, made unless it is there and whole.

        Args:
            name: what is measured.
            key: the cache key of everything that it depends on.
            make: writes it to a temporary path.
            beside: other files that `make` writes, which belong to it.

        Returns:
            The file, and whether it was reused.
        """
        path = self.measure_path(name, key)
        if all(map(is_whole, (path, *beside))):
            return path, True
        with replacing(path, checked=True) as temporary:
            make(temporary)
            for file in beside:
                write_text(checksum(file), checksum_path(file))
        return path, False

    @property
    def manifest(self) -> Manifest:
        """The manifest as it stands now; a run that is being written changes it."""
        return Manifest.read(self.manifest_path)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the run was made with, with the paths of its models in full, without an encoder where it
        found none, and with the splits that its data came with.
        """
        manifest = self.manifest
        recipe = parse_recipe(manifest.recipe, name=f"{self.manifest_path}: recipe")
        if manifest.without_encoder:
            recipe = recipe.model_copy(update={"encoder": None})
        if manifest.splits_of_data:
            recipe = with_splits_of_data(recipe)
        return with_model_paths(recipe, Path(manifest.recipe_folder)) if manifest.recipe_folder else recipe

    @property
    def examples(self) -> Path:
        """Parquet with EXAMPLES, as ingested and repaired."""
        return self.file("examples")

    @property
    def texts(self) -> Path:
        """Parquet with TEXTS, aligned with `examples`."""
        return self.file("texts")

    def file(self, name: str) -> Path:
        """A file that the manifest names. Raises `UserError` when this run has not come so far, or it is damaged."""
        relative = self.manifest.files.get(name)
        if relative is None or not (self.path / relative).is_file():
            raise UserError(f"{self.path} holds no {name} yet. Finish it with: siftune curate {self.recipe_path}")
        return whole(self.path / relative)

    def ledger(self) -> pl.DataFrame:
        """LEDGER: every decision of every stage."""
        return self._frame(self.ledger_path, schema.LEDGER)

    def rows(self) -> pl.DataFrame:
        """ROWS: the fate of every input row."""
        return self._frame(self.rows_path, schema.ROWS)

    def matches(self, row_id: str | None = None) -> pl.DataFrame:
        """MATCHES but `item` as the run's recipe settles them, of all rows or of one; empty without a reference."""
        measured = self.measured_matches().drop("item")
        if "contamination" not in self.manifest.files or (settings := self.recipe.contamination) is None:
            return measured.clear().collect()
        settled = settle(measured.collect(), threshold=settings.threshold, most=settings.max_false_discovery)
        of_row = pl.lit(True) if row_id is None else pl.col("id") == row_id
        return settled.filter(of_row).drop("threshold")

    def measured_matches(self) -> pl.LazyFrame:
        """MATCHES as they were measured, decoys and all; empty without a reference.

        Earlier versions stored matches of the same item only, without its text.
        """
        if "contamination" not in self.manifest.files:
            return schema.empty(schema.MATCHES).lazy()
        stored = pl.scan_parquet(
            self.file("contamination"), schema=schema.MATCHES, missing_columns="insert", glob=False
        )
        return stored.with_columns(pl.col("outcome").fill_null("same"))

    def earlier(self) -> pl.DataFrame:
        """EARLIER: the rows of earlier sets that the run names; empty without `against`."""
        if not self.earlier_path.is_file():
            return schema.empty(schema.EARLIER)
        return pl.read_parquet(self.earlier_path, glob=False)

    def earlier_index(self) -> pl.DataFrame:
        """INDEX of these rows: after the run's own in position, and pinned; ranked among themselves."""
        rows = pl.int_range(pl.len(), dtype=pl.UInt32)
        position = rows + int(pl.scan_parquet(self.texts, glob=False).select(pl.len()).collect().item())
        indexed = self.earlier().with_columns(row=position, rank=rows, pinned=pl.lit(value=True))
        return schema.conform(indexed, schema.INDEX)

    def pairs(self, measure: str) -> pl.DataFrame:
        """PAIRS of a measure (exact, near, answers, semantic); empty when the run did not take it."""
        if measure not in self.manifest.files:
            return schema.empty(schema.PAIRS)
        return pl.read_parquet(self.file(measure), glob=False)

    def _frame(self, path: Path, columns: pl.Schema) -> pl.DataFrame:
        if not path.is_file():
            raise UserError(f"{self.path} holds no {path.name} yet. Finish it with: siftune curate {self.recipe_path}")
        stored = pl.scan_parquet(whole(path), glob=False).collect_schema()  # earlier versions wrote fewer columns
        frame = pl.read_parquet(path, columns=[name for name in columns if name in stored], glob=False)
        return schema.conform(frame, columns)
