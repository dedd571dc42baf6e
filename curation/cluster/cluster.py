"""A run on a cluster, as the driver sees it: it holds ids, ranks and pairs, and tasks hold texts.

The measures are those of one machine, under the same keys; whoever reads them (decisions, splits, pages) cannot tell
where they were taken. `Corpus.cluster` is how stages and splits reach this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.cluster.dialogue_prefixes import prefix_pairs
from siftune.curation.cluster.equal_rows import equal_rows
from siftune.curation.cluster.parts import Parts
from siftune.curation.cluster.preparation import prepare_parts
from siftune.curation.cluster.ray_executor import RayExecutor, connected
from siftune.curation.cluster.similar_rows import asks_for_another, similar_answers, similar_rows
from siftune.curation.cluster.single_rows import item_matches, row_findings
from siftune.curation.cluster.sources import cluster_sources
from siftune.curation.cluster.tasks import Executor
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.corpus import Corpus
from siftune.curation.decontamination.stage import Decontamination, with_item_texts
from siftune.curation.dedup.conflicts import ConflictingAnswers
from siftune.curation.dedup.decisions import pairs_frame
from siftune.curation.dedup.exact import ExactDuplicates
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.dedup.near import NearDuplicates
from siftune.curation.dedup.prefixes import DialoguePrefixes
from siftune.curation.dedup.repeated_answers import RepeatedAnswers, stars_of
from siftune.curation.errors import UserError
from siftune.curation.measurement import Measured
from siftune.curation.prepare import Prepared, rank, read_quarantine
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.row_checks.stage import RowChecks
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import SourceRecord
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.schema import Key
from siftune.curation.stages import stages

#: The stages whose measures tasks take.
_STAGES = (
    RowChecks,
    ExactDuplicates,
    DialoguePrefixes,
    NearDuplicates,
    RepeatedAnswers,
    ConflictingAnswers,
    Decontamination,
)


def check_cluster(recipe: Recipe, *, base: Path) -> None:
    """Raise `UserError` where a recipe with `engine: ray` asks for what only one machine does, before any work.

    Args:
        recipe: the recipe.
        base: the folder that its paths are relative to.
    """
    other = "or curate with `engine: local`."
    by_words = recipe.contamination is None or "layered" not in recipe.contamination.rules
    embeds = recipe.duplicates.semantic or recipe.topics or recipe.splits or recipe.balance or not by_words
    if recipe.encoder is not None and (embeds or recipe.selects_by_embedding):
        raise UserError(f"engine ray compares words, and encoder is {recipe.encoder!r}: set `encoder: null`, {other}")
    if recipe.against:
        raise UserError(f"engine ray compares the rows of one run, and `against` names others: leave it out, {other}")
    if limited := next((source.path for source in recipe.sources if source.limit), None):
        raise UserError(f"{limited} has a limit, and engine ray reads whole files: leave `limit` out, {other}")
    if recipe.contamination is not None and recipe.contamination.verify is not None:
        raise UserError(f"engine ray asks no second opinion: leave `contamination.verify` out, {other}")
    for stage in stages(recipe, base=base):
        if not isinstance(stage, _STAGES):
            raise UserError(f"engine ray has no stage {stage.name}: leave it out, {other}")
    cluster_sources(recipe.sources, base=base)  # a missing source leaves no folder behind


@contextmanager
def cluster_of(recipe: Recipe, run: RunFolder) -> Iterator[Executor | None]:
    """What does the tasks of a recipe while the block runs; None for `engine: local`.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the recipe's address.
    """
    if recipe.engine.ray is None:
        yield None
        return
    with connected(recipe.engine.ray):
        yield RayExecutor(WorkFolder(recipe.engine.ray.work or str(run.path.absolute() / "cluster")))


def prepare_on_cluster(recorder: RunRecorder, executor: Executor) -> Prepared:
    """What `siftune.curation.prepare.prepare` does, by tasks.

    Raises:
        UserError: a source is missing, unreadable, of no known format, or a curated set.
    """
    recipe = recorder.recipe
    made = prepare_parts(recorder, executor)
    corpus = Corpus(made.examples, made.texts, key=made.texts_key, cluster=Cluster(made.parts))
    sources = json.loads(made.report.read_text(encoding="utf-8"))["sources"]
    return Prepared(
        corpus=corpus,
        index=rank(pl.read_parquet(made.index, glob=False), recipe),
        repairs=_decisions(made.repairs),
        masks=_decisions(made.masks),
        quarantined=read_quarantine(made.quarantine),
        quarantine=made.quarantine,
        sources=[SourceRecord.model_validate(source) for source in sources],
        files={"examples": made.examples, "texts": made.texts, "index": made.index},
        reused=made.reused,
        curated={},
    )


def _decisions(path: Path | None) -> pl.DataFrame:
    return schema.empty(schema.DECISIONS) if path is None else pl.read_parquet(path, glob=False)


@dataclass(frozen=True)
class Cluster:
    """Takes measures by tasks over the parts of a run. See `siftune.curation.corpus.ClusterMeasures`."""

    parts: Parts

    def measure(self, stage: object, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        """What a stage of `siftune.curation.stages` measures.

        Args:
            stage: the stage.
            corpus: the rows.
            alive: INDEX of the rows to measure.
            progress: called while tasks are done.
        """
        rows = alive["row"].to_numpy()
        if isinstance(stage, RowChecks):
            return Measured(row_findings(self.parts, rows, stage.settings, progress=progress))
        if isinstance(stage, DialoguePrefixes):
            with_system = stage.system == "distinguish"
            pairs = prefix_pairs(self.parts, rows, with_system=with_system, progress=progress)
            return stage.measured(alive, *_positions(rows, pairs))
        if isinstance(stage, NearDuplicates):
            return self._near(stage, alive, progress)
        if isinstance(stage, RepeatedAnswers):
            copies, pairs = similar_answers(
                self.parts,
                rows,
                shingle=stage.shingle,
                permutations=stage.permutations,
                floor=stage.settings.floor,
                min_words=stage.settings.min_words,
                progress=progress,
            )
            first, copy = _positions(rows, copies)
            return stage.measured(alive, stars_of(first, copy, _similar(rows, pairs)))
        if isinstance(stage, Decontamination):
            items = stage.items()
            if items is None:
                return Measured(schema.empty(schema.MATCHES))
            rules, ratios = stage.settings.rules, stage.settings.token_ratios
            matches, notes = item_matches(self.parts, alive, items, rules=rules, token_ratios=ratios, progress=progress)
            return Measured(with_item_texts(matches, items), notes)
        assert isinstance(stage, (ExactDuplicates, ConflictingAnswers))
        return stage.measure(corpus, alive, progress)  # they ask `equal_texts`

    def equal_texts(self, rows: NDArray[np.uint32], text: pl.Expr) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `siftune.curation.corpus.ClusterMeasures`."""
        return _positions(rows, equal_rows(self.parts, rows, text))

    def similar_texts(
        self, rows: NDArray[np.uint32], key: Key, *, shingle: int, permutations: int, floor: float
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]:
        """See `siftune.curation.corpus.ClusterMeasures`.

        Args:
            rows: ascending positions of the rows.
            key: the compared text.
            shingle: words in a shingle.
            permutations: MinHash permutations.
            floor: the least similarity.
        """
        pairs = similar_rows(
            self.parts,
            rows,
            sides=[],
            key=key,
            shingle=shingle,
            permutations=permutations,
            floor=floor,
            answer_floor=0.0,
            guard=[],
            system=False,
        )
        similar = _similar(rows, pairs)
        assert similar.sides is not None
        return similar.a, similar.b, similar.sides

    def _near(self, stage: NearDuplicates, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        rows, both_sides = alive["row"].to_numpy(), stage.compares == "dialogue"
        pairs = similar_rows(
            self.parts,
            rows,
            sides=["core", "answer"] if both_sides else ["core"],
            key=stage.compares,
            shingle=stage.settings.shingle,
            permutations=stage.settings.permutations,
            floor=stage.floor,
            answer_floor=stage.settings.answers,
            guard=list(stage.guard),
            system=stage.system == "distinguish",
            progress=progress,
        )
        guarded = pairs["guarded"].copy()
        if both_sides and "questions" in stage.guard:
            guarded |= asks_for_another(self.parts, pairs, progress=progress)
        return Measured(pairs_frame(alive, _similar(rows, pairs), measure=stage.name, another_task=guarded))


def _positions(rows: NDArray[np.uint32], pairs: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions in `rows` of the rows of pairs."""
    return np.searchsorted(rows, pairs["a"]), np.searchsorted(rows, pairs["b"])


def _similar(rows: NDArray[np.uint32], pairs: NDArray[np.void]) -> Pairs:
    """SIMILAR as positions in `rows`."""
    a, b = _positions(rows, pairs)
    sides = np.stack([pairs["prompt"], pairs["answer"]], axis=1)
    return Pairs(a.astype(np.uint32), b.astype(np.uint32), sides.min(axis=1), sides)
