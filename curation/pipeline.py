"""The main path of curation, readable from top to bottom: prepare, decide stage by stage, split, balance, write."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from siftune.curation import schema
from siftune.curation.balance.stage import balance_rows
from siftune.curation.dedup.guard import add_guard_details
from siftune.curation.outputs import write_outputs
from siftune.curation.prepare import Prepared, prepare
from siftune.curation.progress import Progress
from siftune.curation.recipe.loading import load_recipe
from siftune.curation.recipe.sections import Recipe
from siftune.curation.review import report
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import overrides_path, read_overrides
from siftune.curation.run.recorder import Job
from siftune.curation.run.resources import Meter
from siftune.curation.splits.stage import split_rows
from siftune.curation.stages import Stage, measure_stage, stages


def curate(recipe_path: Path, *, progress: Progress | None = None) -> RunFolder:
    """Run the curation half of a recipe and write its run folder; measures that are there are reused.

    Raises:
        UserError: the recipe, a source, a reference or the run folder is not as it must be.
    """
    recipe = load_recipe(recipe_path)
    name = recipe.name or recipe_path.stem
    run = RunFolder.create(run_path(recipe, recipe_path), recipe_name=name)
    with run.locked():
        job = Job.begin(run, recipe, recipe_path, progress)
        prepared = _prepare(job)
        alive = _override(job, prepared)
        for stage in stages(recipe, base=recipe_path.parent):
            alive = take(job, prepared, stage, alive)
        splits = split_rows(job, prepared, alive)
        splits, copies = balance_rows(job, prepared, splits)
        write_outputs(job, prepared, splits, copies)
        job.save(status="curated")
        report.write(run)
    return run


def run_path(recipe: Recipe, recipe_path: Path) -> Path:
    """Where the run of a recipe lies: `run:` relative to the recipe, or runs/NAME beside it."""
    folder = recipe_path.parent / (recipe.run or f"runs/{recipe.name or recipe_path.stem}")
    return Path(os.path.normpath(folder))  # `data/../runs/demo` reads badly in every message


def take(job: Job, prepared: Prepared, stage: Stage, alive: pl.DataFrame) -> pl.DataFrame:
    """Let a stage measure and decide; returns the rows (INDEX) that are still alive."""
    with Meter() as meter:
        path, reused = measure_stage(stage, job.run, prepared.corpus, alive, progress=job.progress)
        decisions = add_guard_details(
            stage.decide(alive, pl.read_parquet(path)),
            prepared.corpus,
            alive,
            key=job.recipe.keys.duplicates,
            classes=job.recipe.duplicates.guard,
        )
        left = job.ledger.enter(stage.name, decisions, alive)
    job.keep_file(stage.name, path)
    counts = dict(decisions["action"].value_counts().iter_rows())
    job.timed(stage.name, meter, rows=alive.height, kept=left.height, actions=counts, reused=reused)
    notes = {name: said for name, said in pl.read_parquet_metadata(path).items() if name != "ARROW:schema"}
    if notes:
        job.manifest.setdefault("notes", {})[stage.name] = notes
    return left


def _prepare(job: Job) -> Prepared:
    with Meter() as meter:
        prepared = prepare(job.recipe, job.run, base=job.base, progress=job.progress)
    job.manifest["inputs"] = prepared.report["sources"]
    for name, path in prepared.files.items():
        job.keep_file(name, path)
    job.ledger.append("ingest", prepared.quarantined_decisions())
    job.ledger.append("repair", prepared.repairs)
    rows = prepared.index.height + prepared.quarantined.height
    job.timed(
        "ingest",
        meter,
        rows=rows,
        kept=prepared.index.height,
        actions={"quarantine": prepared.quarantined.height},
        reused=prepared.reused,
    )
    return prepared


def _override(job: Job, prepared: Prepared) -> pl.DataFrame:
    """Obey the decisions made by hand: dropped rows go first, restored rows can be dropped by no stage."""
    wishes = read_overrides(overrides_path(job.run))
    rows = [
        {"id": each.id, "action": each.action, "reason": "by_hand", "detail": each.note or None}
        for each in wishes.values()
    ]
    told = schema.conform(
        pl.DataFrame(rows, schema=dict.fromkeys(("id", "action", "reason", "detail"), pl.String)), schema.DECISIONS
    )
    known = told.join(prepared.index.select("id"), on="id", how="semi", maintain_order="left")
    restored = known.filter(pl.col("action") == "restore")["id"]
    index = prepared.index.with_columns(pl.col("id").is_in(restored.implode()).alias("pinned"))
    return job.ledger.enter("overrides", known, index)
