"""Between runs and an index in Redis: puts kept rows in, and fetches the rows that it proposes for new ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import xxhash

from siftune.curation import schema
from siftune.curation.against.kept_rows import kept_index
from siftune.curation.against.redis_index import IndexSettings, RedisIndex
from siftune.curation.corpus import Corpus, EarlierSet, measure_index
from siftune.curation.dedup.minhash import Sketches
from siftune.curation.dedup.near import NearDuplicates
from siftune.curation.errors import UserError
from siftune.curation.prepare import Prepared
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Near, Splits
from siftune.curation.run.cache_key import measure_key, rows_key
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.recorder import RunRecorder

_BATCH = 1000
_EXAMPLE = ["source", "messages", "meta"]
_TEXTS = ["prompt", "core", "answer", "system"]


def index_run(run: RunFolder, address: str, *, name: str | None = None, progress: Progress | None = None) -> int:
    """Put the kept rows of a run into an index; those that stand there already stay.

    Args:
        run: the run.
        address: of the index, which is made where there is none.
        name: what the ids of the rows begin with there; default: the name of the run's recipe.
        progress: called with ("indexing", rows done, rows).

    Returns:
        How many rows of the run the index holds.

    Raises:
        UserError: the run is not finished, the index cannot be reached, was made with other settings, or holds other
            rows under this name.
    """
    _ = run.manifest.finished_counts()
    index, kept = RedisIndex.at(address), kept_index(run)
    index.create(_settings(run.recipe))
    name = name or run.manifest.recipe_name or run.path.resolve().name
    index.claim(name, measure_key("indexed", {}, run.texts.name, rows_key(kept["id"]), rows_key(kept["split"])))

    # The kept rows as an earlier set: what the run stored of them is read, and nothing is computed.
    rows = EarlierSet(f"{name}:", run.examples, run.texts, kept["row"].to_numpy())
    corpus = Corpus(run.examples, run.texts, key="", earlier=(rows,))
    positions = np.arange(corpus.own_rows, corpus.own_rows + kept.height, dtype=np.uint32)
    features = _near(run.recipe).sketches(corpus, positions, None).features()
    for start in range(0, kept.height, _BATCH):
        part = np.arange(start, min(start + _BATCH, kept.height), dtype=np.uint32)
        [example] = rows.frames(run.examples, ["id", *_EXAMPLE], part)
        [text] = rows.frames(run.texts, _TEXTS, part)
        documents = example.drop("id").hstack(text).with_columns(kept["split"][start : start + _BATCH]).to_dicts()
        index.insert(example["id"].to_list(), documents, Sketches.of(features.take(part)))
        if progress:
            progress("indexing", int(part[-1]) + 1, kept.height)
    return kept.height


def require_index(address: str, recipe: Recipe) -> IndexSettings:
    """The settings of an index. Raises `UserError` where there is none, or the recipe compares by other ones."""
    index = RedisIndex.at(address)
    settings = index.settings()
    if settings is None:
        raise UserError(f"There is no index at {address}. Make one with: siftune index RUN {address}")
    settings.require_fit(_settings(recipe), address=address)
    return settings


def proposed_rows(
    address: str, recorder: RunRecorder, prepared: Prepared, *, without: pl.Series
) -> tuple[EarlierSet, pl.DataFrame]:
    """The rows that an index proposes for those of a run, written into the run, and their INDEX.

    Args:
        address: of the index.
        recorder: the run.
        prepared: its rows.
        without: ids of rows that are left out.

    Raises:
        UserError: the index cannot be reached, or is lost.
    """
    settings, index = require_index(address, recorder.recipe), RedisIndex.at(address)
    sketches = _near(recorder.recipe).sketches(prepared.corpus, prepared.index["row"].to_numpy(), recorder.progress)
    proposed = index.candidates(sketches, settings).difference(without)
    rows = list(index.rows(sorted(proposed)))
    # The files are named by what is in them: a run that is continued finds its measures while the index proposes the
    # same rows.
    digest = xxhash.xxh3_128_hexdigest(orjson.dumps(rows))
    frame = pl.DataFrame(
        [{"id": row_id, **row} for row_id, row in rows],
        schema={**schema.EXAMPLES, **{name: pl.String() for name in _TEXTS}},
    )

    def write(name: str, columns: pl.Schema) -> Path:
        part = schema.conform(frame, columns)
        return recorder.run.measure(name, measure_key(name, {}, digest), lambda out: part.write_parquet(out))[0]

    examples, texts = write("indexed-examples", schema.EXAMPLES), write("indexed-texts", schema.TEXTS)
    facts = schema.conform(pl.concat(_index(examples, texts)), schema.INDEX)
    return EarlierSet("", examples, texts, facts["row"].to_numpy()), facts


def _index(examples: Path, texts: Path) -> Iterator[pl.DataFrame]:
    yield schema.empty(schema.INDEX).drop("rank", "pinned")
    yield from measure_index(examples, texts)


def _settings(recipe: Recipe) -> IndexSettings:
    near = _near(recipe)
    return IndexSettings(
        keys=recipe.keys.model_dump(),
        shingle=near.settings.shingle,
        permutations=near.settings.permutations,
        floor=near.floor,
        prompt_floor=(recipe.splits or Splits()).near_threshold(given=False),
    )


def _near(recipe: Recipe) -> NearDuplicates:
    """The near stage, as the recipe has it or by its defaults: it says which shingles are compared."""
    near = recipe.duplicates.near or Near()
    return NearDuplicates(near, recipe.keys.duplicates, tuple(recipe.duplicates.guard), recipe.duplicates.system)
