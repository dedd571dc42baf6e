"""The parts of a source that are read one after the other: its files, or the splits of a data set on disk or a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.curation.ingest.arrow_reader import BATCH_ROWS, table_rows
from siftune.curation.ingest.curated_sets import CuratedNotes
from siftune.curation.ingest.decompression import OnBytes, Warn
from siftune.curation.ingest.file_kinds import split_in_name
from siftune.curation.ingest.file_rows import read_rows
from siftune.curation.ingest.source_location import HUB, SourceLocation
from siftune.curation.split_names import standard_split


@dataclass(frozen=True)
class SourcePart:
    """A file, or a split of a data set.

    Attributes:
        name: Its path relative to the source, or `data set[split]`.
        split: The split that its name gives to its rows.
        bytes: Its size on disk.
        sha256: Hashes its bytes.
        open: Its rows, by `open(warn, on_bytes)`; see `file_rows.read_rows`.
        curated: What it says of itself where a run published it.
    """

    name: str
    split: str | None
    bytes: int
    sha256: Callable[[], str]
    open: Callable[[Warn, OnBytes], Iterator[Any]]
    curated: CuratedNotes | None = None


def source_parts(location: SourceLocation, *, positions: bool = False) -> Iterator[SourcePart]:
    """The parts of a source in order; with `positions`, columns are named by their position.

    Raises:
        UserError: the data set cannot be loaded.
    """
    if location.kind == "files":
        yield from (_file_part(location, path, positions=positions) for path in location.files)
    else:
        yield from (_split_part(location, split, dataset) for split, dataset in _load_splits(location).items())


def hashed_files(location: SourceLocation) -> list[tuple[str, Path]]:
    """Name and path of every file whose bytes decide which rows a source has.

    Raises:
        UserError: the data set cannot be loaded.
    """
    if location.kind == "hub":
        splits = _load_splits(location)
        return [(split, path) for split, dataset in splits.items() for path in _cached_files(dataset)]
    return [(str(path.relative_to(location.root)), path) for path in location.files]


def _file_part(location: SourceLocation, path: Path, *, positions: bool) -> SourcePart:
    return SourcePart(
        name=str(path.relative_to(location.root)),
        split=split_in_name(path.relative_to(location.root)) if location.several else None,
        bytes=path.stat().st_size,
        sha256=lambda: file_sha256(path),
        open=lambda warn, on_bytes: read_rows(path, warn=warn, positions=positions, on_bytes=on_bytes),
        curated=CuratedNotes.read(path),
    )


def _split_part(location: SourceLocation, split: str, dataset: Any) -> SourcePart:
    files = _cached_files(dataset)
    name = location.hub or location.root.name
    return SourcePart(
        name=f"{name}[{split}]" if split else name,
        split=standard_split(split) if split else None,
        bytes=sum(path.stat().st_size for path in files),
        sha256=lambda: hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest(),
        open=lambda warn, on_bytes: _dataset_rows(dataset),  # noqa: ARG005 - nothing to warn of in a loaded data set
    )


def _dataset_rows(dataset: Any) -> Iterator[Any]:
    for table in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS):
        yield from table_rows(table)


def _cached_files(dataset: Any) -> list[Path]:
    return [Path(file["filename"]) for file in dataset.cache_files]


def _load_splits(location: SourceLocation) -> Mapping[str, Any]:
    """Data sets by split; one that has no splits is under the empty name."""
    loaded = _load_from_disk(location) if location.kind == "disk" else _load_from_hub(location)
    return loaded if isinstance(loaded, dict) else {"": loaded}


def _load_from_disk(location: SourceLocation) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(location.root))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{location.root} looks like a folder of `save_to_disk` but cannot be loaded: {_one_line(error)} "
            "Save the data set again, or give its rows as JSONL or Parquet."
        ) from None


def _load_from_hub(location: SourceLocation) -> Any:
    import datasets

    owner, name, *config = location.hub.split("/")
    try:
        return datasets.load_dataset(f"{owner}/{name}", *config)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{HUB}{location.hub} cannot be loaded: {_one_line(error)} Check the name and the network, or "
            "download it and give its folder as `path:`."
        ) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"
