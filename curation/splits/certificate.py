"""No row of one split may resemble a row of another: evict the rows that do, then search again and certify it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import polars as pl

from siftune.curation.run.ledger import LEAK
from siftune.curation.run.manifest import CertificateCheckRecord, CertificateRecord
from siftune.curation.schema import DECISIONS, conform, empty
from siftune.curation.splits.containment import LEAST_WORDS
from siftune.curation.splits.cross_search import LeakThresholds, SplitRows, search_across

#: What a measure says of a row of the one split and a row of the other.
_RELATION = dict.fromkeys(("exact", "near", "semantic"), "{} row resembles {}") | {
    "containment": "{} row stands inside {} row, or the reverse"
}
_CONTAINMENT = (
    "by whether the prompt of one, or its core without template text, stands word for word inside the other's dialogue "
    f"(from {LEAST_WORDS} words on; not what many prompts hold) "
)


def certify(splits: Mapping[str, SplitRows], *, thresholds: LeakThresholds) -> CertificateRecord:
    """Search every two of the splits, by name, for similar rows."""
    checks = []
    for left, right in itertools.combinations(splits, 2):
        for pairs in search_across(splits[left], splits[right], thresholds=thresholds):
            closest = pairs.highest_pair
            checks.append(
                CertificateCheckRecord(
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
    measures = {check.measure for check in checks}
    with_embeddings, with_passages = "semantic" in measures, "containment" in measures
    return CertificateRecord(
        passed=all(check.pairs == 0 for check in checks),
        method="every pair of rows across splits was compared by equal normalised text (also of the whole prompts), by "
        "the Jaccard similarity of "
        f"{thresholds.shingle}-word shingles (inverted index), "
        + (_CONTAINMENT if with_passages else "")
        + "and "
        + ("by the cosine of embeddings" if with_embeddings else "not by cosine, as there are no embeddings"),
        thresholds={"exact": 1.0, "near": thresholds.near}
        | ({"containment": 1.0} if with_passages else {})
        | ({"semantic": thresholds.semantic} if with_embeddings else {}),
        rows={name: len(split.ids) for name, split in splits.items()},
        comparisons=sum(check.comparisons for check in checks),
        pairs=sum(check.pairs for check in checks),
        checks=checks,
    )


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
                            detail=pl.lit(f"{pairs.measure}, {_RELATION[pairs.measure].format(name, earlier)}"),
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
