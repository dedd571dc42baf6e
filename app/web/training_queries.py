"""What training and comparison left in the run folder, as frames and rows for the pages; independent of Streamlit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.differences import Difference, Stratum
from siftune.training.evaluation.formatting import format_stratum
from siftune.training.evaluation.stage_contributions import StageContribution
from siftune.training.evaluation.verdict import Comparison
from siftune.training.inference.engine import Engine
from siftune.training.result import finished_trainings, read_log, read_result, read_truncated, training_folders

#: What the training curves can be drawn over, and the column of `logs`.
AXES = {"steps": "step", "tokens": "tokens", "minutes": "minutes"}

#: Fields of a training result that the table of progress shows already, or that are no settings.
_NO_SETTINGS = (
    *("arm", "seed", "key", "steps", "tokens", "seconds", "minutes", "truncated_rows", "last_loss", "memory"),
    *("planned", "epochs", "threads"),
)


def next_command(run: RunFolder) -> str:
    """The command that produces what the pages about training need, with the reason."""
    if "curated" not in run.arms():
        return f"This run has no arms yet. Curate first:\n\n    siftune curate {run.recipe_path}"
    if run.recipe.training is None and not finished_trainings(run.path):
        return (
            "The recipe of this run has no section `training:`, so no arm can be trained. Add this line to the recipe, "
            "not indented; its defaults will do:\n\n    training: {}\n\nThen curate again and train, here with the "
            f"run's own copy of the recipe:\n\n    siftune curate {run.recipe_path}\n    siftune train {run.path}"
        )
    if not finished_trainings(run.path):
        return f"No arm of this run is trained yet. To train them:\n\n    siftune train {run.path}"
    return f"The arms are trained but not compared yet. To compare them:\n\n    siftune compare {run.path}"


def equal_arms_sentence(run: RunFolder, engine: Engine, arms: Sequence[str]) -> str | None:
    """Why the answers of two of the arms cannot be compared: they are the same model. None where no two are.

    Args:
        run: the run.
        engine: what answers for the arms.
        arms: those that are to be compared.
    """
    known: dict[str, str] = {}
    for arm in arms:
        fingerprint = engine.fingerprint(arm)
        for what, value in (("have the same weights", fingerprint.weights), ("predict the same", fingerprint.logits)):
            other = known.setdefault(f"{what} {value}", arm)
            if other != arm:
                return (
                    f"The arms {other} and {arm} {what}, so their answers are the same and there is nothing to "
                    "compare. That happens where both saw the same rows in a short training: a larger training "
                    "budget or other seeds in the recipe tell them apart. Or leave one of the two out.\n\n"
                    f"After a change of the recipe:\n\n    siftune curate {run.recipe_path}\n"
                    f"    siftune train {run.path}"
                )
    return None


def comparison_interval(comparison: Comparison) -> dict[str, Any] | None:
    """A comparison as a line of the interval chart: name, low, value, high; None without an interval."""
    return _interval(comparison.name, comparison.difference)


def stratum_interval(stratum: Stratum) -> dict[str, Any] | None:
    """A stratum as a line of the interval chart: name, low, value, high; None without an interval."""
    kind, value = format_stratum(stratum.column, stratum.value)
    return _interval(f"{kind}: {value} ({stratum.difference.rows:,} rows)", stratum.difference)


def stage_interval(stage: StageContribution) -> dict[str, Any] | None:
    """A stage as a line of the interval chart: name, low, value, high; None without an interval."""
    return _interval(stage.name, stage.difference) if stage.difference else None


def _interval(name: str, difference: Difference) -> dict[str, Any] | None:
    estimate = difference.per_token
    if estimate.low is None or estimate.high is None:
        return None
    return {"name": name, "low": estimate.low, "value": estimate.value, "high": estimate.high}


def logs(run: RunFolder) -> pl.DataFrame:
    """The training logs of all arms and seeds, one row for each step.

    Returns:
        LOG_COLUMNS, arm, seed, minutes and tokens_per_second (since the step before).
    """
    frames = []
    for arm, seed, folder in training_folders(run.path):
        tokens = pl.col("tokens").diff().fill_null(pl.col("tokens"))
        seconds = pl.col("seconds").diff().fill_null(pl.col("seconds"))
        frames.append(
            read_log(folder).with_columns(
                pl.lit(arm).alias("arm"),
                pl.lit(seed).alias("seed"),
                (pl.col("seconds") / 60).alias("minutes"),
                (tokens / seconds).alias("tokens_per_second"),
            )
        )
    return pl.concat(frames)


def progress(run: RunFolder) -> list[tuple[object, ...]]:
    """For each arm and seed: arm, seed, state, steps, trained tokens, minutes, last loss, rows cut or left out."""
    lines: list[tuple[object, ...]] = []
    for arm, seed, folder in training_folders(run.path):
        log, result, truncated = read_log(folder), read_result(folder), read_truncated(folder)
        last = log.row(-1, named=True) if log.height else None
        lines.append(
            (
                arm,
                seed,
                "done" if result else "training" if last else "starting",
                last["step"] if last else 0,
                f"{last['tokens']:,}" if last else "—",
                f"{last['seconds'] / 60:.1f}" if last else "—",
                f"{last['loss']:.3f}" if last else "—",
                "—" if truncated is None else f"{truncated.height:,}",
            )
        )
    return lines


def settings(run: RunFolder) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The settings of all trainings.

    Returns:
        The trainings as "ARM, seed K", and for each setting its name and its values in the same order; settings that
        differ between trainings come first.
    """
    trainings = training_folders(run.path)
    results = [read_result(folder) for _, _, folder in trainings]
    recorded = [_flatten(result.model_dump()) if result else {} for result in results]
    names = sorted({name for values in recorded for name in values if not name.startswith(_NO_SETTINGS)})
    lines = [(name, [_setting(values.get(name)) for values in recorded]) for name in names]
    # Versions and the machine are shown only where they differ.
    lines = [(n, v) for n, v in lines if not n.startswith(("versions.", "load.")) or len(set(v)) > 1]

    # Settings that the results do not record are those of the recipe.
    section = run.recipe.training
    excluded = {"arms", "seeds", "report_to"}
    of_recipe = {} if section is None else _flatten(section.model_dump(exclude=excluded, exclude_none=True))
    lines = [(name, [_setting(v)] * len(trainings)) for name, v in of_recipe.items() if name not in names] + lines
    lines.sort(key=lambda line: len(set(line[1])) == 1)
    return (
        [f"{arm}, seed {seed}" for arm, seed, _ in trainings],
        [(re.sub(r"[._]", " ", name), values) for name, values in lines],
    )


def _setting(value: Any) -> str:
    """A setting as text; each entry of a list on a line of its own."""
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "none"
    return "—" if value is None else str(value)


def _flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names; hashes are shortened and long lists left out."""
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            fields |= _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or len(value) < 12:
            fields[f"{prefix}{name}"] = value[:12] if isinstance(value, str) and len(value) >= 64 else value
    return fields


def example_id(run: RunFolder) -> str:
    """The id of a row that some arm trains on."""
    for arm in run.arms():
        ids = pl.scan_parquet(run.arm(arm), glob=False).select("id").head(1).collect()
        if ids.height:
            return str(ids.item())
    return "source:0"
