"""What a file's name says of it: how it is read, what it is compressed with, which split it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from siftune.curation.errors import UserError
from siftune.curation.split_names import split_of_path

FileKind = Literal["json", "jsonl", "csv", "tsv", "parquet", "arrow"]
ENDINGS: Final[dict[str, FileKind]] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSED_ENDINGS: Final = (".gz", ".zst")


def file_kind(path: Path) -> FileKind:
    """How a file is read, by its ending, whatever it is compressed with.

    Raises:
        UserError: files with this ending are not read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_ENDINGS:
        suffixes.pop()
    kind = ENDINGS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise UserError(
            f"{path}: files that end in {(suffixes or ['nothing'])[-1]!r} are not read. "
            f"Accepted endings: {', '.join(ENDINGS)}, each also with {' or '.join(COMPRESSED_ENDINGS)}."
        )
    return kind


def file_stem(path: Path) -> str:
    """The file's name without its ending and without the ending of its compression."""
    name = path.name
    for endings in (COMPRESSED_ENDINGS, tuple(ENDINGS)):
        for ending in endings:
            if name.lower().endswith(ending):
                name = name[: -len(ending)]
                break
    return name or path.name


def split_in_name(path: Path) -> str | None:
    """The split that a file's name or one of its folders means; `path` is relative to the source."""
    return split_of_path(path.with_name(file_stem(path)))
