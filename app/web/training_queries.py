"""What training and comparison left in the run folder, ready to draw; nothing here knows Streamlit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import arm_sort_key
from siftune.training.evaluation.verdict_report import length_range
from siftune.training.jobs import DONE, LOG, LOG_COLUMNS, TRUNCATED


def verdict(run: RunFolder) -> dict[str, Any] | None:
    """What `siftune compare` wrote (`siftune.training.evaluation.verdict.Verdict`), or None before it did."""
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
    return sorted(found, key=lambda each: (arm_sort_key(each[0]), each[1]))


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


def sentence(said: dict[str, Any]) -> str:
    """The verdict in one sentence, from the declared comparisons."""
    declared = [each for each in said["comparisons"] if each["declared"]]
    if not declared:
        return str(said["headline"])
    arm = str(declared[0]["arm"])
    clear = [f"{each['word']} than {each['against']}" for each in declared if each["word"] in ("better", "worse")]
    others = " or ".join(str(each["against"]) for each in declared if each["word"] not in ("better", "worse"))
    if not clear:
        return f"Not enough evidence that {arm} is better or worse than {others} on held-out loss."
    told = f"On held-out loss, {arm} is {' and '.join(clear)}"
    return f"{told}; against {others} there is not enough evidence." if others else f"{told}."


def plotted_stratum(stratum: dict[str, Any]) -> dict[str, Any] | None:
    """A stratum as a line of the interval plot; None where no interval could be had."""
    kinds = {"source": "source: ", "leaked": "twin in raw: ", "length_bin": ""}
    value = {"True": "yes", "False": "no"}.get(stratum["value"], stratum["value"])
    if stratum["column"] == "length_bin":
        value = length_range(value)
    kind = kinds.get(stratum["column"], f"{stratum['column']}: ")
    name = f"{kind}{value} ({stratum['difference']['rows']:,} rows)"
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


#: What the curves can be drawn over, and the column of the log.
AXES = {"steps": "step", "tokens": "tokens", "minutes": "minutes"}


def finished(folder: Path) -> bool:
    """Whether the training in this folder has come to its end."""
    return (folder / DONE).is_file()


def _log(folder: Path) -> pl.DataFrame:
    path = folder / LOG
    return pl.read_parquet(path) if path.is_file() else pl.DataFrame(schema=LOG_COLUMNS)


def logs(run: RunFolder) -> pl.DataFrame:
    """LOG_COLUMNS of every arm and seed, with arm, seed, minutes and tokens_per_second (between two steps)."""
    frames = []
    for arm, seed, folder in trained(run):
        rate = pl.col("tokens").diff().fill_null(pl.col("tokens")) / pl.col("seconds").diff().fill_null(
            pl.col("seconds")
        )
        named = (pl.lit(arm).alias("arm"), pl.lit(seed).alias("seed"), (pl.col("seconds") / 60).alias("minutes"))
        frames.append(_log(folder).with_columns(*named, rate.alias("tokens_per_second")))
    return pl.concat(frames)


def progress(run: RunFolder) -> list[tuple[object, ...]]:
    """One line an arm and seed: state, steps, trained tokens, minutes, last loss, truncated rows."""
    lines: list[tuple[object, ...]] = []
    for arm, seed, folder in trained(run):
        log, done = _log(folder), read_json(folder / DONE)
        last = log.row(-1, named=True) if log.height else None
        cut = folder / TRUNCATED
        lines.append(
            (
                arm,
                seed,
                "done" if done else "training" if last else "starting",
                last["step"] if last else 0,
                f"{last['tokens']:,}" if last else "—",
                f"{last['seconds'] / 60:.1f}" if last else "—",
                f"{last['loss']:.3f}" if last else "—",
                f"{pl.scan_parquet(cut).select(pl.len()).collect().item():,}" if cut.is_file() else "—",
            )
        )
    return lines


def settings(run: RunFolder) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Arms and seeds, and for each setting its values in that order, as done.json and the recipe tell them."""
    begun = trained(run)
    told = [_flat(read_json(folder / DONE) or {}) for _, _, folder in begun]
    names = sorted({name for each in told for name in each if not name.startswith(_RESULTS)})
    lines = [(name, [str(each.get(name, "—")) for each in told]) for name in names]
    # Versions and machine matter only where the arms do not share them.
    rows = [(n, v) for n, v in lines if not n.startswith(("versions.", "load.")) or len(set(v)) > 1]
    asked = run.recipe.training
    own = {} if asked is None else _flat(asked.model_dump(exclude={"arms", "seeds", "report_to"}, exclude_none=True))
    recipe = [(name, [str(value)] * len(begun)) for name, value in own.items() if name not in names]
    every = [(re.sub(r"[._]", " ", name), values) for name, values in [*recipe, *rows]]
    # What the arms do not share is what one looks for.
    every.sort(key=lambda line: len(set(line[1])) == 1)
    return [f"{arm}, seed {seed}" for arm, seed, _ in begun], every


#: Of done.json what stands in the table of progress already, or says nothing to a reader.
_RESULTS = (
    *(
        "arm",
        "seed",
        "key",
        "steps",
        "tokens",
        "seconds",
        "minutes",
        "truncated_rows",
        "last_loss",
        "memory",
        "planned",
    ),
    *("epochs", "threads"),
)


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or len(value) < 12:
            found[f"{prefix}{name}"] = value[:12] if isinstance(value, str) and len(value) >= 64 else value
    return found


def example_id(run: RunFolder) -> str:
    """The id of a row that is trained on."""
    for path in sorted((run.path / "arms").glob("*.parquet")):
        ids = pl.scan_parquet(path).select("id").head(1).collect()
        if ids.height:
            return str(ids.item())
    return "source:0"
