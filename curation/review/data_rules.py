"""Pass or fail: the rules of a recipe's `fail_if`, each measured on a finished run.

Every measure is a fact of the run: a count of its manifest, decisions of its ledger, matches of its benchmarks. Rates
are shares of all input rows, those that cannot be read included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.recipe.rule_sections import FailIf
from siftune.curation.run.folder import RunFolder
from siftune.curation.split_names import TRAIN, standard_splits
from siftune.curation.stages import stages


@dataclass(frozen=True)
class RuleResult:
    """A rule and what was measured.

    Attributes:
        rule: the name; of a row check `checks.NAME`.
        meaning: what the recipe says of the rule.
        limit: the number in the recipe.
        measured: a share for a rate and for a row check, else a number of rows.
        rows: the rows behind the share; None where there are none to count.
        passed: whether `measured` is at most `limit`; for `kept_below`, whether it is at least that.
    """

    rule: str
    meaning: str
    limit: float
    measured: float
    rows: int | None
    passed: bool


def require_rules(rules: FailIf | None, *, where: Path) -> FailIf:
    """The rules of a recipe. Raises `UserError` when there are none; `where` is the recipe or the run."""
    if rules is None or not rules.rules:
        raise UserError(
            f"{where}: the recipe has no rules. Add some, for example: fail_if: {{near_rate: 0.1, dropped_rate: 0.5}}. "
            f"Accepted rules: {', '.join(FailIf.model_fields)}."
        )
    return rules


def check_rules(run: RunFolder) -> list[RuleResult]:
    """Measure every rule of a run's recipe.

    Raises:
        UserError: the recipe has no rules, the run is not finished, or a rule needs what the recipe leaves out.
    """
    rules = require_rules(run.recipe.fail_if, where=run.path)
    total = run.manifest.finished_counts().input
    results = []
    for rule, limit in rules.rules.items():
        field, _, check = rule.partition(".")
        rows: int | None
        if rule == "random_split_leak_rate":
            rows, measured = None, _random_split_leak_rate(run)
        else:
            rows = _checked_rows(run, check) if check else _ROWS[rule](run)
            is_share = bool(check) or rule.endswith("_rate")
            measured = rows / max(1, total) if is_share else float(rows)
        passed = measured >= limit if rule == "kept_below" else measured <= limit
        results.append(RuleResult(rule, FailIf.model_fields[field].description or "", limit, measured, rows, passed))
    return results


def _dropped_by(run: RunFolder, rule: str, names: list[str]) -> int:
    """Rows dropped by stages; none of them need be there, but one."""
    configured = {stage.name for stage in stages(run.recipe, base=Path())}
    if not configured & set(names):
        raise UserError(f"fail_if.{rule} is not measured: the recipe leaves out `duplicates.{names[0]}`.")
    dropped = run.ledger().filter(pl.col("action") == "drop", pl.col("stage").is_in(names))
    return dropped["id"].n_unique()


def _duplicates(run: RunFolder) -> int:
    names = [stage.name for stage in stages(run.recipe, base=Path()) if stage.compares is not None]
    return _dropped_by(run, "duplicate_rate", names or ["exact"])


def _conflicts(run: RunFolder) -> int:
    if run.recipe.duplicates.conflicts == "off":
        raise UserError("fail_if.conflict_rate is not measured: the recipe says `duplicates.conflicts: off`.")
    return run.ledger().filter(pl.col("stage") == "conflicts")["id"].n_unique()


def _checked_rows(run: RunFolder, check: str) -> int:
    """Rows that a row check reported, repaired, masked or dropped."""
    if getattr(run.recipe.checks, check) == "off":
        raise UserError(f"fail_if.checks.{check} is not measured: the recipe says `checks.{check}: off`.")
    decided = run.ledger().filter(pl.col("stage").is_in(["checks", "repair", "mask"]), pl.col("reason") == check)
    return decided["id"].n_unique()


def _leaked_rows(run: RunFolder) -> int:
    """Rows dropped for a row of another split of the data, and pairs across the splits of the curated set.

    The second number is 0 unless the certificate fails. Rows of data that came without splits cannot leak before the
    run splits them.
    """
    if run.recipe.splits is None:
        raise UserError(
            "fail_if.leaked is not measured: the recipe has no `splits` (the defaults will do: splits: {})."
        )
    index = pl.read_parquet(run.file("index"), columns=["id", "split"], glob=False)
    given = index.select("id", split=standard_splits(index["split"]).fill_null(TRAIN))
    dropped = run.ledger().filter(pl.col("action") == "drop").select("id", "witness")
    with_splits = dropped.join(given, on="id").join(given, left_on="witness", right_on="id", suffix="_of_witness")
    leaked = with_splits.filter(pl.col("split") != pl.col("split_of_witness"))["id"].n_unique()
    certificate = run.manifest.certificate
    return leaked + (certificate.pairs if certificate is not None else 0)


def _random_split_leak_rate(run: RunFolder) -> float:
    if run.recipe.splits is None:
        raise UserError("fail_if.random_split_leak_rate is not measured: the recipe has no `splits`.")
    return max((leak.share for leak in run.manifest.naive_split), default=0.0)


def _matched_rows(run: RunFolder, rule: str) -> tuple[int, int]:
    """Rows that hold an item of a benchmark, and other rows that hold a related task."""
    settings = run.recipe.contamination
    if settings is None or not settings.references:
        raise UserError(f"fail_if.{rule} is not measured: the recipe names no `contamination.references`.")
    by_row = run.matches().group_by("id").agg(same=(pl.col("outcome") == "same").any())
    same = int(by_row["same"].sum())
    return same, by_row.height - same


#: By rule, the rows that count; a rate is their share of the input.
_ROWS: dict[str, Callable[[RunFolder], int]] = {
    "quarantined_rate": lambda run: run.manifest.finished_counts().quarantined,
    "exact_rate": lambda run: _dropped_by(run, "exact_rate", ["exact"]),
    "near_rate": lambda run: _dropped_by(run, "near_rate", ["near"]),
    "semantic_rate": lambda run: _dropped_by(run, "semantic_rate", ["semantic"]),
    "duplicate_rate": _duplicates,
    "conflict_rate": _conflicts,
    "dropped_rate": lambda run: run.manifest.finished_counts().dropped,
    "leaked": _leaked_rows,
    "contaminated": lambda run: _matched_rows(run, "contaminated")[0],
    "related": lambda run: _matched_rows(run, "related")[1],
    "kept_below": lambda run: run.manifest.finished_counts().kept,
}
