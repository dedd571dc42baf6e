"""The stages of curation, in order: each measures (slow, stored) and decides (fast, replayable), apart.

A stage is a frozen object that holds its parameters. It never deletes: it returns decisions, and the pipeline works
out who is still alive. A new stage joins by standing in `stages()`; the law tests run over that list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from curation import schema, text
from curation.corpus import Corpus
from curation.encoder import embedder
from curation.leaders import Pairs, leaders
from curation.measures import answers as answers_measure
from curation.measures import checks as checks_measure
from curation.measures import contamination as contamination_measure
from curation.measures import exact as exact_measure
from curation.measures import near as near_measure
from curation.measures import semantic as semantic_measure
from curation.recipe import Answers, Checks, Contamination, Near, Recipe, Semantic, Severity
from curation.schema import Key

Progress = Callable[[str, int, int], None]
CORPUS_COLUMNS = ["id", "prompt", "core", "answer"]


class Stage(Protocol):
    """One step of curation."""

    @property
    def name(self) -> str:
        """How the stage is called in the ledger."""

    def depends(self) -> dict[str, Any]:
        """What its measure depends on besides the rows: part of the measure's content address."""

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        """Measure the rows that are alive (INDEX). The result is stored, and never depends on a threshold."""

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        """DECISIONS on the rows that are alive, from what was measured on these rows or more."""


@dataclass(frozen=True)
class RowChecks:
    """Each row by itself, before rows are compared."""

    settings: Checks
    name: str = "checks"

    def depends(self) -> dict[str, Any]:
        return self.settings.model_dump()

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        found = [schema.empty(schema.FINDINGS)]
        for frame in corpus.frames(CORPUS_COLUMNS, alive["row"].to_numpy()):
            found.append(checks_measure.findings(frame, self.settings))
            if progress:
                progress("checking rows", sum(map(len, found)), alive.height)
        return pl.concat(found)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        severity = {name: value for name, value in self.settings.model_dump().items() if isinstance(value, str)}
        action = pl.col("check").replace_strict(severity, default="report")
        spared = pl.col("pinned") & (action == "drop")
        return schema.conform(
            measured.join(alive.select("id", "pinned"), on="id", how="inner", maintain_order="left").select(
                "id",
                pl.when(spared).then(pl.lit("report")).otherwise(action).alias("action"),
                pl.col("check").alias("reason"),
                "score",
                "detail",
            ),
            schema.DECISIONS,
        )


@dataclass(frozen=True)
class Exact:
    """The same normalised text: the first in keep order stays."""

    key: Key
    name: str = "exact"

    def depends(self) -> dict[str, Any]:
        return {"key": self.key}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        return same_text(corpus, alive, expression=_whole(self.key), measure=self.name)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        family = _families(alive, measured).filter(pl.col("id") != pl.col("witness"), ~pl.col("pinned"))
        return _decisions(family, action="drop", reason="exact_duplicate", score=1.0, threshold=1.0)


@dataclass(frozen=True)
class NearDuplicates:
    """Nearly the same text: greedy leaders over verified Jaccard similarity, unless the guard objects."""

    settings: Near
    key: Key
    guard: tuple[str, ...]
    name: str = "near"

    def depends(self) -> dict[str, Any]:
        return {"key": self.key, "guard": self.guard, **self.settings.model_dump(exclude={"threshold"})}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        rows = alive["row"].to_numpy()
        guard = guard_hashes(corpus, rows, self.key, self.guard)
        found = near_measure.pairs(
            corpus.key_texts(self.key, rows),
            shingle=self.settings.shingle,
            permutations=self.settings.permutations,
            floor=self.settings.floor,
            guard=guard,
            progress=progress,
        )
        return as_pairs(alive, found, measure=self.name, guard=guard)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return lead(alive, measured, threshold=self.settings.threshold, reason="near_duplicate")


@dataclass(frozen=True)
class Conflicts:
    """The same prompt with different answers: said, and dropped only when the recipe says so."""

    severity: Severity
    name: str = "conflicts"

    def depends(self) -> dict[str, Any]:
        return {}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        return same_text(corpus, alive, expression=pl.col("prompt"), measure=self.name)

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        later = _families(alive, measured).filter(pl.col("id") != pl.col("witness"))
        decided = _decisions(later, action="drop", reason="conflicting_answers", score=1.0, threshold=1.0)
        spared = later["pinned"] | (self.severity == "report")
        action = pl.when(spared).then(pl.lit("report")).otherwise(pl.lit("drop"))
        return decided.with_columns(action.alias("action"))


@dataclass(frozen=True)
class SemanticDuplicates:
    """The same meaning in other words: greedy leaders over the cosine of embeddings, unless the guard objects."""

    settings: Semantic
    key: Key
    guard: tuple[str, ...]
    encoder: str
    name: str = "semantic"

    def depends(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "guard": self.guard,
            "encoder": embedder(self.encoder).name,
            **self.settings.model_dump(exclude={"threshold"}),
        }

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> pl.DataFrame:
        rows = alive["row"].to_numpy()
        vectors = embedder(self.encoder).embed(corpus.key_texts(self.key, rows), progress=progress)
        found = semantic_measure.pairs(
            vectors, floor=self.settings.floor, exact_rows=self.settings.exact_rows, progress=progress
        )
        return as_pairs(alive, found, measure=self.name, guard=guard_hashes(corpus, rows, self.key, self.guard))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return lead(alive, measured, threshold=self.settings.threshold, reason="semantic_duplicate")


def guard_hashes(corpus: Corpus, rows: np.ndarray, key: Key, classes: tuple[str, ...]) -> np.ndarray | None:
    """For each row a hash (uint64) of its guarded tokens in order, or None without a guard."""
    if not classes:
        return None
    hashed = text.guard_hash(pl.col("text"), classes)
    hashes = [batch.to_frame("text").select(hashed.alias("hash"))["hash"] for batch in corpus.key_texts(key, rows)]
    return pl.concat(hashes).to_numpy() if hashes else np.empty(0, np.uint64)


def as_pairs(alive: pl.DataFrame, found: Pairs, *, measure: str, guard: np.ndarray | None) -> pl.DataFrame:
    """PAIRS with the ids of the compared rows in place of their positions."""
    guarded = np.zeros(len(found.a), bool) if guard is None else guard[found.a] != guard[found.b]
    ids = alive["id"]
    return pl.DataFrame(
        {
            "a": ids.gather(found.a),
            "b": ids.gather(found.b),
            "measure": pl.Series([measure], dtype=pl.String).new_from_index(0, len(found.a)),
            "score": found.score,
            "guarded": guarded,
        },
        schema=schema.PAIRS,
    )


def positions(alive: pl.DataFrame, pairs: pl.DataFrame) -> tuple[Pairs, np.ndarray]:
    """PAIRS between rows that are alive, as positions in `alive` (a < b), and whether each is guarded."""
    place = alive.select("id").with_row_index("at")
    joined = pairs.join(place.rename({"id": "a", "at": "from"}), on="a", how="inner", maintain_order="left").join(
        place.rename({"id": "b", "at": "to"}), on="b", how="inner", maintain_order="left"
    )
    found = Pairs(joined["from"].to_numpy(), joined["to"].to_numpy(), joined["score"].to_numpy())
    return found, joined["guarded"].to_numpy()


def lead(alive: pl.DataFrame, measured: pl.DataFrame, *, threshold: float, reason: str) -> pl.DataFrame:
    """DECISIONS of greedy leaders: who is dropped for whom, and who would have been but for the guard."""
    found, guarded = positions(alive, measured)
    led = leaders(
        alive.height,
        alive["rank"].to_numpy(),
        found,
        threshold=threshold,
        guarded=guarded,
        pinned=alive["pinned"].to_numpy(),
    )
    ids = alive["id"]
    dropped = np.flatnonzero(~led.kept)
    spared = np.flatnonzero(led.kept & (led.guard_witness >= 0))
    frames = [
        _told(ids, dropped, led.witness, led.score, action="drop", reason=reason, threshold=threshold),
        _told(
            ids,
            spared,
            led.guard_witness,
            led.guard_score,
            action="guard",
            reason="differs_in_guarded_tokens",
            threshold=threshold,
        ),
    ]
    return pl.concat(frames)


def _told(
    ids: pl.Series,
    at: np.ndarray,
    witness: np.ndarray,
    score: np.ndarray,
    *,
    action: str,
    reason: str,
    threshold: float,
) -> pl.DataFrame:
    frame = pl.DataFrame({"id": ids.gather(at), "witness": ids.gather(witness[at]), "score": score[at]})
    return _decisions(frame, action=action, reason=reason, threshold=threshold)


def _decisions(
    frame: pl.DataFrame, *, action: str, reason: str, threshold: float, score: float | None = None
) -> pl.DataFrame:
    said = frame.with_columns(
        pl.lit(action).alias("action"),
        pl.lit(reason).alias("reason"),
        pl.lit(threshold, pl.Float64).alias("threshold"),
        pl.lit(None, pl.String).alias("detail"),
    )
    return schema.conform(said if score is None else said.with_columns(pl.lit(score).alias("score")), schema.DECISIONS)


def same_text(corpus: Corpus, alive: pl.DataFrame, *, expression: pl.Expr, measure: str) -> pl.DataFrame:
    """PAIRS of each row with the first row of the same normalised text: a star a family, not a clique."""
    frames = corpus.frames(CORPUS_COLUMNS, alive["row"].to_numpy())
    first = exact_measure.groups(frame.select(expression.alias("text"))["text"] for frame in frames)
    later = np.flatnonzero(first != np.arange(alive.height))
    star = Pairs(first[later].astype(np.uint32), later.astype(np.uint32), np.ones(len(later)))
    return as_pairs(alive, star, measure=measure, guard=None)


def _whole(key: Key) -> pl.Expr:
    prompt = pl.col("prompt")
    return pl.concat_str([prompt, pl.col("answer")], separator="\n") if key == "dialogue" else prompt


def _families(alive: pl.DataFrame, stars: pl.DataFrame) -> pl.DataFrame:
    """INDEX columns of the rows in a family, in keep order, with the family's first in keep order as `witness`."""
    members = pl.concat(
        [
            stars.select(pl.col("a").alias("id"), pl.col("a").alias("family")),
            stars.select(pl.col("b").alias("id"), pl.col("a").alias("family")),
        ]
    ).unique()
    here = members.join(alive, on="id", how="inner").sort("rank")
    return here.with_columns(pl.col("id").first().over("family").alias("witness")).sort("row")


def stages(recipe: Recipe, *, base: Path) -> list[Stage]:
    """The stages that a recipe asks for, in their order; `base` is the folder that its paths are relative to."""
    wanted = recipe.duplicates
    key: Key = recipe.keys.duplicates
    guard = tuple(wanted.guard)
    listed: list[Stage | None] = [
        RowChecks(recipe.checks),
        Exact(key) if wanted.exact else None,
        NearDuplicates(wanted.near, key, guard) if wanted.near else None,
        RepeatedAnswers(wanted.answers) if wanted.answers else None,
        Conflicts(wanted.conflicts) if wanted.conflicts != "off" else None,
        SemanticDuplicates(wanted.semantic, key, guard, recipe.encoder) if wanted.semantic and recipe.encoder else None,
        Decontamination(recipe.contamination, recipe.encoder, base) if recipe.contamination else None,
    ]
    return [stage for stage in listed if stage is not None]
