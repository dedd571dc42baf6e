"""Content addresses: the same inputs and settings give the same name, so a measure is found instead of retaken."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import polars as pl

#: Raised whenever a measure would give another result for the same inputs.
MEASURES = 3


def of(name: str, settings: dict[str, Any], *parents: str) -> str:
    """The address (hex SHA-256) of a measure: its name, what it depends on, and the addresses of what it reads."""
    document = json.dumps([MEASURES, name, settings, parents], sort_keys=True, default=list)
    return hashlib.sha256(document.encode()).hexdigest()


def of_ids(ids: pl.Series) -> str:
    """The address of a set of rows, in order."""
    digest = hashlib.sha256()
    for start in range(0, len(ids), 100_000):
        digest.update("\n".join(ids[start : start + 100_000]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
