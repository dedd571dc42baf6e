"""What a run found, as tables and samples that a report or a page can draw. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import Part, word_differences

_SAMPLES = 10
_BY_FIELD = {"prompt only": "prompt", "answer only": "answer", "both": "both"}
_BORDER = 3
_SHOWN = 900

#: Measures whose pairs have a threshold in the recipe's `duplicates`.
MEASURES = ("near", "answers", "semantic")


@dataclass(frozen=True)
class Sample:
    """A row beside its witness, cut into parts that both share and parts that differ; `right` is empty without one."""

    id: str
    other: str | None
    score: float | None
    detail: str | None
    left: list[Part]
    right: list[Part]


@dataclass(frozen=True)
class Border:
    """A threshold, and the pairs that lie closest to it on both sides."""

    measure: str
    threshold: float
    floor: float
    pairs: pl.DataFrame
    above: list[Sample]
    below: list[Sample]


@dataclass(frozen=True)
class Findings:
    """Everything a report says of a run besides its manifest."""

    rows: pl.DataFrame
    reasons: dict[tuple[str, str, str], list[Sample]]
    counts: dict[tuple[str, str, str], int]
    borders: list[Border]
    sources: pl.DataFrame
    contamination: pl.DataFrame


def gather(run: RunFolder) -> Findings:
    """Read a finished run once and take what a report needs."""
    rows, ledger = run.rows(), run.ledger()
    picked = _picked(ledger)
    borders = _border_pairs(run)
    wanted = [*picked["id"], *picked["witness"].drop_nulls()]
    wanted += [name for _, frame in borders.values() for side in ("a", "b") for name in frame[side]]
    texts = spoken(run, wanted)
    reasons: dict[tuple[str, str, str], list[Sample]] = {}
    for row in picked.iter_rows(named=True):
        key = (row["stage"], row["action"], row["reason"])
        reasons.setdefault(key, []).append(_sample(texts, row["id"], row["witness"], row["score"], row["detail"]))
    grouped = ledger.group_by("step", "stage", "action", "reason").len().sort("step", "len", descending=[False, True])
    return Findings(
        rows,
        reasons,
        {(row["stage"], row["action"], row["reason"]): row["len"] for row in grouped.iter_rows(named=True)},
        [_border(run, measure, *found, texts) for measure, found in borders.items()],
        _by_source(rows, ledger),
        contamination_table(run),
    )


def spoken(run: RunFolder, ids: list[str]) -> dict[str, str]:
    """The compared texts of some rows: everything asked and answered."""
    unique = pl.Series("id", sorted(set(ids)), dtype=pl.String)
    found = pl.scan_parquet(run.texts).filter(pl.col("id").is_in(unique.implode())).select("id", "prompt", "answer")
    return {row[0]: f"{row[1]}\n{row[2]}" for row in found.collect().iter_rows()}


def contamination_table(run: RunFolder) -> pl.DataFrame:
    """For each benchmark and rule: items hit, rows that match, and how many of these rows match by what.

    `both` are rows with a match of both texts at once, or with one of the prompt and one of the answer.
    """
    matches = run.matches().with_columns(pl.col("reference").str.replace(r":\d+$", "").alias("benchmark"))
    by = ["benchmark", "rule"]
    items = matches.group_by(by).agg(pl.col("reference").n_unique().alias("items hit"))
    alone = pl.when(pl.col("field").n_unique() == 1).then(pl.col("field").first()).otherwise(pl.lit("both"))
    rows = matches.group_by(*by, "id").agg(alone.alias("field"))
    counts = rows.group_by(by).agg(
        pl.len().alias("rows"),
        *((pl.col("field") == field).sum().alias(name) for name, field in _BY_FIELD.items()),
    )
    return items.join(counts, on=by).sort(by)


def _picked(ledger: pl.DataFrame) -> pl.DataFrame:
    """The first samples of every reason; of scored ones, those closest to their threshold."""
    distance = (pl.col("score") - pl.col("threshold")).abs()
    ordered = ledger.filter(pl.col("stage") != "ingest").sort("step", distance, "id", nulls_last=True)
    return ordered.filter(pl.int_range(pl.len()).over("stage", "action", "reason") < _SAMPLES)


def _border_pairs(run: RunFolder) -> dict[str, tuple[float, pl.DataFrame]]:
    found = {}
    for measure in MEASURES:
        section = getattr(run.recipe.duplicates, measure)
        if section is None or measure not in run.manifest["files"]:
            continue
        distance = pl.col("score") - section.threshold
        pairs = pl.scan_parquet(run.file(measure)).filter(pl.col("score") < 1.0)
        above = pairs.filter(distance >= 0).sort("score", "a", "b").head(_BORDER)
        below = pairs.filter(distance < 0).sort("score", "a", "b", descending=[True, False, False]).head(_BORDER)
        found[measure] = (section.threshold, pl.concat([above.collect(), below.collect()]))
    return found


def _border(run: RunFolder, measure: str, threshold: float, near: pl.DataFrame, texts: dict[str, str]) -> Border:
    samples = [
        (row["score"], _sample(texts, row["b"], row["a"], row["score"], "guarded" if row["guarded"] else None))
        for row in near.iter_rows(named=True)
    ]
    floor = getattr(run.recipe.duplicates, measure).floor
    above = [sample for score, sample in samples if score >= threshold]
    below = [sample for score, sample in samples if score < threshold]
    return Border(measure, threshold, floor, run.pairs(measure), above, below)


def _sample(texts: dict[str, str], row: str, other: str | None, score: float | None, detail: str | None) -> Sample:
    mine = texts.get(row, "")[:_SHOWN]
    if other is None or other not in texts:
        return Sample(row, other, score, detail, [("same", mine)], [])
    left, right = word_differences(mine, texts[other][:_SHOWN])
    return Sample(row, other, score, detail, left, right)


def _by_source(rows: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """Duplicates by source of the dropped row × source of its witness."""
    source = rows.select("id", "source")
    drops = ledger.filter(pl.col("action") == "drop", pl.col("stage").is_in(["exact", *MEASURES, "conflicts"]))
    both = drops.join(source, on="id").join(source, left_on="witness", right_on="id", suffix=" of the witness")
    counted = both.group_by("source", "source of the witness").len("rows")
    return counted.sort("rows", "source", "source of the witness", descending=[True, False, False])


def saved(manifest: dict[str, Any]) -> dict[str, int]:
    """Words of the input, of what is kept, and the difference."""
    words = manifest["counts"]["words"]
    return {"input": words["input"], "kept": words["kept"], "saved": words["input"] - words["kept"]}
