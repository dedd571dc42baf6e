"""Atomic writes: to a temporary name, then renamed, so that no reader ever sees half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil

from siftune.curation.checksums import checksum, checksum_path

#: How the temporary names end; before it stands the id of the process that writes.
PARTIAL = ".partial"
_ROW_GROUP = 50_000


def write_parquet(frame: pl.DataFrame, path: Path, *, checked: bool = False) -> None:
    """Write `frame` to `path` in one step: either the whole file is there or the old one still is.

    Args:
        frame: what is written.
        path: the file.
        checked: keep a checksum beside it; see `siftune.curation.checksums`.
    """
    with replacing(path, checked=checked) as temporary:
        frame.write_parquet(temporary, compression="zstd", row_group_size=_ROW_GROUP)


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path` as UTF-8 in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(document: object, path: Path) -> None:
    """Write `document` to `path` as indented JSON in one step."""
    write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", path)


@contextmanager
def replacing(path: Path, *, checked: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and goes when it does not.

    Args:
        path: the file that is replaced.
        checked: keep a checksum beside it; see `siftune.curation.checksums`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield temporary
        if checked:
            write_text(checksum(temporary), checksum_path(path))
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace is the same call; the intent reads better
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files below `folder` of processes that were killed; those of other living ones stay."""
    for leftover in folder.rglob(f".*{PARTIAL}"):
        writer = leftover.name.removesuffix(PARTIAL).rpartition(".")[2]
        if writer == str(os.getpid()) or not (writer.isdigit() and psutil.pid_exists(int(writer))):
            leftover.unlink(missing_ok=True)
