"""A replay looks only at rows that a measure names; the oracle here decides on all rows, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.replay import ReplayInput, decide_again
from siftune.curation.stages import STAGES, Stage, compared_rows, stages

ROWS, EARLIER = 80, 5


def configured(numbers: np.random.Generator) -> list[Stage]:
    """Every stage, with drawn thresholds."""
    near, answers, semantic, contamination = numbers.uniform(0.5, 1, 4).round(2).tolist()
    document = {
        "sources": [{"path": "s.jsonl"}],
        "encoder": "bag",
        "checks": {"empty_answer": "drop"},
        "duplicates": {
            "near": {"threshold": near, "floor": 0.5},
            "answers": {"threshold": answers, "floor": 0.5, "max_per_answer": int(numbers.integers(1, 4))},
            "semantic": {"threshold": semantic, "floor": 0.5},
            "conflicts": str(numbers.choice(["drop", "report"])),
        },
        "contamination": {"references": [{"path": "exam.jsonl"}], "threshold": contamination},
    }
    all_stages = stages(Recipe.model_validate(document), base=Path())
    assert [stage.name for stage in all_stages] == [stage.name for stage in STAGES]
    return all_stages


def index(numbers: np.random.Generator, ids: list[str], *, first_row: int) -> pl.DataFrame:
    rows = pl.DataFrame({"id": ids, "rank": numbers.permutation(len(ids)), "turns": numbers.integers(1, 9, len(ids))})
    pinned = numbers.random(len(ids)) < 0.1
    return schema.conform(rows.with_columns(row=pl.int_range(pl.len()) + first_row, pinned=pinned), schema.INDEX)


def measured(stage: Stage, numbers: np.random.Generator, ids: list[str]) -> pl.DataFrame:
    """What a stage could have measured of some of the rows; equal texts as stars."""
    if stage.compares is None:
        some = numbers.choice(ids[:ROWS], 5).tolist()
        if stage.name == "checks":
            return schema.conform(pl.DataFrame({"id": some, "check": "empty_answer", "score": 0.0}), schema.FINDINGS)
        outcomes = numbers.choice(["same", "related", "decoy"], 5)
        scores = numbers.uniform(0.5, 1, 5).round(2)
        columns = {"id": some, "outcome": outcomes, "score": scores, "rule": schema.PARAPHRASE, "field": "prompt"}
        matches = pl.DataFrame(columns).with_columns(reference=pl.format("exam:{}", pl.int_range(pl.len())))
        return schema.conform(matches.with_columns(detail=pl.lit("d"), span=pl.lit("s")), schema.MATCHES)
    a, b = np.triu_indices(len(ids), 1)
    drawn = numbers.random(a.size) < 0.004
    a, b = a[drawn], b[drawn]
    score = numbers.uniform(0.5, 0.99, a.size).round(2)
    if stage.similarity is None or stage.name == "answers":
        first = np.array([row if numbers.random() < 0.95 else numbers.integers(row + 1) for row in range(len(ids))])
        first = np.where(first[first] == first, first, np.arange(len(ids)))
        later = np.flatnonzero(first != np.arange(len(ids)))
        roots = first == np.arange(len(ids))
        between = roots[a] & roots[b] & (stage.name == "answers")
        a, b = np.concatenate([a[between], first[later]]), np.concatenate([b[between], later])
        score = np.concatenate([score[between], np.ones(later.size)])
    names = pl.Series(ids)
    columns = {"a": names.gather(a), "b": names.gather(b), "score": score, "guarded": numbers.random(a.size) < 0.1}
    return schema.conform(pl.DataFrame(columns).with_columns(measure=pl.lit(stage.name)), schema.PAIRS)


def by_definition(
    all_stages: list[Stage], first: pl.DataFrame, ledger: pl.DataFrame, files: dict[str, Path], earlier: pl.DataFrame
) -> tuple[dict[str, pl.DataFrame], list[str], dict[str, int]]:
    """Decisions, ids that are left, rows that a stage did not measure: all rows go through all stages."""
    alive, in_run = first, set(first["id"])
    decisions, unmeasured = {}, {}
    for stage in all_stages:
        if unknown := len(set(alive["id"]) - in_run):
            unmeasured[stage.name] = unknown
        decided = stage.decide(compared_rows(stage, alive, earlier), pl.read_parquet(files[stage.name]))
        decisions[stage.name] = decided.filter(pl.col("id").is_in(alive["id"].implode()))
        gone = decisions[stage.name].filter(pl.col("action") == "drop")["id"]
        alive = alive.filter(~pl.col("id").is_in(gone.implode()))
        in_run -= set(ledger.filter(pl.col("stage") == stage.name, pl.col("action") == "drop")["id"])
    return decisions, alive["id"].to_list(), unmeasured


@given(seed=st.integers(0, 10**6), with_earlier=st.booleans())
@settings(max_examples=12, deadline=None)
def test_rows_that_no_measure_names_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, *, seed: int, with_earlier: bool
) -> None:
    numbers = np.random.default_rng(seed)
    all_stages = configured(numbers)
    ids = [f"s:{row}" for row in range(ROWS)]
    earlier_ids = [f"e:{row}" for row in range(EARLIER if with_earlier else 0)]
    first = index(numbers, ids, first_row=0)
    earlier = index(numbers, earlier_ids, first_row=ROWS).with_columns(pinned=pl.lit(value=True))
    folder, files = tmp_path_factory.mktemp("replay"), {}
    for stage in all_stages:
        files[stage.name] = folder / f"{stage.name}.parquet"
        measured(stage, numbers, ids + earlier_ids).write_parquet(files[stage.name])
    # The ledger of the run says other things than these measures: a run with other thresholds wrote it.
    lost = numbers.permutation(ids)[:6].tolist()
    entries = pl.DataFrame({"id": lost, "action": "drop", "stage": numbers.choice([one.name for one in all_stages], 6)})
    ledger = schema.conform(entries, schema.LEDGER)
    expected, left, unmeasured = by_definition(all_stages, first, ledger, files, earlier)

    given_rows: dict[str, Any] = {"first": first, "ledger": ledger, "measure": files.__getitem__, "earlier": earlier}
    replayed = decide_again(all_stages, **given_rows)
    stored = ReplayInput.read([stage.name for stage in all_stages], **given_rows)
    assert 0 < stored.others.size < ROWS
    start = int(numbers.integers(len(all_stages)))
    in_two_parts = stored.decide(all_stages, before=stored.decide(all_stages[:start]))
    for decided in (replayed, in_two_parts):
        assert list(decided.decisions) == list(expected)
        for stage_name, decisions in expected.items():
            assert decided.decisions[stage_name].equals(decisions), stage_name
        assert decided.unmeasured == unmeasured
    assert replayed.left["id"].to_list() == left
    assert sorted([*in_two_parts.left["row"], *stored.others.tolist()]) == replayed.left["row"].to_list()
