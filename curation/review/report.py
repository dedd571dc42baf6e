"""The report of a run: `report.html`, one file without a network, and `report.md`."""

from __future__ import annotations

from math import floor
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from siftune.curation.atomic_files import write_text
from siftune.curation.review import charts
from siftune.curation.review import facts as findings
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.hidden_characters import visible


def write(run: RunFolder) -> None:
    """Write both reports of a curated run. All dataset text is escaped and made visible."""
    manifest = run.manifest
    found = findings.gather(run)
    facts: dict[str, Any] = {
        "manifest": manifest,
        "counts": manifest["counts"],
        "saved": findings.saved(manifest),
        "found": found,
        "warnings": [f"{each['name']}: {said}" for each in manifest["inputs"] for said in each.get("warnings", [])],
        "leak_pairs": manifest.get("naive_split", []),
        "certificate": manifest.get("certificate"),
        "balance": manifest.get("balance"),
    }
    write_text(_render("report.md.j2", facts, escape=False), run.path / "report.md")
    write_text(
        _render("report.html.j2", facts | {"charts": _charts(found, manifest)}, escape=True), run.path / "report.html"
    )


def _charts(found: findings.Findings, manifest: dict[str, Any]) -> dict[str, str]:
    kept = found.rows.filter(pl.col("fate") == "kept", pl.col("split") == "train")
    readable = found.rows.filter(pl.col("fate") != "quarantined")
    if not readable.height:
        return {}
    drawn = {
        name: charts.lengths(readable[column], kept[column], title=title)
        for name, column, title in (
            ("prompts", "prompt_words", "Instruction length"),
            ("answers", "answer_words", "Answer length"),
        )
    }
    for border in found.borders:
        if border.pairs.height:
            drawn[f"pairs of {border.measure}"] = charts.scores(
                border.pairs["score"], threshold=border.threshold, title=f"Pairs: {border.measure}"
            )
    if manifest.get("balance"):
        drawn["balance"] = charts.balance(manifest["balance"]["bins"])
    return drawn


def _render(template: str, facts: dict[str, Any], *, escape: bool) -> str:
    environment = Environment(
        loader=PackageLoader("siftune.curation.review", "."),
        autoescape=escape,  # noqa: S701 - Markdown cells go through the `cell` filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda text: visible(str(text))
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["below"] = _below
    environment.filters["cell"] = lambda text: (
        visible(str(text)).replace("|", "\\|").replace("\n", " ").replace("`", "'")
    )
    return environment.get_template(template).render(facts)


def _below(score: float) -> str:
    """Four digits, cut and not rounded: 0.89999 is below a threshold of 0.9 and must not read as if it reached it."""
    return f"{floor(score * 10_000 + 1e-6) / 10_000:.4f}"
