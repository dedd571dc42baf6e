"""The folder of everything that siftune keeps between runs: embeddings and converted models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$SIFTUNE_CACHE` where it is set and not empty (`~` is the home folder), else `~/.cache/siftune`."""
    return Path(os.environ.get("SIFTUNE_CACHE") or "~/.cache/siftune").expanduser()
