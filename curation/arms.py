"""The training arms and the held-out sets as files: the same training groups, cut in different ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from siftune.curation.atomic_files import replacing
from siftune.curation.corpus import BATCH, batches
from siftune.curation.errors import require_conserved
from siftune.curation.run.manifest import ArmRecord
from siftune.curation.run.paths import RunPaths
from siftune.curation.sampling import shuffled_positions, water_fill
from siftune.curation.schema import ARM, HELDOUT, conform, empty
from siftune.curation.selection.selected_arms import SelectedRows
from siftune.curation.split_names import HELD_OUT, TRAIN
from siftune.curation.stage_arms import DecidedArm

#: Answers longer than this quantile of their source are no candidates of `longest` while there are others, so that the
#: outliers of each source (pasted files, runaway generations) do not fill it. One in a hundred is a convention, not
#: tuned; a source of up to 100 rows loses none.
LONGEST_QUANTILE = 0.99


def build(
    examples: Path,
    rows: pl.DataFrame,
    *,
    seed: int,
    out: RunPaths,
    names: Sequence[str],
    by_stage: Mapping[str, DecidedArm] | None = None,
    selected: Mapping[str, SelectedRows] | None = None,
) -> dict[str, ArmRecord]:
    """Write the file of each arm (ARM) and of the two held-out sets (HELDOUT).

    Args:
        examples: parquet with EXAMPLES; streamed once.
        rows: ROWS of every input row. Those of `split` train are the training groups, those of fate `kept` the curated
            ones; held out are the kept rows of `test` and `validation`. Rows of no split (they resemble a held-out
            row) are in no file. An optional column `copies` (default 1) says how often a curated row is in its arm.
        seed: of the random arms.
        out: the run folder.
        names: the arms to write, of those below. `base` is not trained and has no file.
        by_stage: the arms by stage, all of which are written: see `siftune.curation.stage_arms`.
        selected: the selected arms, all of which are written with their controls: see
            `siftune.curation.selection.selected_arms`.

    The arms: `raw`, all rows of the training groups, whatever curation decided; `curated`; `random`, as many rows as
    curated, drawn from raw; `random-2`, another such draw, which shows what chance alone does; `balanced-random`, as
    many, with equal counts of every source, where what a source with too few rows lacks is shared among the others: a
    control that four of the seven selectors of Ivison et al. do not beat (Large-Scale Data Selection for Instruction
    Tuning, arXiv 2503.01807, section 3 and table 2), and with one source another draw of random; `longest`, as many,
    with the longest answers (Zhao et al., Long Is More for Alignment, arXiv 2402.04833) up to a quantile of their
    source, `LONGEST_QUANTILE`. When repeated rows make curated larger than raw, the last four are all of raw.

    Returns:
        A record of each file by name, the arms first. Every file is in the order of `examples`, and is written in one
        step.
    """
    by_stage, selected = by_stage or {}, selected or {}
    members = _members(rows, seed=seed, names=names) | _stage_members(rows, by_stage)
    members |= _selected_members(rows, selected, seed=seed)
    methods = {name: choice.method for name, choice in selected.items()}
    methods |= {
        name: f"drawn from the curated rows, as many as {arm} has"
        for arm, choice in selected.items()
        for name in choice.controls
    }
    held_out = {split: _held_out(rows, split=split) for split in HELD_OUT}
    held_out_ids = pl.concat([frame["id"] for frame in held_out.values()])
    for name, frame in members.items():
        require_conserved(not frame["id"].is_in(held_out_ids.implode()).any(), f"The arm {name} holds held-out rows")
    files = {out.arm(name): (frame, ARM) for name, frame in members.items()}
    files |= {out.heldout(split): (frame, HELDOUT) for split, frame in held_out.items()}
    _write(examples, files)
    sorted_ids = {name: frame["id"].sort() for name, frame in members.items()}
    records = {}
    for name, frame in (members | held_out).items():
        same_as = [arm for arm in members if name in members and arm != name]
        same_as = [arm for arm in same_as if sorted_ids[name].equals(sorted_ids[arm])]
        records[name] = _record(frame, rows, same_as=same_as, decided=by_stage.get(name))
        records[name].selection = methods.get(name, "")
    return records


def _members(rows: pl.DataFrame, *, seed: int, names: Sequence[str]) -> dict[str, pl.DataFrame]:
    """For each arm the ids in it (as often as they stand in it) and why."""
    copies = pl.col("copies") if "copies" in rows.columns else pl.lit(1, pl.UInt32)
    raw = _raw(rows).with_columns(copies=copies)
    curated = _repeated(raw.filter(pl.col("fate") == "kept"))
    size = curated.height
    draws = {
        name: np.sort(shuffled_positions(raw["id"], seed=seed, purpose=purpose)[:size])
        for name, purpose in (("random", "random arm"), ("random-2", "second random arm"))
    }
    longest = raw[_longest(raw, size)]
    drawn = pl.format("drawn at random, seed {}; {}", pl.lit(seed), "verdict")
    evenly = pl.format("drawn at random, as many from each source, seed {}; {}", pl.lit(seed), "verdict")
    answer = pl.format(
        "among the {} longest answers up to the {} quantile of their source, {} words; {}",
        *(pl.lit(longest.height), pl.lit(LONGEST_QUANTILE), "answer_words", "verdict"),
    )
    arms = {
        "raw": raw.select("id", "group", why=pl.format("training group; {}", "verdict")),
        "curated": curated.select("id", "group", why=pl.col("verdict")),
        **{name: raw[positions].select("id", "group", why=drawn) for name, positions in draws.items()},
        "balanced-random": raw[_balanced_draw(raw, size, seed=seed)].select("id", "group", why=evenly),
        "longest": longest.select("id", "group", why=answer),
    }
    return {name: arms[name] for name in names if name in arms}


def _stage_members(rows: pl.DataFrame, by_stage: Mapping[str, DecidedArm]) -> dict[str, pl.DataFrame]:
    """The same for the arms by stage."""
    raw, members = _raw(rows).drop("copies", strict=False), {}
    for name, decided in by_stage.items():
        arm = raw.join(decided.copies, on="id", how="inner", maintain_order="left")
        require_conserved(arm.height == decided.copies.height, f"The arm {name} holds rows that are not for training")
        why = pl.format("kept without {}; {}", pl.lit(", ".join(decided.left_out)), "verdict")
        members[name] = _repeated(arm).select("id", "group", why=why)
    return members


def _selected_members(
    rows: pl.DataFrame, selected: Mapping[str, SelectedRows], *, seed: int
) -> dict[str, pl.DataFrame]:
    """The same for the selected arms, and for the draws of as many curated rows that they are compared with."""
    pool = _raw(rows).filter(pl.col("fate") == "kept")
    # Arms of one size share their controls.
    order, members = shuffled_positions(pool["id"], seed=seed, purpose="random control"), {}
    for name, choice in selected.items():
        size = choice.why.height
        arm = pool.select("id", "group").join(choice.why, on="id", how="inner", maintain_order="left")
        require_conserved(arm.height == size, f"The arm {name} holds rows that are not curated training rows")
        members[name] = arm
        for control_name, control in choice.controls.items():
            drawn = _balanced_draw(pool, size, seed=seed) if control == "balanced-random" else np.sort(order[:size])
            evenly = ", as many from each source" if control == "balanced-random" else ""
            why = pl.lit(f"drawn at random{evenly}, seed {seed}")
            members[control_name] = pool[drawn].select("id", "group", why=why)
    return members


def _raw(rows: pl.DataFrame) -> pl.DataFrame:
    raw = rows.filter(pl.col("split") == TRAIN, pl.col("fate") != "quarantined")
    return raw.with_columns(verdict=_verdict())


def _repeated(rows: pl.DataFrame) -> pl.DataFrame:
    return rows[np.repeat(np.arange(rows.height), rows["copies"].to_numpy())]


def _balanced_draw(raw: pl.DataFrame, size: int, *, seed: int) -> NDArray[np.int64]:
    """Positions of `size` rows in order, of every source equally many as far as it has them; int64 [size]."""
    order = shuffled_positions(raw["id"], seed=seed, purpose="balanced random arm")
    counts = raw.group_by("source").len("rows").sort("source")
    take = water_fill(np.ones(counts.height), counts["rows"].to_numpy(), size)
    drawn = pl.DataFrame({"position": order, "source": raw["source"].gather(order)})
    drawn = drawn.join(counts.with_columns(take=take), on="source", how="left", maintain_order="left")
    chosen = drawn.filter(pl.int_range(pl.len()).over("source") < pl.col("take"))
    return chosen["position"].sort().to_numpy()


def _longest(raw: pl.DataFrame, size: int) -> NDArray[np.int64]:
    """Positions in order of the `size` longest answers; those beyond the quantile of their source come last."""
    words = raw["answer_words"].to_numpy().astype(np.int64)
    quantile = pl.col("answer_words").quantile(LONGEST_QUANTILE, interpolation="higher").over("source")
    beyond = raw.select(pl.col("answer_words") > quantile).to_series().to_numpy()
    by_length = np.lexsort((np.where(beyond, words, -words), beyond))
    return np.sort(by_length[:size])


def _verdict() -> pl.Expr:
    dropped = pl.format("curation dropped it ({}: {})", pl.col("stage").fill_null("?"), pl.col("reason").fill_null("?"))
    return pl.when(pl.col("fate") == "kept").then(pl.lit("curation kept it")).otherwise(dropped)


def _held_out(rows: pl.DataFrame, *, split: str) -> pl.DataFrame:
    """The kept rows of a held-out split; `leaked` where the raw data holds another row of the same group."""
    readable = rows.filter(pl.col("fate") != "quarantined").with_columns(leaked=pl.len().over("group") > 1)
    held_out = readable.filter(pl.col("split") == split, pl.col("fate") == "kept")
    why = pl.lit(f"represents its group of similar rows in {split}")
    return held_out.select("id", "group", "leaked", why=why, split=pl.lit(split))


def _write(examples: Path, files: dict[Path, tuple[pl.DataFrame, pl.Schema]]) -> None:
    """One pass over the examples that fills all files; memory holds a batch of text and a row group of each file."""
    positions = pl.read_parquet(examples, columns=["id"], glob=False).with_row_index("position")
    with ExitStack() as stack:
        writers = []
        for path, (members, columns) in files.items():
            located = members.join(positions, on="id", how="inner", maintain_order="left")
            require_conserved(located.height == members.height, f"{path.name} names rows that the examples do not hold")
            located = located.sort("position", maintain_order=True)
            writers.append((located, stack.enter_context(_open_writer(path, columns))))
        start = 0
        for batch in batches(examples):
            for located, write in writers:
                low, high = np.searchsorted(located["position"].to_numpy(), (start, start + batch.height))
                part = located[low:high]
                if part.height:
                    write(batch[part["position"] - start].with_columns(part.drop("id", "position")))
            start += batch.height


@contextmanager
def _open_writer(path: Path, columns: pl.Schema) -> Iterator[Callable[[pl.DataFrame], None]]:
    """A function that appends frames to the parquet file `path`, in row groups of `BATCH` rows."""
    arrow = empty(columns).to_arrow().schema
    buffer: list[pl.DataFrame] = []
    with replacing(path, checked=True) as temporary, pq.ParquetWriter(temporary, arrow, compression="zstd") as writer:

        def flush() -> None:
            if buffer:
                writer.write_table(pl.concat(buffer).to_arrow().cast(arrow), row_group_size=BATCH)
                buffer.clear()

        def write(frame: pl.DataFrame) -> None:
            if frame.height:
                buffer.append(conform(frame, columns))
            if sum(map(len, buffer)) >= BATCH:
                flush()

        yield write
        flush()


def _record(frame: pl.DataFrame, rows: pl.DataFrame, *, same_as: list[str], decided: DecidedArm | None) -> ArmRecord:
    facts = frame.select("id").join(rows.select("id", "fate", "prompt_words", "answer_words"), on="id", how="left")
    return ArmRecord(
        rows=facts.height,
        kept=int((facts["fate"] == "kept").sum()),
        prompt_words=int(facts["prompt_words"].cast(pl.Int64).sum()),
        answer_words=int(facts["answer_words"].cast(pl.Int64).sum()),
        same_as=same_as,
        left_out=list(decided.left_out) if decided else [],
        unmeasured=decided.unmeasured if decided else {},
    )
