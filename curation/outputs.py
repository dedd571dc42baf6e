"""What a run leaves behind: the fate of every row, the ledger, the curated set and its card, arms, held-out sets."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import polars as pl

from siftune.curation import arms, schema
from siftune.curation.atomic_files import replacing, write_parquet, write_text
from siftune.curation.checksums import checksum_path
from siftune.curation.corpus import batches, template_counts, write_batches
from siftune.curation.errors import require_conserved
from siftune.curation.ingest.curated_sets import CuratedNotes
from siftune.curation.prepare import Prepared
from siftune.curation.publishing import dataset_card
from siftune.curation.publishing.trainer_entries import LLAMA_FACTORY_FILE, llama_factory_entries
from siftune.curation.recipe.arm_sections import ArmName
from siftune.curation.run.ledger import fates
from siftune.curation.run.manifest import ArmRecord, RowCounts, WordCounts
from siftune.curation.run.paths import RunPaths
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.selection.selected_arms import select_arms
from siftune.curation.split_names import HELD_OUT, TEST, TRAIN, VALIDATION
from siftune.curation.splits.stage import SplitResult
from siftune.curation.stage_arms import decide_stage_arms

_ARMS: list[ArmName] = ["raw", "curated", "random", "balanced-random", "longest"]
_PUBLISHED = pl.Schema([(name, kind) for name, kind in schema.EXAMPLES.items() if name != "split"])


def write_outputs(
    recorder: RunRecorder,
    prepared: Prepared,
    splits: SplitResult,
    copies: pl.DataFrame,
    topics: pl.Series | None = None,
) -> None:
    """Write every file of a run but the report.

    Args:
        recorder: the run.
        prepared: the corpus.
        splits: the split of every input row.
        copies: `id` and `copies` of the curated rows that stand in the set more than once.
        topics: the topic of each row of the run's INDEX, where it has topics.
    """
    run = recorder.run
    kept = splits.alive.height
    with recorder.stage("write", rows=kept):
        ledger = recorder.ledger.frame()
        rows = settle(prepared, splits, ledger, topics)
        check_conserved(rows, prepared)
        named = recorder.recipe.training.arm_names if recorder.recipe.training else []
        second = ["random-2"] if "random-2" in named else []
        names = [*_ARMS, *second] if recorder.recipe.splits else ["curated"]
        by_stage = decide_stage_arms(recorder, prepared, splits, topics)
        selected = select_arms(recorder, prepared, splits)
        repeated = rows.join(copies, on="id", how="left", maintain_order="left")
        repeated = repeated.with_columns(pl.col("copies").fill_null(1))
        seed = recorder.recipe.seed
        records = arms.build(
            prepared.corpus.examples,
            repeated,
            seed=seed,
            out=run,
            names=names,
            by_stage=by_stage,
            selected=selected,
        )
        for name in set(run.arms()) - set(records):  # of an earlier recipe
            run.arm(name).unlink()
            run.selection(name).unlink(missing_ok=True)
            checksum_path(run.arm(name)).unlink(missing_ok=True)
        for name, choice in selected.items():
            write_parquet(choice.explained, run.selection(name))
        balance = recorder.recipe.balance
        notes = CuratedNotes(
            templates=template_counts(prepared.corpus.texts),
            common=splits.common,
            balance=balance.model_dump() if balance else None,
        )
        publish(run, notes)
        write_parquet(ledger, run.ledger_path, checked=True)
        arm_names = [name for name in records if name not in HELD_OUT]
        write_parquet(_with_arms(rows, run, arm_names), run.rows_path, checked=True)
        with replacing(run.quarantine_path) as temporary:
            shutil.copyfile(prepared.quarantine, temporary)
        recorder.manifest.counts = count_rows(rows, arms=records)
        card = dataset_card.text(recorder.manifest, recorder.recipe)
        write_text(card, run.curated_folder / "README.md")
        entries = llama_factory_entries(recorder.manifest.recipe_name, dataset_card.published_splits(recorder.manifest))
        write_text(entries, run.curated_folder / LLAMA_FACTORY_FILE)


def settle(
    prepared: Prepared, splits: SplitResult, ledger: pl.DataFrame, topics: pl.Series | None = None
) -> pl.DataFrame:
    """ROWS (without arms): the final fate of every input row, quarantined ones after the others of their source.

    A row that resembles a held-out row belongs to no split: no arm may train on it.

    Args:
        prepared: the corpus.
        splits: the split of every input row.
        ledger: LEDGER.
        topics: the topic of each row of the run's INDEX, where it has topics.
    """
    split = pl.when("evicted").then(None).otherwise(pl.col("split")).alias("split")
    readable = splits.rows.select(
        "id", "source", split, pl.col("group").cast(pl.UInt32), "turns", "prompt_words", "answer_words"
    )
    if topics is not None:
        by_id = pl.DataFrame({"id": prepared.index["id"], "topic": topics})
        readable = readable.join(by_id, on="id", how="left", maintain_order="left")
    quarantined = prepared.quarantined.select("id", "source")
    rows = pl.concat([readable, quarantined], how="diagonal")
    rows = rows.join(fates(ledger), on="id", how="left", maintain_order="left")
    return schema.conform(rows.with_columns(pl.col("fate").fill_null("kept")), schema.ROWS)


def check_conserved(rows: pl.DataFrame, prepared: Prepared) -> None:
    """Every input row is there once: kept, dropped or quarantined. Raises `ConservationError`."""
    quarantined = int((rows["fate"] == "quarantined").sum())
    require_conserved(rows["id"].n_unique() == rows.height, "A row has two fates")
    require_conserved(rows.height == prepared.index.height + prepared.quarantined.height, "A row was lost")
    require_conserved(quarantined == prepared.quarantined.height, "A quarantined row was lost")


def count_rows(rows: pl.DataFrame, *, arms: dict[str, ArmRecord]) -> RowCounts:
    """The counts of ROWS for the manifest, with those of the arms."""
    by_fate = dict(rows["fate"].value_counts().iter_rows())
    kept = rows.filter(pl.col("fate") == "kept")

    def words(frame: pl.DataFrame) -> int:
        return int(frame.select(pl.sum("prompt_words", "answer_words").cast(pl.Int64)).sum_horizontal().sum())

    return RowCounts(
        input=rows.height,
        kept=by_fate.get("kept", 0),
        dropped=by_fate.get("dropped", 0),
        quarantined=by_fate.get("quarantined", 0),
        train=int((kept["split"] == TRAIN).sum()),
        test=int((kept["split"] == TEST).sum()),
        validation=int((kept["split"] == VALIDATION).sum()),
        words=WordCounts(input=words(rows), kept=words(kept)),
        arms=arms,
    )


def publish(run: RunPaths, notes: CuratedNotes) -> None:
    """The curated set as others read it: one parquet file a split, with id, source, messages and meta; `notes` are for
    a run that curates it again.
    """
    files = {TRAIN: run.arm("curated")} | {split: run.heldout(split) for split in HELD_OUT}
    for split, file in files.items():
        target = run.curated(split)
        with replacing(target) as temporary:
            written = write_batches(batches(file, list(_PUBLISHED)), temporary, _PUBLISHED, notes=notes.metadata())
        if not written and split != TRAIN:
            target.unlink()


def _with_arms(rows: pl.DataFrame, run: RunPaths, names: Sequence[str]) -> pl.DataFrame:
    """ROWS with the arms that hold each row, in the order of `names`."""
    frames = [
        pl.read_parquet(run.arm(name), columns=["id"], glob=False).unique().with_columns(arm=pl.lit(name))
        for name in names
    ]
    arms_of_row = pl.concat(frames).group_by("id", maintain_order=True).agg(pl.col("arm").alias("arms"))
    joined = rows.drop("arms").join(arms_of_row, on="id", how="left", maintain_order="left")
    return schema.conform(joined.with_columns(pl.col("arms").fill_null([])), schema.ROWS)
