"""A source taken apart: its files, the splits of a `save_to_disk` folder, the splits of a hub data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siftune.curation.errors import UserError
from siftune.curation.ingest import file_readers, source_files
from siftune.curation.ingest.source_files import Located, Note

Done = Callable[[int], None]
_BATCH = 4096


@dataclass(frozen=True)
class Part:
    """Rows that are read in one go: `open(note, done)` gives them, see `readers.rows`; `sha256` hashes its bytes."""

    name: str
    split: str | None
    bytes: int
    sha256: Callable[[], str]
    open: Callable[[Note, Done], Iterator[Any]]


def of(place: Located, *, positions: bool = False) -> Iterator[Part]:
    """The parts of a source in order. Raises `UserError` where it cannot be loaded."""
    if place.kind == "files":
        yield from (_file(place, path, positions=positions) for path in place.files)
    else:
        splits = _splits(_from_disk(place) if place.kind == "disk" else _from_hub(place))
        yield from (_split(place, split, dataset) for split, dataset in splits.items())


def hashed(place: Located) -> list[tuple[str, Path]]:
    """The files whose bytes decide what rows a source has, by name. Raises `UserError` where it cannot be loaded."""
    if place.kind == "hub":
        splits = _splits(_from_hub(place))
        return [(split, path) for split, dataset in splits.items() for path in _cached(dataset)]
    return [(str(path.relative_to(place.root)), path) for path in place.files]


def _file(place: Located, path: Path, *, positions: bool) -> Part:
    return Part(
        name=str(path.relative_to(place.root)),
        split=source_files.split_in_name(path) if place.several else None,
        bytes=path.stat().st_size,
        sha256=lambda: source_files.sha256(path),
        open=lambda note, done: file_readers.rows(path, note=note, positions=positions, done=done),
    )


def _split(place: Located, split: str, dataset: Any) -> Part:
    cached = _cached(dataset)
    return Part(
        name=f"{place.hub or place.root.name}[{split}]" if split else place.hub or place.root.name,
        split=source_files.normal_split(split) if split else None,
        bytes=sum(path.stat().st_size for path in cached),
        sha256=lambda: hashlib.sha256("".join(source_files.sha256(path) for path in cached).encode()).hexdigest(),
        open=lambda note, done: _rows(dataset),  # noqa: ARG005 - a loaded data set has nothing to note
    )


def _rows(dataset: Any) -> Iterator[Any]:
    for table in dataset.with_format("arrow").iter(batch_size=_BATCH):
        yield from file_readers.table_rows(table)


def _splits(loaded: Any) -> Mapping[str, Any]:
    """Data sets by split; one that has no splits is under the empty name."""
    return loaded if isinstance(loaded, dict) else {"": loaded}


def _cached(dataset: Any) -> list[Path]:
    return [Path(file["filename"]) for file in dataset.cache_files]


def _from_disk(place: Located) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(place.root))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise UserError(
            f"{place.root} cannot be loaded as a data set that `save_to_disk` wrote: {_said(fault)}"
        ) from None


def _from_hub(place: Located) -> Any:
    import datasets

    owner, name, *config = place.hub.split("/")
    try:
        return datasets.load_dataset(f"{owner}/{name}", *config)
    except (OSError, ValueError, RuntimeError) as fault:
        raise UserError(
            f"{source_files.HUB}{place.hub} cannot be loaded: {_said(fault)} Check the name and the network, or "
            "download it and give its folder as `path:`."
        ) from None


def _said(fault: Exception) -> str:
    text = " ".join(str(fault).split()) or type(fault).__name__
    return text if len(text) <= 300 else text[:299] + "…"
