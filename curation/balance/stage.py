"""Even out instruction lengths in the training rows, as the recipe's `balance` section says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.balance.selection import COPIES, BalanceResult, balance_lengths
from siftune.curation.embeddings.store import embedder
from siftune.curation.ingest.references import read_reference
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.sections import Balance
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.splits.stage import SplitResult
from siftune.curation.text.lengths import length_counter


def balance_rows(
    recorder: RunRecorder, prepared: Prepared, splits: SplitResult, topics: pl.Series | None = None
) -> tuple[SplitResult, pl.DataFrame]:
    """Drop training rows so that instruction lengths come close to the target; held-out rows are left alone.

    Args:
        recorder: the run.
        prepared: the texts of its rows.
        splits: the split of every input row.
        topics: the topic of each row of the run's INDEX, where it has topics.

    Returns:
        The splits with what is alive afterwards, and (id, copies) of the training rows.

    Raises:
        UserError: the reference of the target cannot be read.
    """
    settings = recorder.recipe.balance
    if settings is None:
        return splits, pl.DataFrame(schema=COPIES)
    with recorder.stage("balance", rows=splits.alive.height) as record:
        train = splits.train()
        measures = measure_balance(recorder, prepared, train["row"].to_numpy(), settings, topics)
        balanced = measures.choose(train)
        alive = recorder.decide(record, balanced.decisions, splits.alive)
        recorder.manifest.balance = balanced.record()
    return replace(splits, alive=alive), balanced.copies_by_id(train)


@dataclass(frozen=True)
class BalanceMeasures:
    """What balancing chooses by, of n training rows; any of them can be balanced.

    Attributes:
        rows: uint32 [n], their positions in the corpus, ascending.
        lengths: uint32 [n], the lengths of their instructions in `unit`.
        costs: uint32 [n], with the answers, where the budget is in tokens.
        vectors: embeddings [n, d] of the prompts, where there is an encoder.
        topics: their topics [n], where the run has topics.
        reference: the lengths of the reference's instructions, where there is one.
        unit: what lengths are counted in.
        settings: how to balance.
        seed: the seed of the run.
    """

    rows: NDArray[np.uint32]
    lengths: NDArray[np.uint32]
    costs: NDArray[np.uint32] | None
    vectors: np.ndarray | None
    topics: pl.Series | None
    reference: NDArray[np.uint32] | None
    unit: str
    settings: Balance
    seed: int

    def choose(self, train: pl.DataFrame) -> BalanceResult:
        """Balance `train`, INDEX of some of the rows."""
        measured = np.searchsorted(self.rows, train["row"].to_numpy())
        return balance_lengths(
            train,
            self.lengths[measured],
            settings=self.settings,
            seed=self.seed,
            unit=self.unit,
            vectors=None if self.vectors is None else self.vectors[measured],
            costs=None if self.costs is None else self.costs[measured],
            reference=self.reference,
            topics=None if self.topics is None else self.topics.gather(measured),
        )


def measure_balance(
    recorder: RunRecorder,
    prepared: Prepared,
    rows: NDArray[np.uint32],
    settings: Balance,
    topics: pl.Series | None = None,
) -> BalanceMeasures:
    """Measure training rows for balancing.

    Args:
        recorder: holds the recipe.
        prepared: holds the texts.
        rows: uint32 [n], ascending positions in the corpus.
        settings: the recipe's `balance` section.
        topics: the topic of each row of the run's INDEX, where it has topics.

    Raises:
        UserError: the reference of the target cannot be read.
    """
    recipe = recorder.recipe
    if _is_balanced(prepared, settings):
        # As near to the target as the first run brought it; another step towards it would only cost rows.
        settings = settings.model_copy(update={"target": "temperature", "temperature": 1.0})

    # Lengths in tokens of the base model; answers are counted only where the budget is in tokens.
    units = length_counter(recipe.model.name, revision=recipe.model.revision)
    lengths = units.of(frame["prompt"] for frame in prepared.corpus.frames(["prompt"], rows))
    costs = reference = vectors = None
    if settings.tokens is not None:
        costs = lengths + units.of(frame["answer"] for frame in prepared.corpus.frames(["answer"], rows))
    if settings.reference is not None:
        reference = units.of([read_reference(settings.reference, base=recorder.base)["prompt"]])

    # Embeddings of the prompts, to keep the most diverse rows of each length.
    if recipe.encoder is not None:
        prompts = prepared.corpus.key_texts("prompt", rows)
        vectors = embedder(recipe.encoder).embed(prompts, progress=recorder.progress)
    of_rows = None if topics is None else topics.gather(rows)
    return BalanceMeasures(rows, lengths, costs, vectors, of_rows, reference, units.unit, settings, recipe.seed)


def _is_balanced(prepared: Prepared, settings: Balance) -> bool:
    """Whether the data are a curated set that was balanced by these settings."""
    notes = list(prepared.curated.values())
    return len(prepared.sources) == len(notes) == 1 and notes[0].balance == settings.model_dump()
