"""Divide what survived: held-out splits that nothing leaks into, and a certificate that says so.

All input rows are divided, the dropped ones too: the raw arm trains on them, so they must not leak either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.dedup import embedding_pairs as semantic_measure
from siftune.curation.dedup import near as near_measure
from siftune.curation.dedup.decisions import as_pairs, positions, same_text
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.embeddings.store import embedder
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.sections import Near, Splits
from siftune.curation.run import cache_key
from siftune.curation.run.recorder import Job
from siftune.curation.run.resources import Meter
from siftune.curation.split_names import HELD_OUT, TRAIN
from siftune.curation.splits import certificate, groups
from siftune.curation.splits.certificate import Limits, Side
from siftune.curation.text import words as text

_NOT_SEARCHED = Near()


@dataclass(frozen=True)
class Division:
    """INDEX and its division: for every input row its `group` and `split`, whether it is `evicted` from training for
    resembling a held-out row; `alive` are the rows that curation keeps (held-out ones too).
    """

    rows: pl.DataFrame
    alive: pl.DataFrame

    def train(self) -> pl.DataFrame:
        """The kept training rows."""
        here = self.rows.filter(pl.col("split") == TRAIN).select("id", "group")
        return self.alive.join(here, on="id", how="inner", maintain_order="left")


def divide(job: Job, prepared: Prepared, alive: pl.DataFrame) -> Division:
    """Split the rows as the recipe wants and drop what would leak.

    Without `splits`, or without rows, everything is for training.

    Raises:
        UserError: the held-out sets that the recipe wants cannot be had.
    """
    wanted = job.recipe.splits
    index = prepared.index
    if wanted is None or index.is_empty():
        everything = index.with_columns(group=pl.col("row"), split=pl.lit(TRAIN), evicted=pl.lit(value=False))
        return Division(everything, alive)
    with Meter() as meter:
        work = _Work(job, prepared, wanted)
        rows, decisions = work.cut(alive)
        rows, leaks = work.evict(rows, alive, decisions)
        left = job.ledger.enter("splits", pl.concat([decisions, leaks]), alive)
        job.manifest["certificate"] = work.certify(rows, left).to_dict()
    job.timed("splits", meter, rows=alive.height, kept=left.height, actions=_actions(job), reused=False)
    return Division(rows, left)


def _actions(job: Job) -> dict[str, int]:
    return dict(job.ledger.entries[-1]["action"].value_counts().iter_rows())


class _Work:
    """The steps of `divide`, over what they share: the leak measures of all input rows."""

    def __init__(self, job: Job, prepared: Prepared, wanted: Splits) -> None:
        self.job, self.prepared, self.wanted = job, prepared, wanted
        self.index = prepared.index
        self.key = job.recipe.keys.leaks
        near = job.recipe.duplicates.near or _NOT_SEARCHED
        self.near = near.model_copy(update={"threshold": wanted.near, "floor": wanted.near})
        self.limits = Limits(near=wanted.near, semantic=wanted.semantic, shingle=near.shingle)
        self.vectors = self._embed()

    def cut(self, alive: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Group, split, and drop the twins of held-out rows: the divided INDEX and DECISIONS."""
        same = self._measure("leak-exact", {}, self._exact)
        firsts = self.index.join(same.select(pl.col("b").alias("id")), on="id", how="anti", maintain_order="left")
        near = self._measure("leak-near", self.near.model_dump(), lambda: self._near(firsts))
        semantic = self._measure("leak-semantic", self._encoder_settings(), lambda: self._semantic(firsts))
        found = {name: self._edges(pairs) for name, pairs in (("near", near), ("semantic", semantic))}
        exact = self._edges(same)
        group = groups.groups(self.index.height, [exact, *found.values(), self._witnesses(), self._decided_pairs()])
        divided = self._assign(group, alive)
        self._tell_naive_leak(exact, found, divided)
        return divided, self._twins(divided, alive)

    def evict(
        self, rows: pl.DataFrame, alive: pl.DataFrame, decisions: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Search all training rows against the held-out ones: mark what resembles them, drop it where it is alive."""
        kept = alive.join(decisions.select("id"), on="id", how="anti")
        sides = self._sides(rows, kept)
        if self.wanted.yield_to == "train":
            sides = {TRAIN: sides.pop(TRAIN), **sides}
        leaks = certificate.evict(sides, limits=self.limits)
        marked = rows.with_columns(evicted=pl.col("id").is_in(leaks["id"].implode()))
        return marked, leaks.join(kept.select("id"), on="id", how="semi", maintain_order="left")

    def certify(self, rows: pl.DataFrame, left: pl.DataFrame) -> certificate.Certificate:
        """A fresh search over what is written: the held-out rows, and every row that any arm may train on."""
        return certificate.certify(self._sides(rows.filter(~pl.col("evicted")), left), limits=self.limits)

    def _sides(self, rows: pl.DataFrame, kept: pl.DataFrame) -> dict[str, Side]:
        held = rows.join(kept.select("id"), on="id", how="semi", maintain_order="left")
        named = {name: held.filter(pl.col("split") == name) for name in HELD_OUT}
        named[TRAIN] = rows.filter(pl.col("split") == TRAIN)
        return {name: self._side(frame["row"].to_numpy(), frame["id"]) for name, frame in named.items() if frame.height}

    def _side(self, at: np.ndarray, ids: pl.Series) -> Side:
        vectors = None if self.vectors is None else self.vectors[at]
        return Side(ids, lambda: self.prepared.corpus.key_texts(self.key, at), vectors)

    def _assign(self, group: np.ndarray, alive: pl.DataFrame) -> pl.DataFrame:
        grouped = self.index.with_columns(group=group, evicted=pl.lit(value=False))
        given = groups.given(self.index["split"])
        if given is not None:
            return grouped.with_columns(split=given, representative=given.is_in(HELD_OUT))
        eligible = self.index["id"].is_in(alive["id"].implode()).to_numpy()
        drawn = groups.assign(self.index, group, sizes=self.wanted, eligible=eligible, seed=self.job.recipe.seed)
        return grouped.with_columns(drawn["split"], drawn["representative"])

    def _twins(self, divided: pl.DataFrame, alive: pl.DataFrame) -> pl.DataFrame:
        """DECISIONS on alive rows of held-out groups that do not represent their group."""
        heads = divided.filter("representative").unique("group", keep="first", maintain_order=True)
        heads = heads.select("group", pl.col("id").alias("witness"))
        others = divided.filter(pl.col("split").is_in(HELD_OUT), ~pl.col("representative"))
        twins = others.join(alive.filter(~pl.col("pinned")).select("id"), on="id", how="semi", maintain_order="left")
        told = twins.join(heads, on="group", how="left", maintain_order="left")
        return schema.conform(
            told.with_columns(
                action=pl.lit("drop"),
                reason=pl.lit("heldout_twin"),
                detail="its group is held out as " + pl.col("split"),
            ),
            schema.DECISIONS,
        )

    def _tell_naive_leak(self, exact: Any, found: dict[str, Any], divided: pl.DataFrame) -> None:
        test_rows = max(1, divided.filter(pl.col("split") == "test", "representative").height)
        same = groups.groups(self.index.height, [exact])
        pairs = {name: edges for name, edges in found.items() if name != "semantic" or self.vectors is not None}
        naive = groups.naive_leak(self.index.height, pairs, test_rows=test_rows, same=same, seed=self.job.recipe.seed)
        self.job.manifest["naive_split"] = naive.to_dicts()

    def _measure(self, name: str, settings: dict[str, Any], make: Any) -> pl.DataFrame:
        key = cache_key.of(name, {"key": self.key, **settings}, self.prepared.corpus.key)
        path, _ = self.job.run.measure(name, key, lambda out: make().write_parquet(out))
        self.job.keep_file(name, path)
        return pl.read_parquet(path)

    def _exact(self) -> pl.DataFrame:
        compared = text.key_text(self.key)
        return same_text(self.prepared.corpus, self.index, expression=compared, measure="exact")

    def _near(self, firsts: pl.DataFrame) -> pl.DataFrame:
        found = near_measure.pairs(
            self.prepared.corpus.key_texts(self.key, firsts["row"].to_numpy()),
            shingle=self.near.shingle,
            permutations=self.near.permutations,
            floor=self.wanted.near,
            progress=self.job.progress,
        )
        return as_pairs(firsts, found, measure="near", guard=None)

    def _semantic(self, firsts: pl.DataFrame) -> pl.DataFrame:
        if self.vectors is None:
            return schema.empty(schema.PAIRS)
        vectors = self.vectors[firsts["row"].to_numpy()]
        found = semantic_measure.pairs(vectors, floor=self.wanted.semantic, progress=self.job.progress)
        return as_pairs(firsts, found, measure="semantic", guard=None)

    def _embed(self) -> np.ndarray | None:
        if self.job.recipe.encoder is None:
            return None
        every = self.index["row"].to_numpy()
        return embedder(self.job.recipe.encoder).embed(
            self.prepared.corpus.key_texts(self.key, every), progress=self.job.progress
        )

    def _encoder_settings(self) -> dict[str, Any]:
        name = self.job.recipe.encoder
        return {"encoder": name and embedder(name).encoder.name, "floor": self.wanted.semantic}

    def _edges(self, pairs: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        found, _ = positions(self.index, pairs)
        return found.a, found.b

    def _witnesses(self) -> tuple[np.ndarray, np.ndarray]:
        """Every dropped row stays in the group of the row that it was dropped for."""
        told = self.job.ledger.frame().filter(pl.col("action") == "drop", pl.col("witness").is_not_null())
        place = self.index.select("id", "row")
        both = told.join(place, on="id", how="inner").join(
            place, left_on="witness", right_on="id", how="inner", suffix="_witness"
        )
        return both["row"].to_numpy(), both["row_witness"].to_numpy()

    def _decided_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of the duplicate stages at or above their thresholds, guarded or not: what the guard keeps apart as
        rows is still too alike to stand on both sides of a split.
        """
        stages = self.job.recipe.duplicates
        parts: list[Pairs] = []
        for name, section in (("near", stages.near), ("answers", stages.answers), ("semantic", stages.semantic)):
            if section is not None and name in self.job.manifest["files"]:
                pairs = pl.read_parquet(self.job.run.path / self.job.manifest["files"][name])
                parts.append(positions(self.index, pairs.filter(pl.col("score") >= section.threshold))[0])
        return (
            np.concatenate([np.empty(0, np.uint32), *[part.a for part in parts]]),
            np.concatenate([np.empty(0, np.uint32), *[part.b for part in parts]]),
        )
