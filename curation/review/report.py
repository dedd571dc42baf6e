"""The report of a run: `report.html`, one file without a network, and `report.md`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from siftune.curation import markdown
from siftune.curation.atomic_files import write_text
from siftune.curation.review import (
    arm_facts,
    charts,
    difficulty,
    diversity,
    funnel,
    leakage,
    lengths,
    samples,
    tables,
    wording,
)
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.samples import changed_words
from siftune.curation.review.wording import reason_text, score_text
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.hidden_characters import visible

if TYPE_CHECKING:
    import altair as alt


def write(run: RunFolder) -> None:
    """Write both reports of a curated run. All dataset text is escaped and made visible."""
    manifest, contamination_settings = run.manifest, run.recipe.contamination
    thresholds, arms = samples.threshold_samples(run), manifest.finished_counts().arms
    facts: dict[str, Any] = {
        "name": manifest.recipe_name,
        "version": manifest.siftune.version,
        "kept": funnel.kept_sentence(run),
        "words": funnel.words_sentence(run),
        "against": funnel.against_sentences(run),
        "funnel": funnel.funnel(manifest),
        "warnings": funnel.warnings(run),
        "by_source": tables.duplicates_by_source(run),
        "contamination": tables.contamination_table(run),
        "benchmarks": tables.benchmark_table(run),
        "false_discovery_note": wording.false_discovery_note(
            contamination_settings.max_false_discovery if contamination_settings else None
        ),
        "labels": {CONTAMINATION: "item:"},
        "references": bool(contamination_settings and contamination_settings.references),
        "no_contamination": tables.no_contamination_sentence(run),
        "random_split": manifest.naive_split,
        "certificate": manifest.certificate,
        "given_split": leakage.given_split_sentence(run),
        "certified": leakage.certificate_sentence(run),
        "balance": lengths.balance_summary(run),
        "diversity": diversity.diversity_sentence(run),
        "topics": tables.topic_table(run.rows()),
        "arms": arm_facts.arm_lines(arms),
        "arm_sentences": [
            *arm_facts.left_out_sentences(arms),
            *arm_facts.selection_sentences(arms),
            *arm_facts.arm_notes(arms),
        ],
        "difficulty": difficulty.ifd_summary(run),
        "difficulty_note": difficulty.KNOWN_FAILURES,
        "thresholds": thresholds,
        "decisions": tables.decision_counts(run),
        "samples": samples.decision_samples(run),
    }
    write_text(_render("report.md.j2", facts, escape=False), run.report_markdown)
    with charts.unchecked():
        facts["charts"] = _charts(run.rows(), thresholds, facts["balance"])
    write_text(_render("report.html.j2", facts, escape=True), run.report_html)


def _charts(
    rows: pl.DataFrame, thresholds: list[samples.ThresholdSamples], balance: lengths.BalanceSummary | None
) -> dict[str, str]:
    """Charts as SVG, by the name that the template knows them by; none where no row could be read."""
    readable = rows.filter(pl.col("fate") != "quarantined")
    if not readable.height:
        return {}
    drawings: dict[str, alt.Chart | alt.LayerChart] = {
        name: charts.lengths(lengths.length_histogram(readable, column), title=title)
        for name, column, title in (
            ("prompts", "prompt_words", "instruction length in words"),
            ("answers", "answer_words", "answer length in words"),
        )
    }
    for pairs in thresholds:
        if pairs.stored:
            threshold = pairs.stage.similarity.threshold
            drawings[f"pairs of {pairs.stage.name}"] = charts.scores(pairs.histogram, threshold=threshold)
    if balance is not None:
        drawings["balance"] = charts.balance(balance.bins)
    return {name: charts.svg(chart) for name, chart in drawings.items()}


def _render(template: str, facts: dict[str, Any], *, escape: bool) -> str:
    return _environment(escape=escape).get_template(template).render(facts)


@cache
def _environment(*, escape: bool) -> Environment:
    """Holds the compiled templates."""
    environment = Environment(
        loader=PackageLoader("siftune.curation.review", "."),
        autoescape=escape,  # noqa: S701 - Markdown cells go through the `cell` filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda text: visible(str(text))
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["score"] = score_text
    environment.filters["reason"] = reason_text
    environment.filters["threshold"] = wording.threshold_text
    environment.filters["false_discovery"] = wording.false_discovery_text
    environment.filters["sources"] = tables.sources_text
    environment.filters["changed"] = changed_words
    environment.filters["other_decisions"] = funnel.other_decisions
    environment.filters["cell"] = lambda text: markdown.escape(visible(str(text)))
    return environment
