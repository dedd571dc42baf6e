"""What several pages compute from a run; independent of Streamlit. Other facts of a run: `curation.review`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.review.annotations import Annotation
from siftune.curation.review.catalogue import Catalogue, Positions, Query
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import threshold_stages
from siftune.curation.review.token_lengths import TokenLengths
from siftune.curation.review.what_if import ThresholdReplays
from siftune.curation.review.wording import percent
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override
from siftune.curation.stages import stages
from siftune.training.evaluation.formatting import format_interval, format_number
from siftune.training.evaluation.verdict import Verdict

#: What a filter by decisions by hand can ask for.
BY_HAND = ("restore", "drop", "note")


@dataclass(frozen=True)
class Figure:
    """A number to read from across the room.

    Attributes:
        label: what it counts.
        value: the number, or two with an arrow between them.
        note: what else one must know.
        page: the title of the page that explains it.
        link: the text of the link to it.
        params: the query parameters of its address.
    """

    label: str
    value: str
    note: str
    page: str
    link: str
    params: dict[str, list[str]] = field(default_factory=dict)


def figures(catalogue: Catalogue, lengths: TokenLengths | None) -> list[Figure]:
    """The figures that Overview opens with: rows, length of the answers, leaks, contaminated items, verdict.

    Args:
        catalogue: the rows of the run.
        lengths: the rows' lengths in tokens; None: answers are counted in words.
    """
    run = catalogue.run
    return [
        _rows_figure(catalogue),
        _answers_figure(catalogue, lengths),
        _leaks_figure(run),
        _contamination_figure(run),
        _verdict_figure(run),
    ]


def _rows_figure(catalogue: Catalogue) -> Figure:
    fates = catalogue.counts(catalogue.find(Query()), "fate")
    kept = fates.get("kept", 0)
    share = percent(kept, len(catalogue))
    note = f"rows in → kept{f' ({share})' if share else ''}"
    return Figure("Rows", f"{len(catalogue):,} → {kept:,}", note, "Browse", "Kept rows", {"fate": ["kept"]})


def _answers_figure(catalogue: Catalogue, lengths: TokenLengths | None) -> Figure:
    alive = (catalogue.frame["fate"] != "quarantined").fill_null(value=True).to_numpy()
    kept = (catalogue.frame["fate"] == "kept").fill_null(value=False).to_numpy()
    if lengths is not None and len(lengths.answer) == int(alive.sum()):
        unit, per_row, of_kept = "tokens", lengths.answer, kept[alive]
        note = f"in → kept, by the tokenizer of {lengths.tokenizer.rpartition('/')[2]}"
    else:
        unit, per_row, of_kept = "words", catalogue.frame["answer_words"].fill_null(0).to_numpy(), kept
        note = "in → kept"
    before, after = (int(part.sum(dtype=np.int64)) for part in (per_row, per_row[of_kept]))
    longest_first = {"fate": ["kept"], "order": ["answer_words"], "down": ["1"]}
    value = f"{short_number(before)} → {short_number(after)}"
    return Figure(f"Answer {unit}", value, note, "Browse", "Longest answers", longest_first)


def _leaks_figure(run: RunFolder) -> Figure:
    certificate, leaks = run.manifest.certificate, run.manifest.naive_split
    worst = max(leaks, key=lambda leak: leak.expected, default=None)
    before = "—" if worst is None else f"{worst.expected:,.1f}"
    after = "—" if certificate is None else f"{certificate.pairs:,}"
    note = "test rows with a similar training row"
    if run.manifest.given_split:
        of_any = run.manifest.given_split[-1]
        before, note = f"{of_any.rows:,}", f"of {of_any.held_out:,} held-out rows as the data came → this run"
    elif worst is None and certificate is None:
        return Figure("Leaked test rows", "—", "no rows are held out", "Browse", "All rows")
    elif worst is not None:
        note = f"of {worst.test_rows:,} test rows, on average over random splits ({worst.measure}) → this run"
    return Figure("Leaked test rows", f"{before} → {after}", note, "Browse", "Test rows", {"split": ["test"]})


def _contamination_figure(run: RunFolder) -> Figure:
    by_threshold = any(stage.name == CONTAMINATION for stage in threshold_stages(run))
    page = "Thresholds" if by_threshold else "Decisions"
    settings = run.recipe.contamination
    if settings is None or not settings.references:
        return Figure("Contaminated items", "—", "no benchmark was given", "Decisions", "Decisions")
    same = run.matches().filter(pl.col("outcome") == "same")
    items, rows = same["reference"].n_unique(), same["id"].n_unique()
    done = {"drop": "dropped", "report": "reported"}[settings.action]
    note = f"of benchmarks, in {rows:,} {done} row{'' if rows == 1 else 's'}"
    return Figure("Contaminated items", f"{items:,}", note, page, "Why", {"stage": [CONTAMINATION]})


def _verdict_figure(run: RunFolder) -> Figure:
    verdict = Verdict.read(run)
    if verdict is None or not verdict.declared:
        return Figure("Verdict", "—", "the arms are not compared yet", "Verdict", "What to run")
    first = verdict.declared[0]
    note = f"{first.name}, nats per token {format_interval(first.difference.per_token)}: {first.outcome}"
    # A single training run proves nothing, so that its difference is not what one should see from afar.
    is_single = first.outcome == "single run"
    value = "no verdict" if is_single else format_number(first.difference.per_token.value, digits=3)
    return Figure("Verdict", value, note, "Verdict", "All comparisons")


def short_number(number: int) -> str:
    """A count in three digits: 9,999 as it is, then 12.3k, 1.23M.

    >>> short_number(9_999), short_number(12_345), short_number(999_999), short_number(1_234_567)
    ('9,999', '12.3k', '1.00M', '1.23M')
    """
    if number < 10_000:
        return f"{number:,}"
    for size, letter in ((1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G")):
        scaled = number / size
        digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
        if scaled < 999.5:
            return f"{scaled:.{digits}f}{letter}"
    return f"{number:.3g}"


def rows_by_hand(
    catalogue: Catalogue, query: Query, annotations: Mapping[str, Annotation], overrides: Mapping[str, Override]
) -> Positions | None:
    """Positions, rising, of the rows with every tag that a query asks for and any of its decisions by hand.

    None where the query asks for neither.

    Args:
        catalogue: the rows of the run.
        query: what is asked for.
        annotations: notes and tags by row id.
        overrides: decisions by hand by row id.
    """
    if not query.tag and not query.by_hand:
        return None
    ids = [row_id for row_id, annotation in annotations.items() if set(query.tag) <= set(annotation.tags)]
    if query.by_hand:
        decided = {row_id for row_id, override in overrides.items() if override.action in query.by_hand}
        noted = {row_id for row_id, annotation in annotations.items() if annotation.note}
        chosen = decided | (noted if "note" in query.by_hand else set())
        ids = [row_id for row_id in ids if row_id in chosen] if query.tag else sorted(chosen)
    found_rows = catalogue.frame["id"].is_in(pl.Series(ids, dtype=pl.String).implode())
    return np.flatnonzero(found_rows.to_numpy()).astype(np.uint32)


@dataclass(frozen=True)
class ReplayCounts:
    """What a threshold leaves.

    Attributes:
        dropped: rows that the stage drops.
        reported: rows that it only reports as an item of a benchmark.
        left: rows left after all stages that can be replayed, before splits and balance.
        length: the length of these rows (instruction and answer) in tokens or words.
    """

    dropped: int
    reported: int
    left: int
    length: int


@dataclass(frozen=True)
class ThresholdEffect:
    """A threshold beside the run's own; `unmeasured` rows reach a stage now that did not measure them in the run."""

    chosen: ReplayCounts
    current: ReplayCounts
    unmeasured: int


def threshold_effect(
    catalogue: Catalogue,
    replays: ThresholdReplays,
    stage: str,
    threshold: float,
    lengths: NDArray[np.uint32] | None = None,
) -> ThresholdEffect:
    """Replay the stages with another threshold of one of them, exactly.

    Args:
        catalogue: the rows of the run.
        replays: of this run.
        stage: the name of a stage with a threshold.
        threshold: its new threshold; at the run's own, what the run recorded is the answer.
        lengths: the length of every row of EXAMPLES in tokens, uint32 [rows]; None: lengths in words.

    Raises:
        UserError: as `ThresholdReplays.replay`.
    """
    lengths = _words(catalogue) if lengths is None else lengths
    current = recorded_counts(catalogue, stage, lengths)
    if any(one.name == stage and one.similarity.threshold == threshold for one in threshold_stages(catalogue.run)):
        return ThresholdEffect(current, current, 0)
    replayed = replays.replay({stage: threshold})
    left = np.concatenate([replays.stored.others, replayed.left["row"].to_numpy()])
    decisions = replayed.decisions[stage]
    reported = decisions.filter(pl.col("action") == "report", pl.col("reason") == "contamination").height
    dropped = decisions.filter(pl.col("action") == "drop").height
    chosen = ReplayCounts(dropped, reported, len(left), int(lengths[left].sum(dtype=np.int64)))
    return ThresholdEffect(chosen, current, sum(replayed.unmeasured.values()))


def recorded_counts(catalogue: Catalogue, stage: str, lengths: NDArray[np.uint32] | None) -> ReplayCounts:
    """What the run itself counted, from its ledger and its rows: the same as a replay of its own thresholds.

    Args:
        catalogue: the rows of the run.
        stage: the name of a stage with a threshold.
        lengths: as `threshold_effect` takes it.
    """
    run = catalogue.run
    lengths = _words(catalogue) if lengths is None else lengths
    decided = pl.scan_parquet(run.ledger_path, glob=False).filter(pl.col("stage") == stage).select("action", "reason")
    is_report = (pl.col("action") == "report") & (pl.col("reason") == "contamination")
    dropped, reported = (
        decided.select((pl.col("action") == "drop").sum(), is_report.sum().alias("reported")).collect().row(0)
    )
    # Left are the rows that were dropped neither by hand nor by a stage that a replay decides again.
    replayed = ["overrides", *(one.name for one in stages(run.recipe, base=Path(run.manifest.recipe_folder)))]
    lost = (pl.col("fate") == "dropped") & pl.col("stage").is_in(replayed)
    left = _of_examples(catalogue, (~lost).fill_null(value=True)).to_numpy()
    return ReplayCounts(int(dropped), int(reported), int(left.sum()), int(lengths[left].sum(dtype=np.int64)))


def _words(catalogue: Catalogue) -> NDArray[np.uint32]:
    """Words of prompt and answer of every row of EXAMPLES, uint32 [rows]."""
    words = pl.sum_horizontal(pl.col("prompt_words", "answer_words").cast(pl.UInt32))
    return _of_examples(catalogue, words).to_numpy()


def _of_examples(catalogue: Catalogue, values: pl.Expr) -> pl.Series:
    """Values of the rows of EXAMPLES, which are those that could be read."""
    is_readable = (pl.col("fate") != "quarantined").fill_null(value=True)
    return catalogue.frame.select(values.filter(is_readable)).to_series()
