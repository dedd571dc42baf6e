"""What the pages ask of a run, as small frames ready to draw; nothing here knows Streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.review.catalogue import Catalogue
from siftune.curation.run.folder import RunFolder

DUPLICATES = ("exact", "near", "semantic", "answers")


@dataclass(frozen=True)
class Step:
    """One line of the funnel: rows that came in, and rows that this stage took out."""

    stage: str
    rows: int
    dropped: int


def funnel(catalogue: Catalogue) -> list[Step]:
    """The stages in the order they decided, each with the rows it took out; conservation holds by construction."""
    lost = (
        catalogue.frame.lazy()
        .filter(pl.col("fate") != "kept")
        .group_by(pl.col("stage").cast(pl.String))
        .len()
        .collect()
    )
    counts = dict(lost.iter_rows())
    told = [str(stage["stage"]) for stage in catalogue.run.manifest.get("stages", [])]
    order = list(dict.fromkeys([*told, *_ledger_order(catalogue.run)]))
    left = len(catalogue)
    steps = []
    for stage in [name for name in order if name in counts] + sorted(set(counts) - set(order), key=str):
        steps.append(Step(str(stage), left, counts[stage]))
        left -= counts[stage]
    return steps


def _ledger_order(run: RunFolder) -> list[str]:
    ledger = pl.scan_parquet(run.path / "ledger.parquet")
    return ledger.group_by("stage").agg(pl.col("step").min()).sort("step").collect()["stage"].to_list()


def lengths(catalogue: Catalogue, column: str, *, bins: int = 24) -> pl.DataFrame:
    """Histogram over length in words, in log-spaced bins, of all rows and of those in training after curation.

    Columns: set (before, after), low, high (words, high excluded), rows, share (of the set).
    """
    values = catalogue.frame[column].fill_null(0).to_numpy().astype(np.int64)
    top = max(2, int(values.max(initial=1)) + 1)
    edges = np.unique(np.round(np.geomspace(1, top, bins + 1)).astype(np.int64))
    edges = np.concatenate([[0], edges])
    after = training_rows(catalogue)
    frames = []
    for name, part in (("before", values), ("after", values[after])):
        rows = np.add.reduceat(np.bincount(part, minlength=edges[-1]), edges[:-1])
        frames.append(
            pl.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": rows}).with_columns(
                set=pl.lit(name), share=pl.col("rows") / max(1, len(part))
            )
        )
    return pl.concat(frames)


def training_rows(catalogue: Catalogue) -> np.ndarray:
    """bool[n]: rows that were kept and stand in no held-out split."""
    held = pl.col("split").is_in(["test", "validation"]).fill_null(value=False)
    return catalogue.frame.select(((pl.col("fate") == "kept") & ~held).fill_null(value=False)).to_series().to_numpy()


def sources(catalogue: Catalogue) -> pl.DataFrame:
    """One line a source: rows, kept, dropped, quarantined, share kept; in order of rows."""
    count = [(pl.col("fate") == fate).sum().alias(fate) for fate in ("kept", "dropped", "quarantined")]
    table = catalogue.frame.lazy().group_by(pl.col("source").cast(pl.String)).agg(pl.len().alias("rows"), *count)
    return (
        table.with_columns(share=pl.col("kept") / pl.col("rows"))
        .sort("rows", "source", descending=[True, False])
        .collect()
    )


def contamination(run: RunFolder) -> pl.DataFrame:
    """One line a reference and rule: reference, rule, rows that match, items of the reference that are matched."""
    matches = run.matches()
    name = pl.col("reference").str.replace(r":[^:]*$", "")
    counted = (pl.col("id").n_unique().alias("rows"), pl.col("reference").n_unique().alias("items"))
    table = matches.group_by(name.alias("name"), "rule").agg(*counted).rename({"name": "reference"})
    return table.sort("rows", "reference", "rule", descending=[True, False, False])


def decision_kinds(run: RunFolder) -> pl.DataFrame:
    """One line a stage, action and reason of the ledger: step, stage, action, reason, rows."""
    ledger = pl.scan_parquet(run.path / "ledger.parquet")
    kinds = ledger.group_by("step", "stage", "action", "reason").len("rows")
    return kinds.sort("step", "rows", "reason", "action", descending=[False, True, False, False]).collect()


def decisions(run: RunFolder, *, stage: str, action: str, reason: str | None, page: int, size: int) -> pl.DataFrame:
    """A page of LEDGER rows of one kind with `margin`, |score - threshold|; the closest to the threshold first."""
    wanted = (pl.col("stage") == stage) & (pl.col("action") == action)
    wanted &= pl.col("reason").is_null() if reason is None else pl.col("reason") == reason
    ledger = pl.scan_parquet(run.path / "ledger.parquet").filter(wanted)
    margin = (pl.col("score") - pl.col("threshold")).abs().alias("margin")
    ordered = ledger.with_columns(margin).sort("margin", maintain_order=True, nulls_last=True)
    return ordered.slice(page * size, size).collect()


def families(run: RunFolder, *, stage: str | None = None, most: int = 100) -> pl.DataFrame:
    """Rows for whose sake most others were dropped: witness, rows dropped, their ids and scores."""
    dropped = pl.scan_parquet(run.path / "ledger.parquet").filter(
        (pl.col("action") == "drop") & pl.col("witness").is_not_null()
    )
    if stage is not None:
        dropped = dropped.filter(pl.col("stage") == stage)
    table = dropped.group_by("witness").agg(pl.len().alias("rows"), pl.col("id").head(50), pl.col("score").head(50))
    return table.sort("rows", "witness", descending=[True, False]).head(most).collect()


def measures(run: RunFolder) -> list[str]:
    """The duplicate stages with a threshold whose pairs are stored."""
    return [name for name in ("near", "semantic", "answers") if name in run.manifest.get("files", {})]


def borderline(run: RunFolder, measure: str, threshold: float, *, most: int = 12) -> pl.DataFrame:
    """Stored PAIRS nearest to `threshold`, half from each side of it, unguarded; the nearest first."""
    pairs = pl.scan_parquet(run.file(measure)).filter(~pl.col("guarded"))
    above = pairs.filter(pl.col("score") >= threshold).sort("score", "a", "b").head(most // 2)
    below = (
        pairs.filter(pl.col("score") < threshold)
        .sort("score", "a", "b", descending=[True, False, False])
        .head(most // 2)
    )
    return pl.concat([above.collect(), below.collect()]).sort((pl.col("score") - threshold).abs(), maintain_order=True)


def labelled(run: RunFolder, measure: str, labels: pl.DataFrame) -> pl.DataFrame:
    """Labels joined with the stored score of their pair."""
    pairs = pl.scan_parquet(run.file(measure)).select("a", "b", "score")
    return pairs.join(labels.lazy(), on=["a", "b"], how="inner").collect()


@dataclass(frozen=True)
class Effect:
    """What a threshold does, and what the run's own does: rows dropped by the stage, and after the stages that can be
    replayed (all before splitting and balancing) the rows left and their length in tokens or words.
    """

    dropped: int
    dropped_now: int
    left: int
    left_now: int
    length: int
    length_now: int
    unmeasured: int


def effect(run: RunFolder, name: str, threshold: float, lengths: np.ndarray | None = None) -> Effect:
    """Replay the stages with another threshold, exactly. Raises `UserError` as `replay` does.

    `lengths` are those of prompt and answer of every row of EXAMPLES; None: words.
    """
    from siftune.curation.review.what_if import replay

    now, then = replay(run, {}), replay(run, {name: threshold})
    counts = [
        (each.dropped().filter(pl.col("stage") == name).height, each.left.height, _length(each.left, lengths))
        for each in (then, now)
    ]
    (dropped, left, length), (dropped_now, left_now, length_now) = counts
    return Effect(dropped, dropped_now, left, left_now, length, length_now, sum(then.unmeasured.values()))


def _length(left: pl.DataFrame, lengths: np.ndarray | None) -> int:
    if lengths is not None:
        return int(lengths[left["row"].to_numpy()].sum())
    return int(left.select(pl.sum_horizontal(pl.col("prompt_words", "answer_words").cast(pl.Int64).sum())).item())


#: What a pair can come to: guarded ones are never duplicates, however similar.
PAIR_KINDS = ("can be duplicates", "guarded: numbers, names or a negation differ")


def pair_histogram(run: RunFolder, measure: str, *, bins: int = 40) -> pl.DataFrame:
    """Stored pairs by similarity: score (the bin's lower end), to, kind (of PAIR_KINDS), pairs."""
    found = pl.scan_parquet(run.file(measure)).select("score", "guarded").collect()
    scores, guarded = found["score"].to_numpy(), found["guarded"].to_numpy()
    span = (float(scores.min(initial=1.0)), 1.0 + 1e-9)
    frames = []
    for kind, part in zip(PAIR_KINDS, (scores[~guarded], scores[guarded]), strict=True):
        counts, edges = np.histogram(part, bins=bins, range=span)
        frames.append(pl.DataFrame({"score": edges[:-1], "to": edges[1:], "pairs": counts, "kind": kind}))
    return pl.concat(frames)


def naive_leaks(run: RunFolder) -> list[dict[str, Any]]:
    """What a random split would have leaked: measure, test_rows, expected, share, low, high (`splits.naive_leak`)."""
    found = run.manifest.get("naive_split")
    return [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []


def certificate_sentence(run: RunFolder) -> str:
    """Whether the run's own splits are clean, in words."""
    certificate = run.manifest.get("certificate")
    if not isinstance(certificate, dict):
        return "The splits of this run were not certified."
    searched = f"{certificate['comparisons']:,} pairs of rows across the splits were compared"
    if certificate["passed"]:
        return f"The splits of this run leak nothing: {searched}, none reaches the leak threshold."
    return f"The splits of this run LEAK: {searched}, {certificate['pairs']:,} reach the leak threshold."


def no_contamination(run: RunFolder) -> str:
    """Why the contamination table is empty."""
    if "contamination" in run.manifest.get("files", {}):
        return "No row resembles an item of the benchmarks it was compared with."
    return "No benchmark was given. Name one under `contamination: references:` in the recipe."


@dataclass(frozen=True)
class Balance:
    """What balancing did: names and values to read, and a histogram (bin, set, rows)."""

    facts: list[tuple[str, str]]
    bins: pl.DataFrame


def balance(run: RunFolder) -> Balance | None:
    """What balancing did, as the manifest tells it; None when the recipe has no balance."""
    found = run.manifest.get("balance")
    if not isinstance(found, dict) or not found.get("bins"):
        return None
    before, after = found["before"], found["after"]
    facts = [
        ("rows", f"{before['rows']:,} → {after['rows']:,}"),
        ("effective number of bins", f"{before['effective_bins']:.1f} → {after['effective_bins']:.1f}"),
        ("entropy", f"{before['entropy']:.2f} → {after['entropy']:.2f}"),
        ("length in", str(found.get("unit", "words"))),
        ("chosen by", str(found.get("chosen_by", "—"))),
    ]
    lines = [
        {"bin": _bin_name(each), "set": name, "rows": each[name]}
        for each in found["bins"]
        for name in ("before", "after")
    ]
    return Balance(facts, pl.DataFrame(lines))


def _bin_name(each: dict[str, Any]) -> str:
    low, high = each["low"], each["high"]  # both ends belong to the bin
    span = f"{low}–{high}" if high > low else f"{low}"
    return span if each.get("turns", "all") == "all" else f"{span}, {each['turns']}"
