"""Split what survived: held-out splits that nothing leaks into, and a certificate that says so.

All input rows are split, the dropped ones too: the raw arm trains on them, so they must not leak either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.decontamination.stage import Decontamination
from siftune.curation.dedup import embedding_pairs
from siftune.curation.dedup.decisions import pair_positions, pairs_frame
from siftune.curation.dedup.exact import equal_text_pairs
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.dedup.minhash import jaccard_pairs
from siftune.curation.dedup.near import NearDuplicates
from siftune.curation.embeddings.store import embedder
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.sections import Near, Splits
from siftune.curation.run.cache_key import measure_key
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.split_names import HELD_OUT, TEST, TRAIN, given_splits
from siftune.curation.splits.assignment import Edges, draw_splits, similarity_groups
from siftune.curation.splits.certificate import certify, evict_leaks, pairs_with_earlier
from siftune.curation.splits.containment import Containment, RowPassages, measure_containment, passage_texts
from siftune.curation.splits.cross_search import LeakThresholds, ShingleSets, SplitRows
from siftune.curation.splits.given_split_leakage import given_split_leakage
from siftune.curation.splits.random_split_leakage import random_split_leakage
from siftune.curation.stages import stages
from siftune.curation.text import words as text


@dataclass(frozen=True)
class SplitResult:
    """What the splits stage made.

    rows: INDEX of all input rows with `group` (uint32, the first row of its group of similar rows), `split` and
    `evicted` (whether the row is kept out of training because it resembles a held-out row). alive: INDEX of the rows
    that curation keeps, held-out ones too. common: uint64, the hashes of passages that identify no row.
    """

    rows: pl.DataFrame
    alive: pl.DataFrame
    common: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def train(self) -> pl.DataFrame:
        """The kept training rows: INDEX and `group`."""
        groups = self.rows.filter(pl.col("split") == TRAIN).select("id", "group")
        return self.alive.join(groups, on="id", how="inner", maintain_order="left")


def split_rows(
    recorder: RunRecorder, prepared: Prepared, alive: pl.DataFrame, topics: pl.Series | None = None
) -> SplitResult:
    """Split the rows as the recipe's `splits` section says, and drop what would leak.

    Without that section, or without rows, everything is for training. Rows of earlier sets are in no split of the run,
    but no split may hold a row that resembles one of theirs in another split.

    Args:
        recorder: the run.
        prepared: the texts of its rows.
        alive: INDEX of the rows that are left.
        topics: the topic of each row of the run's INDEX, where it has topics.

    Raises:
        UserError: there are not enough groups of similar rows for the held-out sets of the recipe.
    """
    settings, index = recorder.recipe.splits, prepared.index
    if settings is None or index.is_empty():
        rows = index.with_columns(group=pl.col("row"), split=pl.lit(TRAIN), evicted=pl.lit(value=False))
        if index.is_empty() or not prepared.earlier["split"].is_in(HELD_OUT).any():
            return SplitResult(rows, alive)
        return _without_held_out_earlier(recorder, prepared, rows, alive)
    with recorder.stage("splits", rows=alive.height) as record:
        # Which input rows are similar to one another, by the leak thresholds and by the decisions made so far.
        vectors = _embeddings(recorder, prepared, index)
        given = given_splits(index["split"])
        thresholds = _thresholds(recorder, settings, given=given is not None)
        similar = _similar_rows(recorder, prepared, thresholds, vectors)
        same_prompts = _same_prompts(recorder, prepared)
        contained, containment = _contained_rows(recorder, prepared)
        earlier = _earlier_by_split(recorder, prepared, containment.common)
        run_split = _split_of(recorder, prepared, index, vectors, containment.common)
        earlier_pairs = pairs_with_earlier(run_split, earlier, thresholds=thresholds) if earlier else None
        edges = [
            *similar.values(),
            same_prompts,
            contained,
            _witness_edges(recorder, index),
            _duplicate_edges(recorder, index),
        ]

        # Similar rows form a group, and no split cuts a group.
        group = similarity_groups(index.height, edges)
        grouped = index.with_columns(group=group, evicted=pl.lit(value=False))
        if given is not None:
            rows = grouped.with_columns(split=given, representative=given.is_in(HELD_OUT))
        else:
            # A prompt that is nothing but what many other prompts hold cannot be kept out of training.
            eligible = index["id"].is_in(alive["id"].implode()).to_numpy()
            eligible &= ~index["row"].is_in(containment.templates).to_numpy()
            if earlier_pairs is not None:
                eligible &= ~index["id"].is_in(earlier_pairs["id"].implode()).to_numpy()
            strata = topics if settings.by_topic else None
            assigned = draw_splits(
                index, group, sizes=settings, eligible=eligible, seed=recorder.recipe.seed, topics=strata
            )
            rows = grouped.with_columns(assigned["split"], assigned["representative"])

        # For comparison: what a random split with as many test rows would have leaked.
        test_rows = max(1, rows.filter(pl.col("split") == TEST, "representative").height)
        links = {name: pairs for name, pairs in similar.items() if name != "exact"} | {"containment": contained}
        same = similarity_groups(index.height, [similar["exact"], same_prompts])
        recorder.manifest.naive_split = random_split_leakage(
            index.height, links, test_rows=test_rows, same=same, seed=recorder.recipe.seed
        )
        if given is not None:
            recorder.manifest.given_split = given_split_leakage(given, links, same=same)

        # A held-out split keeps one row of each of its groups.
        redundant = _redundant_held_out_rows(rows, alive)
        kept = alive.join(redundant.select("id"), on="id", how="anti")

        # Groups were made from what was measured; now compare every row with every held-out row. A training row that
        # resembles one is in no arm, and is dropped where it is alive. The split that yields stands last.
        splits = _rows_by_split(recorder, prepared, vectors, rows, kept, containment.common)
        if settings.yield_to == "train":
            splits = {TRAIN: splits.pop(TRAIN), **splits}
        leaks = evict_leaks(splits, thresholds=thresholds, earlier_pairs=earlier_pairs)
        rows = rows.with_columns(evicted=pl.col("id").is_in(leaks["id"].implode()))
        dropped_leaks = leaks.join(kept.select("id"), on="id", how="semi", maintain_order="left")
        remaining = recorder.decide(record, pl.concat([redundant, dropped_leaks]), alive)

        # Search once more over what is written: the held-out rows, and every row that any arm may train on.
        splits = _rows_by_split(
            recorder, prepared, vectors, rows.filter(~pl.col("evicted")), remaining, containment.common
        )
        recorder.manifest.certificate = certify(splits, thresholds=thresholds, earlier=earlier)
    return SplitResult(rows, remaining, containment.common)


def _without_held_out_earlier(
    recorder: RunRecorder, prepared: Prepared, rows: pl.DataFrame, alive: pl.DataFrame
) -> SplitResult:
    """All rows for training but those that resemble a held-out row of an earlier set.

    Args:
        recorder: the run.
        prepared: holds the texts.
        rows: all rows, as in `SplitResult`.
        alive: INDEX of the rows that are alive.
    """
    with recorder.stage("splits", rows=alive.height) as record:
        thresholds = _thresholds(recorder, Splits(), given=False)
        earlier = _earlier_by_split(recorder, prepared, prepared.common, names=HELD_OUT)
        vectors = _embeddings(recorder, prepared, prepared.index)
        train = {TRAIN: _split_of(recorder, prepared, rows, vectors, prepared.common)}
        pairs = pairs_with_earlier(train[TRAIN], earlier, thresholds=thresholds)
        leaks = evict_leaks(train, thresholds=thresholds, earlier_pairs=pairs)
        rows = rows.with_columns(evicted=pl.col("id").is_in(leaks["id"].implode()))
        alive = recorder.decide(record, leaks.join(alive, on="id", how="semi", maintain_order="left"), alive)
        stay = ~rows["evicted"]
        of_left = None if vectors is None else vectors[stay.to_numpy()]
        left = _split_of(recorder, prepared, rows.filter(stay), of_left, prepared.common)
        recorder.manifest.certificate = certify({TRAIN: left}, thresholds=thresholds, earlier=earlier)
    return SplitResult(rows, alive, prepared.common)


def _thresholds(recorder: RunRecorder, settings: Splits, *, given: bool) -> LeakThresholds:
    near = settings.near_threshold(given=given)
    return LeakThresholds(near=near, semantic=settings.semantic, shingle=_near(recorder).shingle)


def _near(recorder: RunRecorder) -> Near:
    """How words are compared: as the near stage does, or by its defaults where the recipe leaves it out."""
    return recorder.recipe.duplicates.near or Near()


def _embeddings(recorder: RunRecorder, prepared: Prepared, rows: pl.DataFrame) -> np.ndarray | None:
    """Embeddings [n, d] (float16) of the leak texts of some rows (INDEX); None without an encoder."""
    if recorder.recipe.encoder is None:
        return None
    texts = prepared.corpus.key_texts(recorder.recipe.keys.leaks, rows["row"].to_numpy())
    return embedder(recorder.recipe.encoder).embed(texts, progress=recorder.progress)


def _similar_rows(
    recorder: RunRecorder, prepared: Prepared, thresholds: LeakThresholds, vectors: np.ndarray | None
) -> dict[str, Edges]:
    """Pairs of input rows at or above the leak thresholds, by measure: exact, near, and semantic with embeddings.

    Each measure is stored in the run, so a second run reads it. Of rows with equal texts the first stands for all in
    the other two measures.
    """
    corpus, index, key = prepared.corpus, prepared.index, recorder.recipe.keys.leaks

    def stored(name: str, parameters: dict[str, Any], measure: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        cache_key = measure_key(name, {"key": key, **parameters}, corpus.key)
        path, _ = recorder.run.measure(name, cache_key, lambda out: measure().write_parquet(out))
        recorder.keep_file(name, path)
        return pl.read_parquet(path, glob=False)

    exact = stored(
        "leak-exact",
        {},
        lambda: equal_text_pairs(corpus, index, text=text.normalise(text.key_text(key)), measure="exact"),
    )
    firsts = index.join(exact.select(pl.col("b").alias("id")), on="id", how="anti", maintain_order="left")

    def measure_near() -> pl.DataFrame:
        rows = firsts["row"].to_numpy()
        shingle, permutations = _near(recorder).shingle, _near(recorder).permutations
        if corpus.cluster is not None:
            a, b, sides = corpus.cluster.similar_texts(
                rows, key, shingle=shingle, permutations=permutations, floor=thresholds.near
            )
            pairs = Pairs(a, b, sides.min(axis=1), sides)
        else:
            pairs = jaccard_pairs(
                corpus.key_texts(key, rows),
                shingle=shingle,
                permutations=permutations,
                floor=thresholds.near,
                progress=recorder.progress,
            )
        return pairs_frame(firsts, pairs, measure="near")

    near_parameters = _near(recorder).model_dump() | {"threshold": thresholds.near, "floor": thresholds.near}
    near = stored("leak-near", near_parameters, measure_near)

    def measure_semantic() -> pl.DataFrame:
        if vectors is None:
            return schema.empty(schema.PAIRS)
        pairs = embedding_pairs.cosine_pairs(
            vectors[firsts["row"].to_numpy()], floor=thresholds.semantic, progress=recorder.progress
        )
        return pairs_frame(firsts, pairs, measure="semantic")

    encoder = recorder.recipe.encoder and embedder(recorder.recipe.encoder).encoder.name
    semantic = stored("leak-semantic", {"encoder": encoder, "floor": thresholds.semantic}, measure_semantic)

    measured = {"exact": exact, "near": near} | ({} if vectors is None else {"semantic": semantic})
    return {name: _edges(index, pairs) for name, pairs in measured.items()}


def _same_prompts(recorder: RunRecorder, prepared: Prepared) -> Edges:
    """Rows with the same whole prompt, whatever the answers and whatever text is compared."""

    def measure(out: Path) -> None:
        pairs = equal_text_pairs(
            prepared.corpus, prepared.index, text=text.normalise(pl.col("prompt")), measure="same_prompt"
        )
        pairs.write_parquet(out)

    path, _ = recorder.run.measure("leak-prompt", measure_key("leak-prompt", {}, prepared.corpus.key), measure)
    recorder.keep_file("leak-prompt", path)
    return _edges(prepared.index, pl.read_parquet(path, glob=False))


def _contained_rows(recorder: RunRecorder, prepared: Prepared) -> tuple[Edges, Containment]:
    """Rows that stand inside one another, and what was measured of them; stored in the run."""
    keys, index = recorder.recipe.keys, prepared.index
    most_prompts = max(keys.template_rows, math.ceil(keys.template_share * index.height))

    def measure(out: Path) -> None:
        rows = index["row"].to_numpy()
        common = [notes.common for notes in prepared.curated.values()]
        measured = measure_containment(
            lambda: passage_texts(prepared.corpus, rows),
            most_prompts=most_prompts,
            common=np.concatenate([prepared.common, *common]),
        )
        measured.write(out, index)

    cache_key = measure_key("leak-containment", {"most_prompts": most_prompts}, prepared.corpus.key)
    path, _ = recorder.run.measure("leak-containment", cache_key, measure)
    recorder.keep_file("leak-containment", path)
    measured = Containment.read(path, index)
    return (measured.pairs.a, measured.pairs.b), measured


def _edges(index: pl.DataFrame, pairs: pl.DataFrame) -> Edges:
    """PAIRS as positions in `index`."""
    positions, _ = pair_positions(index, pairs)
    return positions.a, positions.b


def _witness_edges(recorder: RunRecorder, index: pl.DataFrame) -> Edges:
    """Every dropped row and the row that it was dropped for: they stay in one group. Items of benchmarks are no rows,
    even where a source has the name of a benchmark.
    """
    is_drop = (pl.col("action") == "drop") & (pl.col("stage") != Decontamination.name)
    dropped = recorder.ledger.frame().filter(is_drop, pl.col("witness").is_not_null())
    rows = index.select("id", "row")
    pairs = dropped.join(rows, on="id", how="inner").join(
        rows, left_on="witness", right_on="id", how="inner", suffix="_witness"
    )
    return pairs["row"].to_numpy(), pairs["row_witness"].to_numpy()


def _duplicate_edges(recorder: RunRecorder, index: pl.DataFrame) -> Edges:
    """Pairs of the duplicate stages at or above their thresholds, guarded or not: what the guard keeps apart as rows
    is still too alike to stand on both sides of a split.
    """
    edges: list[Edges] = []
    for stage in stages(recorder.recipe, base=recorder.base):
        if stage.similarity is not None and stage.name in recorder.manifest.files:
            pairs = pl.read_parquet(recorder.run.path / recorder.manifest.files[stage.name], glob=False)
            edges.append(_edges(index, pairs.filter(pl.col("score") >= stage.similarity.threshold)))
    return (
        np.concatenate([np.empty(0, np.uint32), *[a for a, _ in edges]]),
        np.concatenate([np.empty(0, np.uint32), *[b for _, b in edges]]),
    )


def _redundant_held_out_rows(rows: pl.DataFrame, alive: pl.DataFrame) -> pl.DataFrame:
    """DECISIONS on alive rows of held-out groups that do not represent their group; restored rows stay."""
    heads = rows.filter("representative").unique("group", keep="first", maintain_order=True)
    heads = heads.select("group", pl.col("id").alias("witness"))
    others = rows.filter(pl.col("split").is_in(HELD_OUT), ~pl.col("representative"))
    redundant = others.join(alive.filter(~pl.col("pinned")).select("id"), on="id", how="semi", maintain_order="left")
    decided = redundant.join(heads, on="group", how="left", maintain_order="left").with_columns(
        action=pl.lit("drop"),
        reason=pl.lit("heldout_twin"),
        detail="one of the similar rows for which that row stands in the split "
        + pl.col("split")
        + "; none of them is trained on",
    )
    return schema.conform(decided, schema.DECISIONS)


def _rows_by_split(
    recorder: RunRecorder,
    prepared: Prepared,
    vectors: np.ndarray | None,
    rows: pl.DataFrame,
    kept: pl.DataFrame,
    common: NDArray[np.uint64],
) -> dict[str, SplitRows]:
    """The splits that have rows, in the order test, validation, train.

    Args:
        recorder: says which text is compared.
        prepared: holds the texts.
        vectors: embeddings [n, d] of all input rows, or None.
        rows: the rows with their `split`; all training rows among them are compared.
        kept: the rows that are alive; only they stand in a held-out split.
        common: the hashes of the passages that identify nothing.
    """
    held_out = rows.join(kept.select("id"), on="id", how="semi", maintain_order="left")
    frames = {name: held_out.filter(pl.col("split") == name) for name in HELD_OUT}
    frames[TRAIN] = rows.filter(pl.col("split") == TRAIN)

    return {
        name: _split_of(
            recorder, prepared, frame, None if vectors is None else vectors[frame["row"].to_numpy()], common
        )
        for name, frame in frames.items()
        if frame.height
    }


def _earlier_by_split(
    recorder: RunRecorder,
    prepared: Prepared,
    common: NDArray[np.uint64],
    *,
    names: Sequence[str] = (*HELD_OUT, TRAIN),
) -> dict[str, SplitRows]:
    """The rows of earlier sets by split, with their stored shingle sets.

    Args:
        recorder: says which text is compared.
        prepared: holds the texts.
        common: the hashes of the passages that identify nothing.
        names: the splits.
    """
    near = NearDuplicates.from_recipe(recorder.recipe, base=recorder.base)
    splits = {}
    for name in names:
        frame = prepared.earlier.filter(pl.col("split") == name)
        if frame.height:
            rows = _split_of(recorder, prepared, frame, _embeddings(recorder, prepared, frame), common)
            if near and recorder.recipe.keys.leaks == "prompt":
                rows = replace(rows, shingles=partial(_prompt_shingles, near, prepared, frame["row"].to_numpy()))
            splits[name] = rows
    return splits


def _prompt_shingles(near: NearDuplicates, prepared: Prepared, rows: NDArray[np.uint32]) -> list[ShingleSets]:
    """The shingle sets of the prompts of earlier rows at these positions, in one batch."""
    return [near.sketches(prepared.corpus, rows, None).prompts()]


def _split_of(
    recorder: RunRecorder,
    prepared: Prepared,
    frame: pl.DataFrame,
    vectors: np.ndarray | None,
    common: NDArray[np.uint64],
) -> SplitRows:
    """Some rows (INDEX) as a split.

    Args:
        recorder: says which text is compared.
        prepared: holds the texts.
        frame: the n rows.
        vectors: their embeddings [n, d], or None.
        common: the hashes of the passages that identify nothing.
    """
    positions = frame["row"].to_numpy()
    return SplitRows(
        ids=frame["id"],
        texts=lambda: prepared.corpus.key_texts(recorder.recipe.keys.leaks, positions),
        vectors=vectors,
        prompts=lambda: (part["prompt"] for part in prepared.corpus.frames(["prompt"], positions)),
        passages=RowPassages(lambda: passage_texts(prepared.corpus, positions), common),
    )
