"""A run in the making: its folder, its manifest and its ledger so far."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from siftune.curation.atomic_files import write_json
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Recipe
from siftune.curation.run.folder import FORMAT, RunFolder
from siftune.curation.run.ledger import Ledger
from siftune.curation.run.resources import Meter

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
)


@dataclass
class Job:
    """What the steps of the pipeline share while a run is written."""

    run: RunFolder
    recipe: Recipe
    base: Path
    progress: Progress | None
    manifest: dict[str, Any]
    ledger: Ledger = field(default_factory=Ledger)

    @classmethod
    def begin(cls, run: RunFolder, recipe: Recipe, recipe_path: Path, progress: Progress | None) -> Job:
        """A job whose manifest says that curation has begun; what training noted there goes, since arms may change."""
        manifest = {
            "siftune": {"format": FORMAT, "version": metadata.version("siftune")},
            "status": "curating",
            "recipe_name": recipe.name or recipe_path.stem,
            "recipe": recipe_path.read_text(encoding="utf-8"),
            "recipe_folder": str(recipe_path.parent.resolve()),
            "seed": recipe.seed,
            "versions": _versions(),
            "inputs": [],
            "files": {},
            "stages": [],
        }
        job = cls(run, recipe, recipe_path.parent, progress, manifest)
        job.save(status="curating")
        return job

    def save(self, *, status: str) -> None:
        """Write the manifest as it stands, so that the app can watch."""
        self.manifest["status"] = status
        write_json(self.manifest, self.run.path / "manifest.json")

    def keep_file(self, name: str, path: Path) -> None:
        """Name a file of the run in its manifest."""
        self.manifest["files"][name] = str(path.relative_to(self.run.path))

    def timed(self, stage: str, meter: Meter, *, rows: int, kept: int, actions: dict[str, int], reused: bool) -> None:
        """Note what a stage did and cost: rows in, rows out, decisions by action, seconds, MiB at the peak."""
        self.manifest["stages"].append(
            {
                "stage": stage,
                "rows": rows,
                "kept": kept,
                "actions": dict(sorted(actions.items())),
                "seconds": meter.seconds,
                "peak_mb": meter.peak_mb,
                "reused": reused,
            }
        )
        self.save(status="curating")


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
