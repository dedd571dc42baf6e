"""The main path of curation, readable from top to bottom: prepare, decide by stage, split, balance, write, index."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import polars as pl

from siftune.curation import portable_arithmetic, schema
from siftune.curation.against.earlier_sets import add_earlier, check_earlier, open_earlier
from siftune.curation.against.named_rows import write_named_rows
from siftune.curation.against.stored_embeddings import store_embeddings
from siftune.curation.balance.stage import balance_rows
from siftune.curation.cluster.cluster import check_cluster, cluster_of, prepare_on_cluster
from siftune.curation.cluster.ray_executor import require_ray
from siftune.curation.cluster.tasks import Executor
from siftune.curation.dedup.guard import add_guard_details
from siftune.curation.ingest.sources import locate_sources
from siftune.curation.outputs import write_outputs
from siftune.curation.prepare import Prepared, prepare
from siftune.curation.progress import Progress
from siftune.curation.review import report
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.search import TextIndex
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import read_overrides
from siftune.curation.run.recipe_file import RecipeFile
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.selection.selected_arms import check_selected_arms
from siftune.curation.splits.stage import split_rows
from siftune.curation.stage_arms import check_stage_arms
from siftune.curation.stages import Stage, compared_rows, measure_stage, stages
from siftune.curation.topics.stage import find_topics, measure_diversity


def curate(
    recipe: Path | RecipeFile, *, progress: Progress | None = None, executor: Executor | None = None
) -> RunFolder:
    """Run the curation half of a recipe and write its run folder; measures that are there are reused.

    Args:
        recipe: the path of a recipe, or of the `recipe.yaml` of a run, which is then continued; or a recipe that is
            read already.
        progress: called while long work goes on.
        executor: does the tasks of `engine: ray`; default: the cluster that the recipe names.

    Raises:
        UserError: the recipe, a source, a reference or the run folder is not as it must be.
    """
    portable_arithmetic.require()
    recipe_file = recipe if isinstance(recipe, RecipeFile) else RecipeFile.read(recipe)
    check_stage_arms(recipe_file.recipe, base=recipe_file.base)
    check_selected_arms(recipe_file.recipe, base=recipe_file.base)
    if recipe_file.recipe.engine.ray is not None:
        check_cluster(recipe_file.recipe, base=recipe_file.base)
        if executor is None:
            require_ray()
    else:
        locate_sources(recipe_file.recipe.sources, base=recipe_file.base)  # a missing source leaves no folder behind
    check_earlier(recipe_file.recipe, base=recipe_file.base)
    run = RunFolder.create(recipe_file.run_folder, recipe_name=recipe_file.name)
    with run.locked(), nullcontext(executor) if executor else cluster_of(recipe_file.recipe, run) as tasks:
        recorder = RunRecorder.begin(run, recipe_file, progress)
        prepared = ingest_sources(recorder, tasks)
        recorder.keep_given_splits(prepared.index["split"])
        alive = apply_overrides(recorder, prepared)
        for stage in stages(recorder.recipe, base=recorder.base):
            alive = run_stage(recorder, prepared, stage, alive)
        topics = find_topics(recorder, prepared)
        names = topics.names if topics else None
        splits = split_rows(recorder, prepared, alive, names)
        splits, copies = balance_rows(recorder, prepared, splits, names)
        measure_diversity(recorder, prepared, topics, splits.train())
        write_outputs(recorder, prepared, splits, copies, names)
        write_named_rows(recorder, prepared)
        store_embeddings(recorder, prepared, splits.alive)
        recorder.manifest.status = "curated"
        recorder.save()
        report.write(run)
        if tasks is None:  # of the rows of a cluster, the app makes it when it is first opened
            index_texts(run, progress)
    return run


def index_texts(run: RunFolder, progress: Progress | None) -> None:
    """Make the search index of the app, unless the one of an earlier run over the same texts is there."""
    if TextIndex.open(run) is None:
        TextIndex.build(Catalogue.load(run), progress=progress)


def ingest_sources(recorder: RunRecorder, executor: Executor | None = None) -> Prepared:
    """Read the sources and open what they are curated against; rows that cannot be read go into the ledger, and so do
    repairs and masks. An `executor` reads them on a cluster.
    """
    with recorder.stage("ingest", rows=0) as record:
        earlier = open_earlier(recorder)
        if executor is not None:
            prepared = prepare_on_cluster(recorder, executor)
        else:
            prepared = prepare(
                recorder.recipe,
                recorder.run,
                base=recorder.base,
                progress=recorder.progress,
                earlier_texts=[one.rows.texts for one in earlier],
            )
        prepared = add_earlier(recorder, prepared, earlier)
        record.rows = prepared.index.height + prepared.quarantined.height
        record.kept = prepared.index.height
        record.actions = {"quarantine": prepared.quarantined.height}
        if prepared.masks.height:
            record.actions["mask"] = prepared.masks["id"].n_unique()
        record.reused = prepared.reused
        recorder.manifest.inputs = prepared.sources
        for name, path in prepared.files.items():
            recorder.keep_file(name, path)
        recorder.ledger.append("ingest", prepared.quarantined_decisions())
        recorder.ledger.append("repair", prepared.repairs)
        if prepared.masks.height:
            recorder.ledger.append("mask", prepared.masks)
    return prepared


def apply_overrides(recorder: RunRecorder, prepared: Prepared) -> pl.DataFrame:
    """Obey the decisions made by hand: dropped rows go first, restored rows can be dropped by no stage.

    Returns:
        INDEX of the rows that are alive.
    """
    overrides = read_overrides(recorder.run.overrides_path).values()
    rows = [
        {"id": override.id, "action": override.action, "reason": "by_hand", "detail": override.note or None}
        for override in overrides
    ]
    columns = dict.fromkeys(("id", "action", "reason", "detail"), pl.String)
    decisions = schema.conform(pl.DataFrame(rows, schema=columns), schema.DECISIONS)
    decisions = decisions.join(prepared.index.select("id"), on="id", how="semi", maintain_order="left")
    restored_ids = decisions.filter(pl.col("action") == "restore")["id"]
    index = prepared.index.with_columns(pl.col("id").is_in(restored_ids.implode()).alias("pinned"))
    return recorder.ledger.enter("overrides", decisions, index)


def run_stage(recorder: RunRecorder, prepared: Prepared, stage: Stage, alive: pl.DataFrame) -> pl.DataFrame:
    """Let a stage measure and decide; the measure and the decisions become part of the run.

    Args:
        recorder: the run.
        prepared: the texts of its rows.
        stage: the stage.
        alive: INDEX of the rows that it looks at.

    Returns:
        INDEX of the rows that are still alive.
    """
    with recorder.stage(stage.name, rows=alive.height) as record:
        compared = compared_rows(stage, alive, prepared.earlier)
        path, record.reused = measure_stage(stage, recorder.run, prepared.corpus, compared, progress=recorder.progress)
        recorder.keep_file(stage.name, path)
        notes = pl.read_parquet_metadata(path)
        notes.pop("ARROW:schema", None)
        if notes:
            recorder.manifest.notes[stage.name] = notes
        decided = stage.decide(compared, pl.read_parquet(path, glob=False))
        decisions = add_guard_details(
            decided.join(alive, on="id", how="semi", maintain_order="left"),  # earlier rows stay as they are
            prepared.corpus,
            compared,
            key=recorder.recipe.keys.duplicates,
            classes=recorder.recipe.duplicates.guard,
        )
        return recorder.decide(record, decisions, alive)
