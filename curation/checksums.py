"""Checksums of stored files, kept beside them: a file that was damaged or changed is noticed before it is used.

`.NAME.xxh3` beside the file NAME holds the XXH3 hash of its bytes, as 32 hexadecimal digits. It is written before the
file takes its name: a process that is killed between the two leaves a checksum that fits nothing, never a file that is
taken for whole and is not.
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from pathlib import Path

import xxhash

from siftune.curation.errors import UserError


def checksum_path(path: Path) -> Path:
    """Where the checksum of a file lies."""
    return path.with_name(f".{path.name}.xxh3")


def checksum(path: Path) -> str:
    """The XXH3 hash (128 bits) of a file's bytes, in hexadecimal; it is taken once while the file stays as it is."""
    facts = path.stat()
    return _checksum(path, facts.st_ino, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1024)
def _checksum(path: Path, inode: int, size: int, changed: int) -> str:  # noqa: ARG001 - they tell versions apart
    if not size:  # an empty file cannot be mapped
        return xxhash.xxh3_128_hexdigest(b"")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return xxhash.xxh3_128_hexdigest(content)


def is_whole(path: Path) -> bool:
    """Whether a file is there and holds what was written to it; False where it has no checksum."""
    try:
        return path.is_file() and checksum_path(path).read_text(encoding="ascii") == checksum(path)
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def is_damaged(path: Path) -> bool:
    """Whether a file is there and does not hold what was written to it. One without a checksum, of an earlier version,
    is taken as it is."""
    is_checked = path.is_file() and checksum_path(path).is_file()
    return is_checked and not (is_whole(path) or is_whole(path))  # it may just have been replaced: look twice


def whole(path: Path) -> Path:
    """The path itself. Raises `UserError` when the file is damaged."""
    if not is_damaged(path):
        return path
    raise UserError(
        f"{path} is damaged: it does not hold what was written to it. Delete it and run the command again that made it "
        "(siftune curate, train, compare, prompts or sweep); everything else is reused."
    )
