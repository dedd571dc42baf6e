"""The embedded default: question–answer rows from the documentation that every Python machine already holds.

    python -m siftune.data.python_docs OUT.jsonl

Deterministic for the same installed versions: a sidecar `OUT.jsonl.json` names them, and a second call does nothing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from siftune.curation.child_process import module_environment
from siftune.curation.errors import UserError
from siftune.data import docstrings, harvest, questions

ROWS = 20_000
#: How the rows are shared out: by what a Python user asks about, not by who has written the most text. What a missing
#: package would have given goes to the others.
WEIGHTS = {
    "python": 50, "numpy": 16, "pandas": 16, "polars": 13, "pyarrow": 10, "scipy": 16, "sklearn": 13, "torch": 25,
    "transformers": 10, "datasets": 8, "streamlit": 8, "networkx": 8, "trl": 4, "click": 2, "jinja2": 2, "pydantic": 2,
    "requests": 2, "rich": 2,
}  # fmt: skip
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Built:
    """What was built: `answers` counts distinct ones, `versions` has one entry a package, `fresh` is false when the
    file was already there."""

    path: Path
    rows: int
    answers: int
    versions: dict[str, str]
    seconds: float
    fresh: bool


def build(out: Path) -> Built:
    """Write the rows to `out` as JSON lines, unless it already holds what these versions give.

    The walk runs in a process of its own: it imports much, and its hash seed is fixed so that no set order shows.

    Raises:
        UserError: `out` cannot be written, or the walk failed.
    """
    start = time.perf_counter()
    found = versions()
    key = {"versions": found, "builder": _builder_hash()}
    sidecar = out.with_name(out.name + ".json")
    known = _read_sidecar(sidecar)
    if known is not None and known.get("key") == key and known.get("sha256") == _file_hash(out):
        counts = {"rows": known["rows"], "answers": known["answers"]}
        return Built(path=out, **counts, versions=found, seconds=time.perf_counter() - start, fresh=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _run_walk(out)
    except OSError as fault:
        raise UserError(f"{out} cannot be written: {fault}. Give a path in a folder of yours.") from None
    lines = [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
    counts = {"rows": len(lines), "answers": len({line["output"] for line in lines})}
    _replace(sidecar, json.dumps({"key": key, **counts, "sha256": _file_hash(out)}, indent=2, sort_keys=True) + "\n")
    return Built(path=out, **counts, versions=found, seconds=time.perf_counter() - start, fresh=True)


def versions() -> dict[str, str]:
    """The version of Python and of every package that is asked, sorted by name; packages not installed are absent."""
    names = [name for name in harvest.installed() if name != "python"]
    found = {name: importlib.metadata.version(_DISTRIBUTIONS.get(name, name)) for name in names}
    return dict(sorted({"python": platform.python_version(), **found}.items()))


def rows() -> Iterator[questions.Row]:
    """The rows, package after package. Within a package objects are drawn by a hash of their names until its share is
    full, and stand in the order of their names; so all questions about an object, and all its twins, have a chance."""
    packages = harvest.installed()
    total = sum(WEIGHTS[name] for name in packages)
    for package in packages:
        share = round(ROWS * WEIGHTS[package] / total)
        drawn: dict[str, list[questions.Row]] = _topics() if package == "python" else {}
        count = sum(map(len, drawn.values()))
        for item in sorted(harvest.walk(package), key=lambda item: _name_hash(item.path)):
            if count >= share:
                break
            drawn[item.path] = questions.questions(harvest.document(item))
            count += len(drawn[item.path])
        for path in sorted(drawn):
            yield from drawn[path]


def _topics() -> dict[str, list[questions.Row]]:
    from pydoc_data.topics import topics

    return {f"help: {name}": questions.topic_questions(name, topics[name]) for name in sorted(topics)}


def _run_walk(out: Path) -> None:
    quiet = {
        "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", "COLUMNS": "80", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "DISPLAY": "",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        fresh = Path(folder) / out.name
        command = [sys.executable, "-P", "-c", f"from siftune.data.python_docs import _write; _write({str(fresh)!r})"]
        try:
            done = subprocess.run(  # noqa: S603 (our own interpreter, our own module)
                command, env={**module_environment(), **quiet}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            message = f"reading the documentation took longer than {_SECONDS} s; try again when the machine is idle"
            raise UserError(message) from None
        if done.returncode:
            raise UserError(f"reading the documentation failed: {done.stderr.strip()[-500:]}")
        fresh.replace(out)


def _write(path: str) -> None:
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows())


def _name_hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _builder_hash() -> str:
    names = sorted(Path(module.__file__ or "") for module in (docstrings, harvest, questions))
    sources = b"".join(path.read_bytes() for path in [*names, Path(__file__)])
    return hashlib.blake2b(sources, digest_size=8).hexdigest()


def _file_hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def main(arguments: list[str]) -> int:
    """The command line: one path; prints one line. Returns the exit code, 2 for a fault of the user."""
    if len(arguments) != 1 or arguments[0].startswith("-") or not arguments[0].endswith(".jsonl"):
        print(
            f"found: {' '.join(arguments) or 'nothing'}. Usage: python -m siftune.data.python_docs OUT.jsonl",
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
