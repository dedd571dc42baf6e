"""Opens what a recipe's `against` names: runs by what they stored, other data by reading it.

The rows of a run are those that it kept, with the splits that it gave them. They come with their texts, signatures,
hashes and embeddings, so the sources of the run need not be there any more. Any other data set is read as a source is;
its rows are for training but where they say otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.against.indexed_rows import proposed_rows, require_index
from siftune.curation.against.kept_rows import kept_index
from siftune.curation.against.redis_index import SCHEME
from siftune.curation.against.stored_embeddings import adopt_embeddings
from siftune.curation.corpus import EarlierSet
from siftune.curation.embeddings.store import embedder
from siftune.curation.errors import UserError
from siftune.curation.ingest.curated_sets import CuratedNotes
from siftune.curation.ingest.source_location import is_run_folder
from siftune.curation.ingest.sources import locate_sources
from siftune.curation.prepare import Prepared, prepare
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Source
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import EarlierRecord
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.split_names import TRAIN, given_splits


@dataclass(frozen=True)
class OpenedSet:
    """An earlier set, ready to be compared with.

    Attributes:
        rows: its rows, in files.
        index: INDEX of its rows in their order, ids as they are spelled in its files; `split` is the split that holds
            the row.
        record: what the manifest says of it.
        common: uint64, the hashes of passages that identify no row, as a run counted them.
    """

    rows: EarlierSet
    index: pl.DataFrame
    record: EarlierRecord
    common: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))


def check_earlier(recipe: Recipe, *, base: Path) -> None:
    """Raise `UserError` unless everything that `against` names is there and fits the recipe; nothing large is read.

    Args:
        recipe: the recipe.
        base: the folder that its paths are relative to.
    """
    data_sets = []
    for source in recipe.against:
        path = base / Path(source.path).expanduser()
        if source.path.startswith(SCHEME):
            require_index(source.path, recipe)
        elif is_run_folder(path):
            _require_comparable(RunFolder.open(path), recipe)
        else:
            data_sets.append(source)
    locate_sources(data_sets, base=base)


def open_earlier(recorder: RunRecorder) -> list[OpenedSet]:
    """Open the runs and data sets that the recipe's `against` names, in its order.

    Raises:
        UserError: something that it names is missing, unreadable or of no known format, is a run that is not finished,
            or was made with other keys or by another encoder.
    """
    recipe, base = recorder.recipe, recorder.base
    opened = []
    for source in recipe.against:
        path = base / Path(source.path).expanduser()
        if source.path.startswith(SCHEME):
            continue
        if is_run_folder(path):
            opened.append(_open_run(RunFolder.open(path), source, recipe))
        else:
            opened.append(_open_data(source, recorder))
    return opened


def add_earlier(recorder: RunRecorder, prepared: Prepared, opened: Sequence[OpenedSet]) -> Prepared:
    """The input of a run with the rows of earlier sets after its own, and last those that an index proposes.

    Args:
        recorder: the run.
        prepared: its own rows.
        opened: the runs and data sets.

    Raises:
        UserError: two sets have ids in common, or an index cannot be reached.
    """
    # Ids must tell rows apart.
    prefixes = [
        frame.select(pl.col("id").str.replace(r":\d+$", "").unique())["id"].to_list()
        for frame in (prepared.index, *(_with_names(one) for one in opened))
    ]
    for name, count in Counter(name for names in prefixes for name in names).items():
        if count > 1:
            raise UserError(
                f"Two sets of rows are called {name!r}, in `sources` or `against`. Give one of them another `name:`."
            )
    opened = list(opened)
    for source in recorder.recipe.against:
        if source.path.startswith(SCHEME):
            there = pl.concat([prepared.index["id"], *(_with_names(one)["id"] for one in opened)])
            opened.append(_open_index(source.path, recorder, prepared, there))
    recorder.manifest.against = [one.record for one in opened]
    if not opened:
        return prepared
    # Earlier rows come after the run's own, before them in keep order, and no stage may drop them.
    own_rows = prepared.index.height
    rows = pl.int_range(pl.len(), dtype=pl.UInt32)
    earlier = pl.concat([_with_names(one) for one in opened]).with_columns(
        row=own_rows + rows, rank=rows, pinned=pl.lit(value=True)
    )
    common = np.concatenate([one.common for one in opened])
    return prepared.against([one.rows for one in opened], schema.conform(earlier, schema.INDEX), common)


def _with_names(opened: OpenedSet) -> pl.DataFrame:
    return schema.conform(opened.index.with_columns(opened.rows.spelled_id()), schema.INDEX)


def _open_run(run: RunFolder, source: Source, recipe: Recipe) -> OpenedSet:
    """The kept rows of a run."""
    _require_comparable(run, recipe)
    manifest = run.manifest
    index = kept_index(run)
    name = source.name or manifest.recipe_name or run.path.resolve().name
    if recipe.encoder is not None and manifest.encoder:
        adopt_embeddings(run, embedder(recipe.encoder))
    listed = {Path(other.path).name for other in recipe.against}
    unlisted = [one.name for one in manifest.against if Path(one.path).name not in listed]
    warnings = [
        f"it was curated against {name}, which this recipe does not name: new rows are not compared with it"
        for name in unlisted
    ]
    rows = EarlierSet(f"{name}:", run.examples, run.texts, index["row"].to_numpy())
    record = EarlierRecord(name=name, path=source.path, kind="run", rows=index.height, warnings=warnings)
    notes = CuratedNotes.read(run.curated(TRAIN))
    return OpenedSet(rows, index, record, *([notes.common] if notes else []))


def _require_comparable(run: RunFolder, recipe: Recipe) -> None:
    """Raise `UserError` unless a run is finished and compares rows by the same texts and the same encoder."""
    manifest = run.manifest
    if manifest.counts is None:
        raise UserError(
            f"against: the run {run.path} is not finished. Finish it with: siftune curate {run.recipe_path}"
        )
    ours, theirs = recipe.keys.model_dump(), run.recipe.keys.model_dump()
    differing = [f"{name}: {theirs[name]}, here {ours[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise UserError(
            f"against: the run {run.path} was made with other keys ({'; '.join(differing)}), so its rows were compared "
            "by other texts. Set `keys` as there, or curate that run again with the keys of this recipe."
        )
    if recipe.encoder is not None and manifest.encoder:
        encoder = embedder(recipe.encoder).encoder.name
        if encoder != manifest.encoder:
            raise UserError(
                f"against: the embeddings of the run {run.path} are by the encoder {manifest.encoder}, those of this "
                f"recipe by {encoder}. Set `encoder` as there, or curate that run again with this recipe's encoder."
            )


def _open_index(address: str, recorder: RunRecorder, prepared: Prepared, there: pl.Series) -> OpenedSet:
    """The rows that an index in Redis proposes for the rows of a run.

    Args:
        address: of the index.
        recorder: the run.
        prepared: its rows.
        there: ids of rows that are compared anyway, such as those of a run that stands in the index too.
    """
    rows, index = proposed_rows(address, recorder, prepared, without=there)
    return OpenedSet(rows, index, EarlierRecord(name=address, path=address, kind="index", rows=index.height))


def _open_data(source: Source, recorder: RunRecorder) -> OpenedSet:
    """The rows of any data set that can be read as a source, each kept as it is."""
    taken = {location.name for location in locate_sources(recorder.recipe.sources, base=recorder.base)}
    name = source.name or locate_sources([source], base=recorder.base)[0].name
    while not source.name and name in taken:
        name = f"{name}-earlier"
    named = source.model_copy(update={"name": name})
    recipe = recorder.recipe.model_copy(update={"sources": [named], "against": []})
    prepared = prepare(recipe, recorder.run, base=recorder.base, progress=recorder.progress)
    given = given_splits(prepared.index["split"])
    splits = pl.lit(TRAIN) if given is None else given
    index = prepared.index.with_columns(splits.alias("split"))
    rows = EarlierSet("", prepared.corpus.examples, prepared.corpus.texts, index["row"].to_numpy())
    unreadable = prepared.quarantined.height
    warnings = [warning for read in prepared.sources for warning in read.warnings]
    warnings += [f"{unreadable:,} of its rows cannot be used"] if unreadable else []
    record = EarlierRecord(name=name, path=source.path, kind="data set", rows=index.height, warnings=warnings)
    return OpenedSet(rows, index, record)
