"""The quiz of the embedded default, about objects that none of its rows asks about.

    python -m siftune.data.python_quiz ROWS.jsonl

writes `python_quiz.jsonl` beside ROWS.jsonl, which `python_docs` built. Deterministic for the same rows and installed
versions: `python_quiz.jsonl.json` records them, and a second call does nothing.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # As in `python_docs`: a user's own json.py in the present folder is not the one we mean.
    del sys.path[0]

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from siftune.curation.atomic_files import write_json
from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.data import docstrings, python_objects, quiz_items
from siftune.data.python_docs import versions, write_isolated

_NAME = "python_quiz.jsonl"


def write_quiz(rows: Path, out: Path) -> None:
    """Write the quiz beside `rows` to `out`. Raises `UserError` like `write_isolated`."""
    write_isolated("siftune.data.quiz_items", [str(rows.resolve())], out)


def build(rows: Path, *, write: Callable[[Path, Path], None] = write_quiz) -> Path:
    """Have the quiz written beside `rows` by `write`, unless it is there; returns its path.

    Raises:
        UserError: there are no rows, or the documentation could not be read.
    """
    if not rows.is_file():
        raise UserError(f"There is no {rows}. Build the rows first: python -m siftune.data.python_docs {rows}")
    out = rows.with_name(_NAME)
    key = {"rows": file_sha256(rows), "versions": versions(), "builder": _builder_hash()}
    sidecar = out.with_name(f"{_NAME}.json")
    try:
        if out.is_file() and json.loads(sidecar.read_bytes()) == {"key": key, "sha256": file_sha256(out)}:
            return out
    except (OSError, ValueError):
        pass  # no record of the last build, or a damaged one
    write(rows, out)
    write_json({"key": key, "sha256": file_sha256(out)}, sidecar)
    return out


def _builder_hash() -> str:
    names = sorted(Path(module.__file__ or "") for module in (docstrings, python_objects, quiz_items))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in names), digest_size=8).hexdigest()


def main(arguments: list[str]) -> int:
    """The command line: one path; prints one line. Returns the exit code, 2 for an error of the user."""
    if len(arguments) != 1 or not arguments[0].endswith(".jsonl"):
        print(
            f"Arguments found: {' '.join(arguments) or 'none'}. Usage: python -m siftune.data.python_quiz ROWS.jsonl",
            file=sys.stderr,
        )
        return 2
    try:
        out = build(Path(arguments[0]))
    except UserError as fault:
        print(fault, file=sys.stderr)
        return 2
    print(f"{len(out.read_bytes().splitlines()):,} questions in {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
