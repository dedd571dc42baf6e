"""Selected arms of whole runs: their rows, their controls, and what is said of each row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from siftune.curation import pipeline
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review.explain import explain
from siftune.curation.run.folder import RunFolder
from siftune.curation.selection import facility_location
from tests.worlds import bag_encoder, cosine, many, write_recipe, write_source

ARMS: list[dict[str, Any]] = [
    {"name": "diverse", "select": {"by": "coverage", "share": 0.25}},
    {"name": "diverse-good", "select": {"by": "coverage", "rows": 12, "quality": "marks.reward", "alpha": 0.9}},
    {"name": "for-my-task", "select": {"by": "targeted", "examples": "task.jsonl", "rows": 12}},
    {"name": "best", "select": {"by": "score", "column": "stars", "rows": 12}, "controls": ["random"]},
    {"name": "middle", "select": {"by": "score", "column": "stars", "take": "range", "low": 2, "high": 3}},
    {"name": "each", "select": {"by": "score", "column": "stars", "take": "stratified", "share": 0.5}, "controls": []},
]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report decides nothing and has tests of its own."""
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """60 rows of two sources with scores, some of which are no numbers; and examples, one of which is a row."""
    folder = tmp_path_factory.mktemp("selected-arms")
    made = many(60)
    for number, row in enumerate(made):
        stars: Any = [1, "2", 3.5, None, True, "three", 5][number % 7]
        row |= {"stars": stars, "marks": {"reward": (number * 7) % 11}, "data": "ab"[number % 3 == 0]}
    write_source(made, folder / "s.jsonl")
    examples = [{"instruction": row["instruction"], "output": "of another kind"} for row in many(4, seed=50)]
    examples.append({"instruction": made[4]["instruction"], "output": made[4]["output"]})
    write_source(examples, folder / "task.jsonl")
    with bag_encoder(folder / "cache"):
        yield folder


def recipe(here: Path, arms: list[Any], *, run: str) -> Path:
    return write_recipe(
        here,
        "s.jsonl",
        run=run,
        sources=[{"path": "s.jsonl", "name": "s", "source_column": "data"}],
        encoder="bag",
        splits={"test": 6, "near": 0.95, "semantic": 1.0},
        model={"name": "nowhere.gguf"},
        training={"arms": ["curated", *arms]},
    )


@pytest.fixture(scope="module")
def run(here: Path) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.report, "write", lambda run: None)
        return curate(recipe(here, ARMS, run="all"))


def arm(run: RunFolder, name: str) -> pl.DataFrame:
    return pl.read_parquet(run.arm(name))


def explained(run: RunFolder, name: str) -> pl.DataFrame:
    return pl.read_parquet(run.selection(name))


def test_every_arm_is_a_part_of_the_curated_rows_and_every_row_of_these_is_explained(run):
    curated = set(arm(run, "curated")["id"])
    for name in run.selections():
        frame = explained(run, name)
        assert set(frame["id"]) == curated
        assert frame["detail"].null_count() == 0
        taken = frame.filter(pl.col("rank").is_not_null())
        assert taken["rank"].to_list() == list(range(1, taken.height + 1))
        assert set(taken["id"]) == set(arm(run, name)["id"])
        assert 0 < taken.height < len(curated)
    assert run.selections() == sorted(one["name"] for one in ARMS)


def test_controls_have_as_many_curated_rows_and_are_drawn_alike_for_arms_of_one_size(run):
    records, curated = run.manifest.finished_counts().arms, set(arm(run, "curated")["id"])
    for name in ("diverse", "diverse-good", "for-my-task", "middle"):
        for control in (f"{name}-random", f"{name}-balanced-random"):
            assert records[control].rows == records[name].rows
            assert set(arm(run, control)["id"]) <= curated
            assert set(arm(run, control)["id"]) != set(arm(run, name)["id"])
    assert "best-random" in records["diverse-good-random"].same_as
    sources = dict(arm(run, "diverse-good-balanced-random")["source"].value_counts().iter_rows())
    assert sorted(sources.values()) == [6, 6]
    assert "best-balanced-random" not in records
    assert not [name for name in records if name.startswith("each-")]
    rows = run.rows().filter(pl.col("arms").list.contains("diverse-random"))
    assert set(rows["id"]) == set(arm(run, "diverse-random")["id"])


def test_coverage_says_what_every_row_was_taken_for(run, here):
    frame = explained(run, "diverse")
    texts = dict(pl.read_parquet(run.texts).select("id", "core").iter_rows())
    taken = frame.filter(pl.col("rank").is_not_null())["id"].to_list()
    assert taken == greedy_by_hand([texts[row] for row in sorted(frame["id"], key=number_of)], len(taken), frame)
    for row in frame.iter_rows(named=True):
        others = taken[: row["rank"] - 1] if row["rank"] else taken
        if others:
            closest = max(cosine(texts[row["id"]], texts[other]) for other in others)
            assert cosine(texts[row["id"]], texts[row["witness"]]) == pytest.approx(closest, abs=2e-3)
            assert row["similarity"] == pytest.approx(closest, abs=2e-3)
    covered = frame.filter(pl.col("rank").is_null())["witness"].value_counts()
    counted = frame["detail"].str.extract(r"^covers (\d+) other rows").cast(pl.Int64).sum()
    assert counted == covered["count"].sum() == frame.height - len(taken)


def number_of(row_id: str) -> int:
    return int(row_id.rpartition(":")[2])


def greedy_by_hand(texts: list[str], count: int, frame: pl.DataFrame) -> list[str]:
    """The rows of plain greedy choice in floating point; no two gains of these data are as close as its errors."""
    ids = sorted(frame["id"], key=number_of)
    similar = np.asarray([[cosine(one, other) for other in texts] for one in texts])
    closest, chosen = np.zeros(len(texts)), []
    for _ in range(count):
        gains = np.maximum(similar - closest, 0).sum(axis=1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        closest = np.maximum(closest, similar[chosen[-1]])
    return [ids[row] for row in chosen]


def test_quality_draws_the_choice_to_better_rows(run):
    taken, plain = (explained(run, name).filter(pl.col("rank").is_not_null()) for name in ("diverse-good", "diverse"))
    assert taken["score"].to_list() == pytest.approx((0.1 * taken["gain"] + 0.9 * taken["quality"] / 10).to_list())
    quality = explained(run, "diverse-good").select("id", "quality")
    assert taken["quality"].mean() > plain.select("id").join(quality, on="id")["quality"].mean()


def test_examples_take_turns_and_rows_that_hold_one_are_left_out(run):
    frame = explained(run, "for-my-task")
    taken = frame.filter(pl.col("rank").is_not_null())
    assert taken["witness"].to_list() == [f"task:{number % 5}" for number in range(12)]
    assert taken["similarity"].equals(taken["score"])
    held = frame.filter(pl.col("detail").str.starts_with("left out, since it holds an example"))
    assert held["rank"].null_count() == held.height > 0
    assert set(held["witness"]) == {"task:4"}
    assert (
        f"after {held.height} rows that hold an example" in run.manifest.finished_counts().arms["for-my-task"].selection
    )


def test_scores_that_are_no_numbers_are_left_out_and_said(run):
    frame = explained(run, "best")
    stars = {0: 1.0, 1: 2.0, 2: 3.5, 6: 5.0}
    for row, quality, rank, detail in frame.select("id", "quality", "rank", "detail").iter_rows():
        assert quality == stars.get(number_of(row) % 7)
        if quality is None:
            assert rank is None
            assert detail == "left out: no number in the column stars"
    best = frame.filter(pl.col("rank").is_not_null())["quality"].to_list()
    assert best == sorted((one for one in frame["quality"] if one is not None), reverse=True)[:12]


def test_a_range_takes_all_rows_inside_and_says_who_is_outside(run):
    frame = explained(run, "middle")
    assert set(frame.filter(pl.col("rank").is_not_null())["quality"]) == {2.0}
    outside = frame.filter(pl.col("quality").is_not_null(), pl.col("rank").is_null()).sort("quality")
    assert set(outside["detail"]) == {"left out: below 2", "left out: above 3"}


def test_strata_get_their_share_and_give_their_best(run):
    frame = explained(run, "each").join(run.rows().select("id", "source"), on="id").filter(pl.col("quality") > 0)
    wanted = round(0.5 * arm(run, "curated").height)
    for _, stratum in frame.group_by("source"):
        taken = stratum.filter(pl.col("rank").is_not_null())["quality"].to_list()
        share = wanted * stratum.height / frame.height
        assert math.floor(share) <= len(taken) <= math.ceil(share)
        assert sorted(taken) == sorted(stratum["quality"])[stratum.height - len(taken) :]


def test_the_same_recipe_gives_the_same_files_and_another_one_leaves_none_behind(run, here):
    again = curate(recipe(here, ARMS, run="again"))
    for name in run.selections():
        assert run.selection(name).read_bytes() == again.selection(name).read_bytes()
        assert run.arm(name).read_bytes() == again.arm(name).read_bytes()
    fewer = curate(recipe(here, ARMS[:1], run="again"))
    assert fewer.selections() == ["diverse"]
    assert "best-random" not in fewer.arms()


def test_above_a_size_only_nearest_neighbours_count_and_the_run_says_so(here, monkeypatch):
    monkeypatch.setattr(facility_location, "EXACT_ROWS", 0)
    small = curate(recipe(here, ARMS[:1], run="neighbours"))
    assert "of each row only its" in small.manifest.finished_counts().arms["diverse"].selection


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"by": "score", "column": "star", "rows": 3}, "in the column 'star'. Did you mean 'stars'"),
        ({"by": "score", "column": "marks.rewards", "rows": 3}, "Columns with numbers: stars"),
        ({"by": "targeted", "examples": "absent.jsonl", "rows": 3}, "absent.jsonl"),
        ({"by": "coverage", "rows": 3, "share": 0.2}, "not both"),
        ({"by": "coverage"}, "set `rows`"),
        ({"by": "coverage", "rows": 3, "column": "stars"}, "unknown key"),
        ({"by": "score", "column": "stars", "take": "range"}, "needs `low`, `high`"),
        ({"by": "score", "column": "stars", "low": 3, "high": 1, "rows": 3}, "above high"),
        ({"by": "nearest", "rows": 3}, "by: coverage"),
    ],
)
def test_what_cannot_be_chosen_by_is_said(here, select, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace("`", ".")):
        curate(recipe(here, [{"name": "chosen", "select": select}], run="faults"))


def test_a_name_of_a_control_is_taken(here):
    arms = [ARMS[0], {"name": "diverse-random", "without": ["near"]}]
    with pytest.raises(UserError, match="two arms have the name 'diverse-random'"):
        curate(recipe(here, arms, run="faults"))


def test_what_is_explained_of_a_row_names_every_selected_arm(run):
    first = explained(run, "diverse")["id"][0]
    lines = {line.arm: line for line in explain(run, first).selections}
    assert list(lines) == run.selections()
    assert lines["diverse"].rank == 1
    assert lines["diverse"].sentence.startswith("taken as number 1; score ")
    other = explained(run, "for-my-task").filter(pl.col("rank").is_null(), pl.col("similarity") > 0)
    line = {one.arm: one for one in explain(run, other["id"][0]).selections}["for-my-task"]
    assert line.rank is None
    assert line.sentence.startswith("not taken; its closest example: task:")
    assert not explain(run, run.rows().filter(split="test")["id"][0]).selections
