"""How diverse the prompts are before and after curation, in words."""

from __future__ import annotations

from siftune.curation.run.folder import RunFolder


def diversity_sentence(run: RunFolder) -> str | None:
    """The Vendi score of the prompts before and after (`siftune.curation.topics.diversity`); None without topics."""
    record = run.manifest.diversity
    if record is None:
        return None
    return (
        f"Diversity of the prompts (Vendi score, the effective number of different prompts): {record.before:,.1f} of "
        f"{record.rows_before:,} rows → {record.after:,.1f} of {record.rows_after:,} training rows."
    )
