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


#: What the split of an earlier set is called beside those of the run.
_EARLIER = "earlier {}"
#: Pairs of a row of a split, at position `a`, and a similar row elsewhere, the `witness` at position `b`; `order` is
#: that of the measures.
_LEAKS = pl.Schema(
    {
        "a": pl.UInt32(),
        "b": pl.UInt32(),
        "score": pl.Float64(),
        "order": pl.Int32(),
        "threshold": pl.Float64(),
        "measure": pl.String(),
        "witness": pl.String(),
    }
)


def certify(
    splits: Mapping[str, SplitRows],
    *,
    thresholds: LeakThresholds,
    earlier: Mapping[str, SplitRows] | None = None,
) -> CertificateRecord:
    """Search every two of the splits, by name, for similar rows.

    Args:
        splits: the splits of the run.
        thresholds: from which similarity on a pair is a leak.
        earlier: the splits of earlier sets; those of the run are searched against the others of these too.
    """
    checks = []
    named = dict(splits) | {_EARLIER.format(name): rows for name, rows in (earlier or {}).items()}
    couples = list(itertools.combinations(splits, 2))
    couples += [(name, _EARLIER.format(other)) for name in splits for other in earlier or {} if other != name]
    for left, right in couples:
        for pairs in search_across(named[left], named[right], thresholds=thresholds):
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
                    highest_pair=(named[left].ids[closest[0]], named[right].ids[closest[1]]) if closest else None,
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
        rows={name: len(split.ids) for name, split in named.items()},
        comparisons=sum(check.comparisons for check in checks),
        pairs=sum(check.pairs for check in checks),
        checks=checks,
    )


def evict_leaks(
    splits: Mapping[str, SplitRows], *, thresholds: LeakThresholds, earlier_pairs: pl.DataFrame | None = None
) -> pl.DataFrame:
    """DECISIONS after which no similar pair across splits is left: the search of `certify`, acted upon.

    `splits` stand in order of precedence (usually test, validation, train): a row is dropped when it resembles a row
    that stays in an earlier split, or one of an earlier set in another split. Its witness is the most similar of these;
    the reason is `leak`, the measure and the two splits are in `detail`.

    Args:
        splits: the rows of each split.
        thresholds: from which similarity on a pair is a leak.
        earlier_pairs: what `pairs_with_earlier` found for these rows or more.
    """
    decisions = [empty(DECISIONS)]
    clean: dict[str, SplitRows] = {}
    for name, split in splits.items():
        # Every pair of a row of this split and a row that stays in an earlier one.
        leaks = [_with_detail(_pairs_across(split, kept, thresholds), name, other) for other, kept in clean.items()]
        if earlier_pairs is not None:
            positions = split.ids.to_frame("id").with_row_index("a")
            elsewhere = earlier_pairs.filter(pl.col("split") != name).join(positions, on="id", how="inner")
            for (other,), pairs in elsewhere.group_by("split", maintain_order=True):
                leaks.append(_with_detail(pairs.select(list(_LEAKS)), name, _EARLIER.format(other)))
        clean[name] = split
        if sum(map(len, leaks)):
            # Of each row the most similar pair; of equal ones the stricter measure, then the earlier witness.
            by_score = pl.concat(leaks).sort("a", -pl.col("score"), "order", "b")
            best = by_score.unique("a", keep="first", maintain_order=True)
            ids = split.ids.gather(best["a"])
            decided = best.with_columns(id=ids, action=pl.lit("drop"), reason=pl.lit(LEAK))
            decisions.append(conform(decided, DECISIONS))
            clean[name] = split.without(best["a"].to_numpy())
    return pl.concat(decisions)


def pairs_with_earlier(
    rows: SplitRows, earlier: Mapping[str, SplitRows], *, thresholds: LeakThresholds
) -> pl.DataFrame:
    """Every pair of a row and a similar row of an earlier set: `id`, `split` (of the earlier row) and the leak.

    Args:
        rows: the rows of a run, whatever their split.
        earlier: the rows of earlier sets by split.
        thresholds: from which similarity on a pair is a leak.
    """
    of_splits = [
        _pairs_across(rows, others, thresholds).with_columns(split=pl.lit(split)) for split, others in earlier.items()
    ]
    pairs = pl.concat([pl.DataFrame(schema={**_LEAKS, "split": pl.String}), *of_splits])
    return pairs.with_columns(id=rows.ids.gather(pairs["a"])).drop("a")


def _pairs_across(split: SplitRows, other: SplitRows, thresholds: LeakThresholds) -> pl.DataFrame:
    """Every similar pair of a row of each, as LEAKS."""
    by_measure = [empty(_LEAKS)]
    for order, pairs in enumerate(search_across(split, other, thresholds=thresholds)):
        frame = pl.DataFrame({"a": pairs.a, "b": pairs.b, "score": pairs.score}).with_columns(
            order=pl.lit(order),
            threshold=pl.lit(pairs.threshold),
            measure=pl.lit(pairs.measure),
            witness=other.ids.gather(pairs.b),
        )
        by_measure.append(conform(frame, _LEAKS))
    return pl.concat(by_measure)


def _with_detail(leaks: pl.DataFrame, name: str, other: str) -> pl.DataFrame:
    details = {measure: f"{measure}, {relation.format(name, other)}" for measure, relation in _RELATION.items()}
    return leaks.with_columns(detail=pl.col("measure").replace_strict(details, return_dtype=pl.String))
