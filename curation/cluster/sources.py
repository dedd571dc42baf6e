"""The files of a recipe's sources: of this machine, of a folder that all nodes share, or in an object store."""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from siftune.curation.cluster.work_folder import open_url
from siftune.curation.errors import UserError
from siftune.curation.ingest.file_kinds import ENDINGS, file_kind, file_stem
from siftune.curation.ingest.source_location import HUB, SourceLocation, holds_rows, locate
from siftune.curation.ingest.sources import locate_sources
from siftune.curation.recipe.sections import Source

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def cluster_sources(sources: Sequence[Source], *, base: Path) -> list[SourceLocation]:
    """Where the sources are, under the names that they have on one machine.

    Raises:
        UserError: a source does not exist, cannot be read, or is none of files.
    """
    locations = locate_sources(sources, base=base, find=_locate_anywhere)
    for source, location in zip(sources, locations, strict=True):
        if location.kind != "files":
            raise UserError(
                f"{source.path}: engine ray reads files (a file, a folder, a glob, or an address such as "
                "s3://bucket/folder). Write the data set as Parquet first, or curate with `engine: local`."
            )
    return locations


def _locate_anywhere(path: str, *, base: Path) -> SourceLocation:
    if path.startswith(HUB) or not _ADDRESS.match(path):
        return locate(path, base=base)
    files, inside = open_url(path)
    try:
        if glob.has_magic(inside):
            root = re.split(r"[*?\[]", inside)[0].rpartition("/")[0]
            names, several = files.glob(inside), True
        elif files.isdir(inside):
            root, names, several = inside.rstrip("/"), files.find(inside), True
        elif files.exists(inside):
            root, names, several = inside.rpartition("/")[0], [inside], False
            file_kind(Path(inside))
        else:
            raise UserError(f"There is no source at {path}.")
    except (OSError, ImportError) as fault:
        raise UserError(f"{path} cannot be reached: {' '.join(str(fault).split())[:300]}") from None
    relative = sorted(PurePosixPath(name).relative_to(root) for name in names)
    visible = [name for name in relative if not any(part.startswith(".") for part in name.parts)]
    chosen = [name for name in visible if holds_rows(Path(name))]
    if not chosen:
        raise UserError(f"{path} gives no file that can be read. Accepted endings: {', '.join(ENDINGS)}.")
    name = PurePosixPath(root).name if several else file_stem(Path(chosen[0]))
    return SourceLocation(
        "files",
        name or "data",
        Path("/"),
        tuple(Path("/", file) for file in chosen),
        tuple(Path("/", file) for file in visible if file not in set(chosen)) if several else (),
        several=several,
        url=files.unstrip_protocol(root),
    )


@contextmanager
def local_file(location: SourceLocation, file: Path) -> Iterator[tuple[Path, Path]]:
    """The root and the path of a file of a source on this machine; a copy, while the block runs, where it is remote."""
    if not location.url:
        yield location.root, file
        return
    files, root = open_url(location.url)
    relative = file.relative_to(location.root)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(f"{root.rstrip('/')}/{relative.as_posix()}", str(copy))
        yield Path(scratch), copy


def file_version(location: SourceLocation, file: Path) -> str:
    """What changes when a file does: its size and time, or what an object store says of it."""
    if not location.url:
        facts = file.stat()
        return f"{facts.st_size} {facts.st_mtime_ns}"
    files, root = open_url(location.url)
    return str(files.ukey(f"{root.rstrip('/')}/{file.relative_to(location.root).as_posix()}"))
