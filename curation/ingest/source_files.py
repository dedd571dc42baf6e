"""The files of a source: found, told apart by their endings, hashed, and opened whether they are compressed or not."""

from __future__ import annotations

import glob
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zstandard

from siftune.curation.errors import UserError, did_you_mean

Kind = Literal["json", "jsonl", "csv", "tsv", "parquet", "arrow"]
ENDINGS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSIONS = (".gz", ".zst")
HUB = "hf://"
_DISK_MARKS = ("dataset_dict.json", "state.json")
_NOT_ROWS = {"dataset_info.json", "dataset_infos.json", *_DISK_MARKS}
_MAGIC: dict[bytes, str] = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_CHUNK = 1 << 18  # compressed bytes at a time; a piece of this size is inflated in one go

Note = Callable[[str], None]


@dataclass(frozen=True)
class Located:
    """Where the rows of a source are: files in order, a folder of `save_to_disk`, or a hub name.

    `root` is what the files' names are relative to; `several` says that the user named a folder or a glob.
    """

    kind: Literal["files", "disk", "hub"]
    name: str
    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()
    several: bool = False
    hub: str = ""


def locate(path: str, *, base: Path, what: str = "source") -> Located:
    """Find what `path` (relative to `base`) names.

    Raises:
        UserError: nothing is there, nothing matches the glob, or the file is of a kind that is not read.
    """
    if path.startswith(HUB):
        return _hub(path, base)
    whole = base / Path(path).expanduser()
    if whole.is_dir():
        return _folder(path, whole)
    if whole.exists():
        kind_of(whole)
        return Located("files", stem(whole), whole.parent, (whole,))
    if glob.has_magic(path):
        return _matching(path, whole)
    raise UserError(_missing(what, path, whole))


def kind_of(path: Path) -> Kind:
    """What a file is by its ending, whatever it is compressed with. Raises `UserError` for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    kind = ENDINGS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise UserError(
            f"{path}: files that end in {(suffixes or ['nothing'])[-1]!r} are not read. "
            f"Accepted endings: {', '.join(ENDINGS)}, each also with {' or '.join(COMPRESSIONS)}."
        )
    return kind


def stem(path: Path) -> str:
    """The file's name without its ending and without what it is compressed with."""
    name = path.name
    for endings in (COMPRESSIONS, tuple(ENDINGS)):
        for ending in endings:
            if name.lower().endswith(ending):
                name = name[: -len(ending)]
                break
    return name or path.name


def split_in_name(path: Path) -> str | None:
    """The split that a file's name begins with (train-00000-of-00002.parquet, test.jsonl), normalised."""
    found = re.match(r"(train|training|test|validation|valid|val|dev|eval)(?=[-_.]|$)", stem(path).lower())
    return normal_split(found.group(1)) if found else None


def normal_split(name: str) -> str:
    """The usual spelling of a split's name: val, dev and valid are `validation`; other names stay as they are."""
    usual = {"training": "train", "val": "validation", "dev": "validation", "valid": "validation", "eval": "test"}
    word = name.strip().lower()
    return usual.get(word, word if word in ("train", "test", "validation") else name)


def sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compression(path: Path) -> str | None:
    """What the file is compressed with, by its first bytes: names lie.

    Raises:
        UserError: it is named as compressed and is not.
    """
    with path.open("rb") as file:
        head = file.read(4)
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if found is None and path.suffix.lower() in COMPRESSIONS and head:
        raise UserError(f"{path} is named {path.suffix} but is not compressed with it. Rename it, or make it again.")
    return found


def chunks(path: Path, *, note: Note, done: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The content of a file, decompressed, in pieces. What can be read of a damaged file is given.

    Args:
        path: The file.
        note: Is told when the compressed file ends too early or is damaged.
        done: Is told how many bytes were read from disk with each piece.
    """
    packed = compression(path)
    with path.open("rb") as file:
        raw = _reported(iter(lambda: file.read(_CHUNK), b""), done)
        yield from raw if packed is None else _unpacked(raw, packed, note)


def _reported(pieces: Iterator[bytes], done: Callable[[int], None] | None) -> Iterator[bytes]:
    for piece in pieces:
        if done is not None:
            done(len(piece))
        yield piece


def _unpacked(pieces: Iterator[bytes], packed: str, note: Note) -> Iterator[bytes]:
    """Decompress members (gzip) or frames (zstd), one after the other as both formats allow."""
    fresh = _new(packed)
    inflate = fresh
    try:
        for piece in pieces:
            rest = piece
            while rest:
                yield inflate.decompress(rest)
                rest = inflate.unused_data if inflate.eof else b""
                if inflate.eof:
                    inflate = fresh = _new(packed)
                    rest = rest.lstrip(b"\0")  # archives may be padded with zeros
                else:
                    fresh = None
    except (zlib.error, zstandard.ZstdError) as fault:
        note(f"the {packed} file is damaged ({fault}); what follows the damage was lost")
        return
    if inflate is not fresh:
        note(f"the {packed} file is cut in the middle")


def _new(packed: str) -> Any:
    return zlib.decompressobj(wbits=31) if packed == ".gz" else zstandard.ZstdDecompressor().decompressobj()


def _hub(path: str, base: Path) -> Located:
    parts = path.removeprefix(HUB).strip("/").split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UserError(f"{path}: a hub data set is written hf://owner/name or hf://owner/name/config.")
    return Located("hub", parts[1], base, (), hub="/".join(parts))


def _folder(path: str, folder: Path) -> Located:
    name = folder.resolve().name
    if any((folder / mark).is_file() for mark in _DISK_MARKS):
        return Located("disk", name, folder, tuple(sorted(folder.rglob("*.arrow"))))
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    files = tuple(file for file in found if _is_rows(file))
    if not files:
        held = ", ".join(file.name for file in found[:5]) or "nothing"
        raise UserError(f"The folder {path} holds no file that can be read ({held}). Accepted: {', '.join(ENDINGS)}.")
    return Located("files", name, folder, files, tuple(file for file in found if file not in set(files)), several=True)


def _matching(path: str, whole: Path) -> Located:
    found = [Path(name) for name in sorted(glob.glob(str(whole), recursive=True)) if Path(name).is_file()]  # noqa: PTH207 - absolute patterns too
    files = tuple(file for file in found if _is_rows(file))
    fixed = Path(*_until(whole.parts))
    if not files:
        what = f"of the {len(found)} files it matches none is of a kind that is read" if found else "nothing matches it"
        raise UserError(f"The glob {path} gives no file: {what}. {_holds(fixed)}")
    return Located("files", fixed.resolve().name, fixed, files, several=True)


def _until(parts: tuple[str, ...]) -> list[str]:
    fixed = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return fixed


def _is_rows(file: Path) -> bool:
    try:
        kind_of(file)
    except UserError:
        return False
    return file.name not in _NOT_ROWS


def _missing(what: str, path: str, whole: Path) -> str:
    if whole.parent.is_dir():
        names = [entry.name for entry in whole.parent.iterdir()]
        hint = did_you_mean(whole.name, names)
        return f"There is no {what} at {path}.{hint} Paths are relative to the recipe. {_holds(whole.parent.resolve())}"
    return f"There is no {what} at {path}: the folder {whole.parent} does not exist. Paths are relative to the recipe."


def _holds(folder: Path) -> str:
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{folder} holds: {', '.join(names[:8]) or 'nothing'}{more}."
