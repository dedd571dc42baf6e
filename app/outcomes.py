"""What training and comparison left in the run folder, ready to draw; nothing here knows Streamlit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curation.runfolder import RunFolder
from training.judged import arm_place


def verdict(run: RunFolder) -> dict[str, Any] | None:
    """What `siftune compare` wrote (`training.verdict.Verdict`), or None before it did."""
    return read_json(run.path / "verdict.json")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none (yet)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def trained(run: RunFolder) -> list[tuple[str, int, Path]]:
    """Arms and seeds whose training has begun, with their folders."""
    found = []
    for folder in (run.path / "training").glob("*/seed-*"):
        number = folder.name.removeprefix("seed-")
        if folder.is_dir() and number.isdigit():
            found.append((folder.parent.name, int(number), folder))
    return sorted(found, key=lambda each: (arm_place(each[0]), each[1]))


def what_next(run: RunFolder) -> str:
    """Which command brings this run to where the page has something to show."""
    if not (run.path / "arms" / "curated.parquet").is_file():
        return f"The arms of this run are not there yet. Curate first:\n\n    siftune curate {run.path / 'recipe.yaml'}"
    if not any((folder / "done.json").is_file() for _, _, folder in trained(run)):
        return f"No arm of this run is trained yet. Train them:\n\n    siftune train {run.path}"
    return f"The arms are trained but not compared yet. Compare them:\n\n    siftune compare {run.path}"


def plotted(comparison: dict[str, Any]) -> dict[str, Any] | None:
    """A comparison as a line of the interval plot; None where no interval could be had."""
    return _plotted(f"{comparison['arm']} − {comparison['against']}", comparison["difference"]["per_token"])


def plotted_stratum(stratum: dict[str, Any]) -> dict[str, Any] | None:
    """A stratum as a line of the interval plot; None where no interval could be had."""
    kinds = {"length_bin": "answer length", "source": "source", "leaked": "twin in raw"}
    name = f"{kinds.get(stratum['column'], stratum['column'])}: {stratum['value']} ({stratum['difference']['rows']:,})"
    return _plotted(name, stratum["difference"]["per_token"])


def _plotted(name: str, each: dict[str, Any]) -> dict[str, Any] | None:
    if each["low"] is None or each["high"] is None:
        return None
    return {"name": name, "low": each["low"], "value": each["value"], "high": each["high"]}


def percent(each: dict[str, Any]) -> str:
    """A share with its interval."""
    if each["low"] is None:
        return f"{each['value']:.0%}"
    return f"{each['value']:.0%} [{each['low']:.0%}, {each['high']:.0%}]"
