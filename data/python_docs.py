"""The embedded default: question–answer rows from the documentation that every Python machine already holds.

    python -m siftune.data.python_docs OUT.jsonl

Deterministic for the same installed versions: `OUT.jsonl.json` beside the file records them, and a second call does
nothing.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` puts the present folder first on the module path; a user's own json.py there is not the one we mean.
    del sys.path[0]

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siftune.curation.atomic_files import write_text
from siftune.curation.child_process import module_command, module_environment
from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.data import docstrings, python_objects, questions
from siftune.data import rows as rows_module

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_TIMEOUT = 300  # seconds


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What was built.

    Attributes:
        path: The file.
        rows: Its rows.
        answers: Its distinct answers.
        versions: The version of each package that was read.
        seconds: How long it took.
        fresh: False when the file was already there.
    """

    path: Path
    rows: int
    answers: int
    versions: dict[str, str]
    seconds: float
    fresh: bool


def write_rows(out: Path) -> None:
    """Write the rows to `out` as JSON lines. Raises `UserError` like `write_isolated`."""
    write_isolated("siftune.data.rows", [], out)


def write_isolated(module: str, arguments: Sequence[str], out: Path) -> None:
    """Have `module` write `out`, in a process of its own, as `python -m MODULE ARGUMENTS OUT`.

    That process imports much, and its hash seed is fixed, because docstrings may quote the order of a set.

    Raises:
        UserError: the documentation could not be read, or not in five minutes.
    """
    variables = {
        "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", "COLUMNS": "80", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "DISPLAY": "",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        fresh = Path(folder) / out.name
        command = module_command(module, *arguments, str(fresh.resolve()))
        try:
            result = subprocess.run(  # noqa: S603 (our own interpreter, our own module)
                command, env={**module_environment(), **variables}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            message = f"reading the documentation took longer than {_TIMEOUT} s; try again when the machine is idle"
            raise UserError(message) from None
        if result.returncode:
            raise UserError(f"reading the documentation failed: {result.stderr.strip()[-500:]}")
        fresh.replace(out)


def build(out: Path, *, write: Callable[[Path], None] = write_rows) -> BuildResult:
    """Have the rows written to `out` by `write`, unless it already holds what these versions give.

    Raises:
        UserError: `out` cannot be written, or the documentation could not be read.
    """
    start = time.perf_counter()
    installed = versions()
    key = {"versions": installed, "builder": _builder_hash()}
    sidecar = out.with_name(out.name + ".json")
    stored = _read_sidecar(sidecar)
    if stored.get("key") == key and out.is_file() and stored.get("sha256") == file_sha256(out):
        counts = {"rows": stored["rows"], "answers": stored["answers"]}
        return BuildResult(path=out, **counts, versions=installed, seconds=time.perf_counter() - start, fresh=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(out)
    except OSError as fault:
        raise UserError(f"{out} cannot be written: {fault}. Give a path in a folder of yours.") from None
    lines = [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
    counts = {"rows": len(lines), "answers": len({line["output"] for line in lines})}
    record = {"key": key, **counts, "sha256": file_sha256(out)}
    write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", sidecar)
    return BuildResult(path=out, **counts, versions=installed, seconds=time.perf_counter() - start, fresh=True)


def versions() -> dict[str, str]:
    """The version of Python and of every package that is read, sorted by name; packages not installed are absent."""
    names = [name for name in python_objects.installed() if name != "python"]
    packages = {name: importlib.metadata.version(_DISTRIBUTIONS.get(name, name)) for name in names}
    return dict(sorted({"python": platform.python_version(), **packages}.items()))


def _builder_hash() -> str:
    names = sorted(Path(module.__file__ or "") for module in (docstrings, python_objects, questions, rows_module))
    sources = b"".join(path.read_bytes() for path in [*names, Path(__file__)])
    return hashlib.blake2b(sources, digest_size=8).hexdigest()


def _read_sidecar(path: Path) -> dict[str, Any]:
    """What was recorded of the last build; nothing where the record is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def main(arguments: list[str]) -> int:
    """The command line: one path; prints one line. Returns the exit code, 2 for an error of the user."""
    if len(arguments) != 1 or arguments[0].startswith("-") or not arguments[0].endswith(".jsonl"):
        print(
            f"Arguments found: {' '.join(arguments) or 'none'}. Usage: python -m siftune.data.python_docs OUT.jsonl",
            file=sys.stderr,
        )
        return 2
    try:
        built = build(Path(arguments[0]))
    except UserError as fault:
        print(fault, file=sys.stderr)
        return 2
    packages = ", ".join(f"{name} {version}" for name, version in built.versions.items())
    state = "" if built.fresh else " (up to date)"
    print(f"{built.rows:,} rows, {built.answers:,} distinct answers from {packages} in {built.seconds:.1f} s{state}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
