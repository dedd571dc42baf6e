"""Where the rows of a source are: a file, a folder, a glob, a folder of `save_to_disk`, or a hub data set."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.ingest.file_kinds import ENDINGS, file_kind, file_stem
from siftune.curation.run.paths import RunPaths

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
        url: The address of the folder that `root` stands for, where the files are in an object store.
    """

    kind: Literal["files", "disk", "hub"]
    name: str
    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()
    several: bool = False
    hub: str = ""
    url: str = ""


def locate(path: str, *, base: Path, what: str = "source") -> SourceLocation:
    """Find the files or the data set that `path` (relative to `base`) names; `what` is its name in error messages.

    Raises:
        UserError: nothing is there, nothing matches the glob, or files with this ending are not read.
    """
    if path.startswith(HUB):
        return _locate_hub(path, base)
    if address := re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        raise UserError(
            f"{path} is an address ({address[0]}), and a {what} is a file, a folder, a glob or {HUB}owner/name. "
            "Download it and give the path of the file."
        )
    try:
        full_path = base / Path(path).expanduser()
        full_path.stat()
    except FileNotFoundError:
        pass  # a glob, a link to nothing, or a mistake
    except (ValueError, RuntimeError) as fault:  # a NUL character; `~name` of a user whom the system does not know
        raise UserError(
            f"{path!r} cannot be the path of a {what}: {fault}. Give the path of a file or a folder."
        ) from None
    except OSError as fault:
        if fault.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path[:80]}… cannot be the path of a {what}: it is too long for the system.") from None
    location = _locate_path(path, full_path, what)
    if endless := next((file for file in location.files if not file.is_file()), None):
        raise UserError(
            f"{path}: {endless.name} is a pipe, a socket or a device, and the data are read more than once. Write "
            "them into a file."
        )
    return location


def _locate_path(path: str, full_path: Path, what: str) -> SourceLocation:
    if full_path.is_dir():
        return _locate_folder(path, full_path)
    if full_path.exists():
        file_kind(full_path)
        return SourceLocation("files", file_stem(full_path), full_path.parent, (full_path,))
    if full_path.is_symlink():
        _raise_for_dangling_links(path, [full_path])
    is_through_file = any(parent.is_file() for parent in full_path.parents)
    if glob.has_magic(path) and not is_through_file:
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
    if is_run_folder(folder):
        raise UserError(
            f"The folder {path} is a run of siftune, and a run is no source. Give the folder of the data, or "
            f"{path.rstrip('/')}/curated for the rows that the run kept."
        )
    visible = _visible_files(folder)
    _raise_for_dangling_links(path, visible)
    files = tuple(file for file in visible if holds_rows(file))
    if not files:
        names = ", ".join(file.name for file in visible[:5]) or "nothing"
        raise UserError(
            f"The folder {path} holds no file that can be read (found: {names}). "
            f"Accepted endings: {', '.join(ENDINGS)}."
        )
    skipped = tuple(file for file in visible if file not in set(files))
    return SourceLocation("files", name, folder, files, skipped, several=True)


def is_run_folder(folder: Path) -> bool:
    """Whether siftune made a folder for a run; its files are results, not data."""
    run = RunPaths(folder)
    return run.manifest_path.is_file() and (
        run.recipe_path.is_file() or run.ledger_path.is_file() or (folder / ".lock").is_file()
    )


def _visible_files(folder: Path) -> list[Path]:
    """The files in a folder, also behind links to folders, without hidden ones and without those of runs."""
    files: list[Path] = []
    visited: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(root))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(Path(root, name)) not in visited
            and not is_run_folder(Path(root, name))
        ]
        paths = [Path(root, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.is_file() or path.is_symlink()]
    return sorted(files)


def _raise_for_dangling_links(path: str, files: Sequence[Path]) -> None:
    """Raise for links to what is not there, since rows would be missing without a word."""
    dangling = [file for file in files if not file.exists() and (_has_ending(file) or not file.suffix)]
    if not dangling:
        return
    named = ", ".join(f"{file.name} -> {file.readlink()}" for file in dangling[:5])
    more = f" and {len(dangling) - 5} more" if len(dangling) > 5 else ""
    raise UserError(
        f"{path}: {len(dangling)} links lead to files that do not exist: {named}{more}. Fetch these files (for a "
        "snapshot of the hub, download it again), or remove the links."
    )


def _locate_glob(path: str, pattern: Path) -> SourceLocation:
    # The longest folder that exists is no pattern, whatever brackets its name has; the last part names files.
    fixed = Path(pattern.anchor)
    parts = pattern.parts[1:] if pattern.anchor else pattern.parts
    depth = 0
    while depth < len(parts) - 1 and (fixed / parts[depth]).is_dir():
        fixed, depth = fixed / parts[depth], depth + 1
    names = glob.glob("/".join(parts[depth:]), root_dir=fixed, recursive=True)  # noqa: PTH207 - also hidden names as the shell does
    # A link to a folder above itself gives the same files under ever longer names.
    matches = list(
        {
            (file.parent.resolve(), file.name): file for file in (fixed / name for name in sorted(names, reverse=True))
        }.values()
    )[::-1]
    _raise_for_dangling_links(path, matches)
    files = tuple(file for file in matches if file.is_file() and holds_rows(file) and not _is_in_run(file, fixed))
    if not files:
        reason = f"none of the {len(matches)} files that it matches can be read" if matches else "nothing matches it"
        raise UserError(
            f"The glob {path} gives no file: {reason}. {_contents(fixed)} Accepted endings: {', '.join(ENDINGS)}."
        )
    return SourceLocation("files", fixed.resolve().name, fixed, files, several=True)


def _is_in_run(file: Path, root: Path) -> bool:
    """Whether a folder between `root` and a file of it is a run."""
    folders = file.relative_to(root).parents
    return any(is_run_folder(root / folder) for folder in folders if str(folder) != ".")


def holds_rows(file: Path) -> bool:
    """Whether a file of a folder is one of rows, by its name."""
    return _has_ending(file) and file.name not in _METADATA


def _has_ending(file: Path) -> bool:
    try:
        file_kind(file)
    except UserError:
        return False
    return True


def _missing_message(what: str, path: str, full_path: Path) -> str:
    folder = full_path.parent
    above = next((parent for parent in full_path.parents if parent.exists()), folder)
    if above.is_file():
        return f"There is no {what} at {path}: {above} is a file, not a folder. Give the path of the file itself."
    if folder.is_dir():
        hint = did_you_mean(full_path.name, [entry.name for entry in folder.iterdir()])
        return f"There is no {what} at {path}.{hint} {_contents(folder.resolve())}"
    return f"There is no {what} at {path}: the folder {folder.absolute()} does not exist."


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{folder} holds: {', '.join(names[:8]) or 'nothing'}{more}."
