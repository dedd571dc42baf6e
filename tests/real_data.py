"""The real data sets beside the checkout, for the tests on real sets and for the benchmarks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

#: Instruction sets, benchmarks and labelled pairs. They are not part of the repository.
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def read_text(path: Path) -> str:
    """The text of a file, which may be compressed (.gz)."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; empty lines are left out."""
    return [json.loads(line) for line in read_text(path).split("\n") if line.strip()]
