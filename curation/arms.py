"""The training arms and the held-out sets as files: the same training groups, cut in different ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from siftune.curation import sampling
from siftune.curation.atomic_files import replacing
from siftune.curation.corpus import BATCH, batches
from siftune.curation.recipe.sections import ArmName
from siftune.curation.schema import ARM, HELDOUT, conform, empty
from siftune.curation.split_names import HELD_OUT, TRAIN


@dataclass(frozen=True)
class Counts:
    """One file: its rows, how many of these curation kept, its words, and the arms that hold the very same rows."""

    rows: int
    kept: int
    prompt_words: int
    answer_words: int
    same_as: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: JSON types only."""
        return vars(self) | {"same_as": list(self.same_as)}


def build(examples: Path, rows: pl.DataFrame, *, seed: int, out: Path, names: Sequence[ArmName]) -> dict[str, Counts]:
    """Write `out`/arms/NAME.parquet (ARM) for each name and `out`/heldout/{test,validation}.parquet (HELDOUT).

    Args:
        examples: parquet with EXAMPLES; streamed once.
        rows: ROWS of every input row. Those of `split` train are the training groups, those of fate `kept` the curated
            ones; held out are the kept rows of `test` and `validation`. Rows of no split (they resemble a held-out
            row) are in no file. An optional column `copies` (default 1) says how often a curated row is in its arm.
        seed: of the random arm.
        out: the run folder.
        names: the wanted arms. `base` is not trained and has no file.

    The arms: `raw`, all rows of the training groups, whatever curation decided; `curated`; `random`, as many rows as
    curated, drawn from raw; `longest`, as many, those with the longest answers (Zhao et al., Long Is More for
    Alignment, arXiv 2402.04833). When repeated rows make curated larger than raw, the last two are all of raw.

    Returns counts by file, the arms first. Every file is in the order of `examples`, and is written in one step.
    """
    members = _members(rows, seed=seed, names=names)
    held_out = {name: _held_out(rows, split=name) for name in HELD_OUT}
    outside = pl.concat([frame["id"] for frame in held_out.values()])
    for name, frame in members.items():
        assert not frame["id"].is_in(outside.implode()).any(), f"the arm {name} holds held-out rows"
    plan = {f"arms/{name}": (frame, ARM) for name, frame in members.items()}
    plan |= {f"heldout/{name}": (frame, HELDOUT) for name, frame in held_out.items()}
    _write(examples, {out / f"{name}.parquet": each for name, each in plan.items()})
    twins = {one: tuple(two for two in members if two != one and _same(members, one, two)) for one in members}
    counted = members | held_out
    return {name: _counts(frame, rows, same_as=twins.get(name, ())) for name, frame in counted.items()}


def _members(rows: pl.DataFrame, *, seed: int, names: Sequence[ArmName]) -> dict[str, pl.DataFrame]:
    """For each arm the ids in it (as often as they stand in it) and why."""
    copies = pl.col("copies") if "copies" in rows.columns else pl.lit(1, pl.UInt32)
    raw = rows.filter(pl.col("split") == TRAIN, pl.col("fate") != "quarantined")
    raw = raw.with_columns(copies=copies, verdict=_verdict())
    curated = raw.filter(pl.col("fate") == "kept")
    curated = curated[np.repeat(np.arange(curated.height), curated["copies"].to_numpy())]
    size = curated.height
    drawn = raw[np.sort(sampling.order(raw["id"], seed=seed, purpose="random arm")[:size])]
    longest = raw[np.sort(_longest(raw)[:size])]
    answer = pl.format("among the {} longest answers, {} words; {}", pl.lit(longest.height), "answer_words", "verdict")
    arms = {
        "raw": raw.select("id", "group", why=pl.format("training group; {}", "verdict")),
        "curated": curated.select("id", "group", why=pl.col("verdict")),
        "random": drawn.select("id", "group", why=pl.format("drawn at random, seed {}; {}", pl.lit(seed), "verdict")),
        "longest": longest.select("id", "group", why=answer),
    }
    return {name: arms[name] for name in names if name in arms}


def _verdict() -> pl.Expr:
    dropped = pl.format("curation dropped it ({}: {})", pl.col("stage").fill_null("?"), pl.col("reason").fill_null("?"))
    return pl.when(pl.col("fate") == "kept").then(pl.lit("curation kept it")).otherwise(dropped)


def _longest(raw: pl.DataFrame) -> np.ndarray:
    return np.argsort(-raw["answer_words"].to_numpy().astype(np.int64), kind="stable")


def _held_out(rows: pl.DataFrame, *, split: str) -> pl.DataFrame:
    """The kept rows of a held-out split; `leaked` where the raw data holds another row of the same group."""
    readable = rows.filter(pl.col("fate") != "quarantined").with_columns(leaked=pl.len().over("group") > 1)
    held = readable.filter(pl.col("split") == split, pl.col("fate") == "kept")
    why = pl.lit(f"represents its group of similar rows in {split}")
    return held.select("id", "group", "leaked", why=why, split=pl.lit(split))


def _write(examples: Path, plan: dict[Path, tuple[pl.DataFrame, pl.Schema]]) -> None:
    """One pass over the examples that fills all files; memory holds a batch of text and a row group of each file."""
    ids = pl.read_parquet(examples, columns=["id"]).with_row_index("at")
    with ExitStack() as stack:
        files = []
        for path, (members, columns) in plan.items():
            placed = members.join(ids, on="id", how="inner", maintain_order="left").sort("at", maintain_order=True)
            assert placed.height == members.height, f"{path.name} wants rows that the examples do not hold"
            files.append((placed, stack.enter_context(_writing(path, columns))))
        start = 0
        for batch in batches(examples):
            for placed, write in files:
                low, high = np.searchsorted(placed["at"].to_numpy(), (start, start + batch.height))
                part = placed[low:high]
                if part.height:
                    write(batch[part["at"] - start].with_columns(part.drop("id", "at")))
            start += batch.height


@contextmanager
def _writing(path: Path, columns: pl.Schema) -> Iterator[Callable[[pl.DataFrame], None]]:
    """A function that appends frames to the parquet file `path`, in row groups of `BATCH` rows."""
    arrow = empty(columns).to_arrow().schema
    waiting: list[pl.DataFrame] = []
    with replacing(path) as temporary, pq.ParquetWriter(temporary, arrow, compression="zstd") as writer:

        def flush() -> None:
            if waiting:
                writer.write_table(pl.concat(waiting).to_arrow().cast(arrow), row_group_size=BATCH)
                waiting.clear()

        def write(frame: pl.DataFrame) -> None:
            if frame.height:
                waiting.append(conform(frame, columns))
            if sum(map(len, waiting)) >= BATCH:
                flush()

        yield write
        flush()


def _same(members: dict[str, pl.DataFrame], one: str, two: str) -> bool:
    return members[one]["id"].sort().equals(members[two]["id"].sort())


def _counts(frame: pl.DataFrame, rows: pl.DataFrame, *, same_as: tuple[str, ...]) -> Counts:
    here = frame.select("id").join(rows.select("id", "fate", "prompt_words", "answer_words"), on="id", how="left")
    return Counts(
        rows=here.height,
        kept=int((here["fate"] == "kept").sum()),
        prompt_words=int(here["prompt_words"].cast(pl.Int64).sum()),
        answer_words=int(here["answer_words"].cast(pl.Int64).sum()),
        same_as=same_as,
    )
