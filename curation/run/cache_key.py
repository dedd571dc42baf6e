"""Cache keys: the same inputs and settings give the same key, so a stored measure is found and not taken again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import polars as pl

#: Raised whenever a measure would give another result for the same inputs.
MEASURES = 6


def measure_key(name: str, settings: dict[str, Any], *parents: str) -> str:
    """The cache key of a measure, a hex SHA-256.

    Args:
        name: the measure.
        settings: everything that its result depends on besides its input.
        parents: the cache keys of what it reads.
    """
    document = json.dumps([MEASURES, name, settings, parents], sort_keys=True, default=list)
    return hashlib.sha256(document.encode()).hexdigest()


def rows_key(ids: pl.Series) -> str:
    """The cache key of the rows with these ids, in order; a hex SHA-256."""
    digest = hashlib.sha256()
    for start in range(0, len(ids), 100_000):
        digest.update("\n".join(ids[start : start + 100_000]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
