"""The rows of the embedded default: which objects are asked about, and in which order.

    python -m siftune.data.rows OUT.jsonl

`python_docs` runs this module in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from siftune.data import python_objects, questions

ROWS = 20_000
#: Relative numbers of rows: by what a Python user asks about, not by who has written the most text. The rows of a
#: missing package are divided among the others.
WEIGHTS = {
    "python": 50, "numpy": 16, "pandas": 16, "polars": 13, "pyarrow": 10, "scipy": 16, "sklearn": 13, "torch": 25,
    "transformers": 10, "datasets": 8, "streamlit": 8, "networkx": 8, "trl": 4, "click": 2, "jinja2": 2, "pydantic": 2,
    "requests": 2, "rich": 2,
}  # fmt: skip


def rows() -> Iterator[questions.QuestionRow]:
    """The rows, package after package.

    Objects of a package are drawn in the order of a hash of their names until the package has its number of rows, so
    that an object and all its copies have the same chance; all questions about an object are kept together. The objects
    drawn are then listed by name.
    """
    packages = python_objects.installed()
    total = sum(WEIGHTS[name] for name in packages)
    for package in packages:
        quota = round(ROWS * WEIGHTS[package] / total)
        rows_of: dict[str, list[questions.QuestionRow]] = _topics() if package == "python" else {}
        count = sum(map(len, rows_of.values()))
        for item in sorted(python_objects.walk(package), key=lambda item: _name_hash(item.path)):
            if count >= quota:
                break
            rows_of[item.path] = questions.questions(python_objects.document(item))
            count += len(rows_of[item.path])
        for path in sorted(rows_of):
            yield from rows_of[path]


def _topics() -> dict[str, list[questions.QuestionRow]]:
    from pydoc_data.topics import topics

    return {f"help: {name}": questions.topic_questions(name, topics[name]) for name in sorted(topics)}


def _name_hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def write(path: Path) -> None:
    """Write the rows to `path` as JSON lines."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
