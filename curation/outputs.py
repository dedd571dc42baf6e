"""What a run leaves behind: the fate of every row, the ledger, the curated set and its card, arms, held-out sets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation import arms, dataset_card, schema
from siftune.curation.atomic_files import replacing, write_parquet, write_text
from siftune.curation.corpus import batches, write_batches
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.sections import ArmName
from siftune.curation.run.ledger import fates
from siftune.curation.run.recorder import Job
from siftune.curation.run.resources import Meter
from siftune.curation.split_names import HELD_OUT
from siftune.curation.splits.stage import SplitResult

_ARMS: list[ArmName] = ["raw", "curated", "random", "longest"]
_PUBLISHED = pl.Schema([(name, kind) for name, kind in schema.EXAMPLES.items() if name != "split"])


def write_outputs(job: Job, prepared: Prepared, splits: SplitResult, copies: pl.DataFrame) -> None:
    """Write every file of a run but the report; `copies` (id, copies) says which curated rows stand more than once."""
    path = job.run.path
    with Meter() as meter:
        ledger = job.ledger.frame()
        rows = settle(prepared, splits, ledger)
        assert_conserved(rows, prepared)
        names: list[ArmName] = _ARMS if job.recipe.splits else ["curated"]
        told = rows.join(copies, on="id", how="left", maintain_order="left").with_columns(pl.col("copies").fill_null(1))
        counts = arms.build(prepared.corpus.examples, told, seed=job.recipe.seed, out=path, names=names)
        publish(path)
        write_parquet(ledger, path / "ledger.parquet")
        write_parquet(_with_arms(rows, path), path / "rows.parquet")
        with replacing(path / "quarantine.jsonl") as temporary:
            shutil.copyfile(prepared.quarantine, temporary)
        job.manifest["counts"] = totals(rows) | {"arms": {name: each.to_dict() for name, each in counts.items()}}
        write_text(dataset_card.text(job.manifest, job.recipe), path / "curated" / "README.md")
    kept = int((rows["fate"] == "kept").sum())
    job.timed("write", meter, rows=kept, kept=kept, actions={}, reused=False)


def settle(prepared: Prepared, splits: SplitResult, ledger: pl.DataFrame) -> pl.DataFrame:
    """ROWS (without arms): the final fate of every input row, quarantined ones after the others of their source.

    A row that resembles a held-out row belongs to no split: no arm may train on it.
    """
    split = pl.when("evicted").then(None).otherwise(pl.col("split")).alias("split")
    known = splits.rows.select(
        "id", "source", split, pl.col("group").cast(pl.UInt32), "turns", "prompt_words", "answer_words"
    )
    lost = prepared.quarantined.select("id", "source")
    every = pl.concat([known, lost], how="diagonal").join(fates(ledger), on="id", how="left", maintain_order="left")
    return schema.conform(every.with_columns(pl.col("fate").fill_null("kept")), schema.ROWS)


def assert_conserved(rows: pl.DataFrame, prepared: Prepared) -> None:
    """Law 1: every input row is there once, kept, dropped or quarantined."""
    assert rows["id"].n_unique() == rows.height, "a row has two fates"
    assert rows.height == prepared.index.height + prepared.quarantined.height, "a row was lost"
    assert int((rows["fate"] == "quarantined").sum()) == prepared.quarantined.height, "a quarantined row was lost"


def totals(rows: pl.DataFrame) -> dict[str, Any]:
    """Counts for the manifest."""
    fate = dict(rows["fate"].value_counts().iter_rows())
    kept = rows.filter(pl.col("fate") == "kept")
    return {
        "input": rows.height,
        **{name: int(fate.get(name, 0)) for name in ("kept", "dropped", "quarantined")},
        **{name: int((kept["split"] == name).sum()) for name in ("train", *HELD_OUT)},
        "words": {
            name: int(frame.select(pl.sum("prompt_words", "answer_words").cast(pl.Int64)).sum_horizontal().sum())
            for name, frame in (("input", rows), ("kept", kept))
        },
    }


def publish(path: Path) -> None:
    """The curated set as others read it: one parquet file a split, with id, source, messages and meta."""
    files = {"train": path / "arms" / "curated.parquet"} | {
        name: path / "heldout" / f"{name}.parquet" for name in HELD_OUT
    }
    for split, file in files.items():
        target = path / "curated" / f"{split}.parquet"
        with replacing(target) as temporary:
            written = write_batches(batches(file, list(_PUBLISHED)), temporary, _PUBLISHED)
        if not written and split != "train":
            target.unlink()


def _with_arms(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """ROWS with the arms that hold each row, in a fixed order."""
    frames = [
        pl.read_parquet(path / "arms" / f"{name}.parquet", columns=["id"]).unique().with_columns(arm=pl.lit(name))
        for name in _ARMS
        if (path / "arms" / f"{name}.parquet").is_file()
    ]
    held = pl.concat(frames).group_by("id", maintain_order=True).agg(pl.col("arm").alias("arms"))
    joined = rows.drop("arms").join(held, on="id", how="left", maintain_order="left")
    return schema.conform(joined.with_columns(pl.col("arms").fill_null([])), schema.ROWS)
