"""Leakage between splits in words: what the data came with, a random split would have had, and a run still has."""

from __future__ import annotations

from siftune.curation.run.folder import RunFolder


def random_split_sentence(run: RunFolder) -> str:
    """What a random split would have leaked; empty where nothing was measured, or nothing would leak."""
    leaks = [leak for leak in run.manifest.naive_split if leak.expected > 0]
    shares = ", ".join(f"{100 * leak.share:.1f} % ({leak.measure})" for leak in leaks)
    return f"A random split would have leaked {shares} of its test rows." if leaks else ""


def given_split_sentence(run: RunFolder) -> str:
    """How many held-out rows had a similar training row in the splits that the data came with; empty without any."""
    if not run.manifest.given_split:
        return ""
    *by_measure, of_any = run.manifest.given_split
    of_all = f"of the {of_any.held_out:,} held-out rows had a similar training row"
    if not of_any.rows:
        return f"As the data came, none {of_all} ({', '.join(leak.measure for leak in by_measure)})."
    counts = ", ".join(f"{leak.rows:,} ({leak.measure})" for leak in by_measure)
    return f"As the data came, {of_any.rows:,} {of_all}: {counts}."


def certificate_sentence(run: RunFolder) -> str:
    """Whether the run's own splits are clean."""
    certificate = run.manifest.certificate
    if certificate is None:
        advice = "To hold 300 out without leaks, write splits: {test: 300} into the recipe."
        return f"This run holds no rows out, so none can leak. {advice}"
    held_out = " and ".join(f"{rows:,} {name}" for name, rows in certificate.rows.items() if name != "train")
    measures = ", ".join(certificate.thresholds)
    searched = f"({measures}; {held_out} rows against every row of any arm: {certificate.comparisons:,} comparisons)"
    if certificate.passed:
        return f"No pair across splits reaches a leak threshold {searched}."
    return f"LEAK: {certificate.pairs:,} pairs across splits reach a leak threshold {searched}."
