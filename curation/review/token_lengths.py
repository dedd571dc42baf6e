"""Lengths of a run's rows in tokens of its base model: counted once when somebody asks, and stored with the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.checksums import is_whole
from siftune.curation.corpus import batches, write_batches
from siftune.curation.progress import Progress
from siftune.curation.run.cache_key import measure_key
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.lengths import LengthCounter, length_counter

_COLUMNS = pl.Schema({"prompt": pl.UInt32, "answer": pl.UInt32})
_ROWS = 5_000  # between two words of progress


@dataclass(frozen=True)
class TokenLengths:
    """Tokens of prompt and answer together, and of the answer alone, uint32 [n], in the order of EXAMPLES, and whose
    tokens they are.
    """

    total: NDArray[np.uint32]
    answer: NDArray[np.uint32]
    tokenizer: str


def stored_lengths(run: RunFolder) -> TokenLengths | None:
    """What `count_lengths` stored for the present texts, or None."""
    path = run.measure_path("tokens", _key(run))
    return _read(run, pl.read_parquet(path, glob=False)) if is_whole(path) else None


def count_lengths(run: RunFolder, *, progress: Progress | None = None) -> TokenLengths | None:
    """Count and store, some 90,000 tokens a second. None when the base model's tokenizer is not to be had."""
    model = run.recipe.model
    units = length_counter(model.name, revision=model.revision)
    if not units.unit.startswith("tokens"):
        return None
    rows = pl.scan_parquet(run.texts, glob=False).select(pl.len()).collect().item()
    path, _ = run.measure(
        "tokens", _key(run), lambda out: write_batches(_counted(run, units, rows, progress), out, _COLUMNS)
    )
    return _read(run, pl.read_parquet(path, glob=False))


def _counted(run: RunFolder, units: LengthCounter, rows: int, progress: Progress | None) -> Iterator[pl.DataFrame]:
    done = 0
    for batch in batches(run.texts, ["prompt", "answer"], size=_ROWS):
        yield pl.DataFrame({name: units.of([batch[name]]) for name in _COLUMNS}, schema=_COLUMNS)
        done += batch.height
        if progress is not None:
            progress("counting tokens", done, rows)


def _read(run: RunFolder, frame: pl.DataFrame) -> TokenLengths:
    total = (frame["prompt"] + frame["answer"]).to_numpy()
    return TokenLengths(total, frame["answer"].to_numpy(), run.recipe.model.name)


def _key(run: RunFolder) -> str:
    # The file of the texts is named by their content.
    model = run.recipe.model
    return measure_key("tokens", {"tokenizer": model.name, "revision": model.revision}, run.texts.stem)
