"""Where the rows of a source are: a file, a folder, a glob, a folder of `save_to_disk`, or a hub data set."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.ingest.file_kinds import ENDINGS, file_kind, file_stem

HUB = "hf://"
_SAVED_TO_DISK = ("dataset_dict.json", "state.json")
_METADATA = {"dataset_info.json", "dataset_infos.json", *_SAVED_TO_DISK}


@dataclass(frozen=True)
class SourceLocation:
    """Where the rows of a source are.

    Attributes:
        kind: `files`; `disk`, a folder that `save_to_disk` of the library datasets wrote; or `hub`.
        name: The name of the source.
        root: The folder that the names of files are relative to.
        files: The files in order; none for `hub`.
        skipped: Files of the folder that hold no rows.
        several: Whether the user named a folder or a glob.
        hub: owner/name or owner/name/config.
    """

    kind: Literal["files", "disk", "hub"]
    name: str
    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()
    several: bool = False
    hub: str = ""


def locate(path: str, *, base: Path, what: str = "source") -> SourceLocation:
    """Find the files or the data set that `path` (relative to `base`) names; `what` is its name in error messages.

    Raises:
        UserError: nothing is there, nothing matches the glob, or files with this ending are not read.
    """
    if path.startswith(HUB):
        return _locate_hub(path, base)
    full_path = base / Path(path).expanduser()
    if full_path.is_dir():
        return _locate_folder(path, full_path)
    if full_path.exists():
        file_kind(full_path)
        return SourceLocation("files", file_stem(full_path), full_path.parent, (full_path,))
    if glob.has_magic(path):
        return _locate_glob(path, full_path)
    raise UserError(_missing_message(what, path, full_path))


def _locate_hub(path: str, base: Path) -> SourceLocation:
    parts = path.removeprefix(HUB).strip("/").split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UserError(f"{path}: a hub data set is written hf://owner/name or hf://owner/name/config.")
    return SourceLocation("hub", parts[1], base, (), hub="/".join(parts))


def _locate_folder(path: str, folder: Path) -> SourceLocation:
    name = folder.resolve().name
    if any((folder / mark).is_file() for mark in _SAVED_TO_DISK):
        return SourceLocation("disk", name, folder, tuple(sorted(folder.rglob("*.arrow"))))
    visible = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    files = tuple(file for file in visible if _holds_rows(file))
    if not files:
        names = ", ".join(file.name for file in visible[:5]) or "nothing"
        raise UserError(
            f"The folder {path} holds no file that can be read (found: {names}). "
            f"Accepted endings: {', '.join(ENDINGS)}."
        )
    skipped = tuple(file for file in visible if file not in set(files))
    return SourceLocation("files", name, folder, files, skipped, several=True)


def _locate_glob(path: str, pattern: Path) -> SourceLocation:
    matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)) if Path(name).is_file()]  # noqa: PTH207 - absolute patterns too
    files = tuple(file for file in matches if _holds_rows(file))
    # The longest folder without a wildcard; the last part of the pattern names files.
    parts = pattern.parts[:-1]
    fixed = Path(*parts[: next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))])
    if not files:
        reason = f"none of the {len(matches)} files that it matches can be read" if matches else "nothing matches it"
        raise UserError(
            f"The glob {path} gives no file: {reason}. {_contents(fixed)} Accepted endings: {', '.join(ENDINGS)}."
        )
    return SourceLocation("files", fixed.resolve().name, fixed, files, several=True)


def _holds_rows(file: Path) -> bool:
    try:
        file_kind(file)
    except UserError:
        return False
    return file.name not in _METADATA


def _missing_message(what: str, path: str, full_path: Path) -> str:
    folder = full_path.parent
    if folder.is_dir():
        hint = did_you_mean(full_path.name, [entry.name for entry in folder.iterdir()])
        return f"There is no {what} at {path}.{hint} Paths are relative to the recipe. {_contents(folder.resolve())}"
    return f"There is no {what} at {path}: the folder {folder} does not exist. Paths are relative to the recipe."


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{folder} holds: {', '.join(names[:8]) or 'nothing'}{more}."
