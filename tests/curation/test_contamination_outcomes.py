"""What decoys say about false matches, against a plain count, and how thresholds follow from it."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.contamination_outcomes import FALSE_DISCOVERY, false_discovery, settle


def matches(*lines: tuple[str, str, str, float]) -> pl.DataFrame:
    """MATCHES by `layered/semantic` from (id, reference, outcome, score)."""
    frame = pl.DataFrame(lines, schema=["id", "reference", "outcome", "score"], orient="row")
    return schema.conform(frame.with_columns(rule=pl.lit(schema.PARAPHRASE)), schema.MATCHES)


LINES = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.sampled_from(["one:0", "one:1", "two:0"]),
        st.sampled_from(["same", "same", "decoy"]),
        st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9]),
    ),
    max_size=25,
)


def plain_counts(lines: list[tuple[str, str, str, float]], benchmark: str, threshold: float) -> tuple[int, int]:
    """Rows that match an item, and rows that match a decoy and no item."""
    reached = [line for line in lines if line[1].startswith(benchmark) and line[3] >= threshold]
    items = {row for row, _, outcome, _ in reached if outcome == "same"}
    return len(items), len({row for row, _, outcome, _ in reached if outcome == "decoy"} - items)


@given(LINES, st.sampled_from([0.0, 0.1, 0.4, 1.0]))
def test_the_threshold_is_the_lowest_that_keeps_the_rate(lines: list[tuple[str, str, str, float]], most: float) -> None:
    rates = false_discovery(matches(*lines), threshold=0.5, most=most)
    assert rates.schema == FALSE_DISCOVERY
    for line in rates.iter_rows(named=True):
        scores = sorted({0.5} | {score for _, name, _, score in lines if name.startswith(line["benchmark"])})
        allowed = []
        for score in scores:
            items, decoys = plain_counts(lines, line["benchmark"], score)
            if decoys <= most * items:
                allowed.append(score)
        lowest = min(allowed, default=float("inf"))
        items, decoys = plain_counts(lines, line["benchmark"], lowest)
        assert line["threshold"] == lowest
        assert (line["matches"], line["decoys"]) == ((items, decoys) if items else (0, 0))
        if items:
            assert line["low"] <= line["rate"] <= line["high"] <= 1


@given(LINES)
def test_without_a_limit_the_threshold_stays(lines: list[tuple[str, str, str, float]]) -> None:
    rates = false_discovery(matches(*lines), threshold=0.6, most=None)
    assert set(rates["threshold"]) <= {0.6}
    for line in rates.iter_rows(named=True):
        items, decoys = plain_counts(lines, line["benchmark"], 0.6)
        assert (line["matches"], line["decoys"]) == ((items, decoys) if items else (0, 0))


def test_the_interval_is_the_exact_one_of_a_poisson_count() -> None:
    lines = [(f"r{number}", "one:0", "same", 0.9) for number in range(40)]
    rates = false_discovery(
        matches(*lines, *[(f"d{n}", "one:0", "decoy", 0.9) for n in range(2)]), threshold=0.5, most=1
    )
    line = rates.row(0, named=True)
    # Garwood's limits of a count of two are 0.2422 and 7.2247.
    assert line["rate"] == pytest.approx(2 / 40)
    assert line["low"] == pytest.approx(0.2422 / 40, abs=1e-4)
    assert line["high"] == pytest.approx(7.2247 / 40, abs=1e-4)


def test_what_falls_below_the_threshold_of_its_benchmark_is_related() -> None:
    lines = [
        ("a", "one:0", "same", 0.9),
        ("b", "one:1", "same", 0.6),
        ("c", "one:1", "decoy", 0.7),
        ("d", "two:0", "same", 0.6),
    ]
    copied = matches(("e", "one:2", "same", 1.0)).with_columns(rule=pl.lit("layered/ngram"))
    settled = settle(pl.concat([matches(*lines), copied]), threshold=0.5, most=0.1)
    assert settled.select("id", "outcome", "threshold").rows() == [
        ("a", "same", 0.9),
        ("b", "related", 0.9),
        ("d", "same", 0.5),
        ("e", "same", None),
    ]
