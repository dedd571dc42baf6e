"""No row of one split may resemble a row of another: evict the rows that do, then search again and certify it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from siftune.curation.run.ledger import LEAK
from siftune.curation.schema import DECISIONS, conform, empty
from siftune.curation.splits.cross_search import LeakThresholds, SplitRows, search_across


@dataclass(frozen=True)
class CertificateCheck:
    """One measure over one pair of splits: how many pairs reach the threshold, and which pair comes closest."""

    left: str
    right: str
    measure: str
    threshold: float
    comparisons: int
    pairs: int
    highest: float | None
    highest_pair: tuple[str, str] | None


@dataclass(frozen=True)
class Certificate:
    """The outcome of a fresh search over the splits as they were written. `rows` counts the rows of each split."""

    rows: Mapping[str, int]
    thresholds: LeakThresholds
    checks: tuple[CertificateCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether no pair across splits reaches a leak threshold."""
        return all(check.pairs == 0 for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: JSON types only."""
        checks = [
            vars(check) | {"highest_pair": check.highest_pair and list(check.highest_pair)} for check in self.checks
        ]
        measures = {check.measure for check in self.checks}
        return {
            "passed": self.passed,
            "method": "every pair of rows across splits compared: equal normalised text; Jaccard similarity of "
            f"{self.thresholds.shingle}-word shingles through an inverted index"
            + ("; cosine of embeddings by blocks" if "semantic" in measures else "; no embeddings, so no cosine"),
            "thresholds": {"exact": 1.0, "near": self.thresholds.near}
            | ({"semantic": self.thresholds.semantic} if "semantic" in measures else {}),
            "rows": dict(self.rows),
            "comparisons": sum(check.comparisons for check in self.checks),
            "pairs": sum(check.pairs for check in self.checks),
            "checks": checks,
        }


def certify(splits: Mapping[str, SplitRows], *, thresholds: LeakThresholds) -> Certificate:
    """Search every two of the splits, by name, for similar rows."""
    checks = []
    for left, right in itertools.combinations(splits, 2):
        for pairs in search_across(splits[left], splits[right], thresholds=thresholds):
            closest = pairs.highest_pair
            checks.append(
                CertificateCheck(
                    left=left,
                    right=right,
                    measure=pairs.measure,
                    threshold=pairs.threshold,
                    comparisons=pairs.comparisons,
                    pairs=len(pairs.a),
                    highest=pairs.highest,
                    highest_pair=(splits[left].ids[closest[0]], splits[right].ids[closest[1]]) if closest else None,
                )
            )
    return Certificate({name: len(split.ids) for name, split in splits.items()}, thresholds, tuple(checks))


def evict_leaks(splits: Mapping[str, SplitRows], *, thresholds: LeakThresholds) -> pl.DataFrame:
    """DECISIONS after which no similar pair across splits is left: the search of `certify`, acted upon.

    `splits` stand in order of precedence (usually test, validation, train): a row is dropped when it resembles a row
    that stays in an earlier split. Its witness is the most similar of these; the reason is `leak`, the measure and the
    two splits are in `detail`.
    """
    decisions = [empty(DECISIONS)]
    clean: dict[str, SplitRows] = {}
    for name, split in splits.items():
        # Every pair of a row of this split and a row that stays in an earlier one.
        leaks = []
        for earlier, kept in clean.items():
            for order, pairs in enumerate(search_across(split, kept, thresholds=thresholds)):
                frame = pl.DataFrame({"a": pairs.a, "b": pairs.b, "score": pairs.score})
                if frame.height:
                    leaks.append(
                        frame.with_columns(
                            order=pl.lit(order),
                            threshold=pl.lit(pairs.threshold),
                            witness=kept.ids.gather(pairs.b),
                            detail=pl.lit(f"{pairs.measure}, {name} row resembles {earlier}"),
                        )
                    )
        clean[name] = split
        if leaks:
            # Of each row the most similar pair; of equal ones the stricter measure, then the earlier witness.
            by_score = pl.concat(leaks).sort("a", -pl.col("score"), "order", "b")
            best = by_score.unique("a", keep="first", maintain_order=True)
            ids = split.ids.gather(best["a"])
            decided = best.with_columns(id=ids, action=pl.lit("drop"), reason=pl.lit(LEAK))
            decisions.append(conform(decided, DECISIONS))
            clean[name] = split.without(best["a"].to_numpy())
    return pl.concat(decisions)
