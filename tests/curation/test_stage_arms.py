"""Arms by stage against recipes that leave the stage out, and what is said of what such an arm cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from siftune.curation import pipeline
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import StageName
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, write_override
from siftune.curation.stages import STAGES
from tests.worlds import bag_encoder, many, rows, write_recipe, write_source

DUPLICATES: dict[str, Any] = {
    "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
    "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
    "conflicts": "drop",
    "semantic": {"threshold": 0.8, "floor": 0.6, "rows": 0.6},
}
#: A recipe in which every stage drops something.
EVERY_STAGE: dict[str, Any] = {
    "encoder": "bag",
    "duplicates": DUPLICATES,
    "contamination": {"references": [{"path": "quiz.jsonl"}], "max_false_discovery": None},
    "splits": {"near": 0.95, "semantic": 1.0},
    "model": {"name": "nowhere.gguf"},  # lengths are then counted in words
}
#: The same recipe without a stage, by its name.
WITHOUT: dict[str, dict[str, Any]] = {
    "checks": {"checks": {"empty_answer": "off"}},
    "exact": {"duplicates": {**DUPLICATES, "exact": False}},
    "prefixes": {"duplicates": {**DUPLICATES, "prefixes": False}},
    "near": {"duplicates": {**DUPLICATES, "near": None}},
    "answers": {"duplicates": {**DUPLICATES, "answers": None}},
    "conflicts": {"duplicates": {**DUPLICATES, "conflicts": "off"}},
    "semantic": {"duplicates": {**DUPLICATES, "semantic": None}},
    "contamination": {"contamination": None},
}


def data() -> list[dict[str, Any]]:
    """Rows with duplicates of every kind, split as they came: the last six are held out."""
    made = [{**row, "split": "train"} for row in many(90)]
    made += [dict(made[number]) for number in range(0, 30, 7)]  # exact
    made += [{**made[number], "output": made[number + 1]["output"]} for number in range(3, 60, 9)]  # conflicts
    shared = made[1]["output"].split()
    for number in range(40, 60, 4):  # one answer under many prompts
        made[number]["output"] = " ".join(shared)
    for number in range(61, 90, 4):  # the same words in another order
        sides = {side: " ".join(made[number - 30][side].split()[::-1]) for side in ("instruction", "output")}
        made[number] |= sides
    made.append({**made[10], "instruction": "an answer of signs", "output": "…"})
    held_out = many(18, seed=99)
    return made + [{**held_out[number], "split": "test"} for number in range(18) if number % 3 == 0]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report decides nothing and has tests of its own."""
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("stage-arms")
    made = data()
    write_source(made, folder / "s.jsonl")
    write_source([{key: made[6][key] for key in ("instruction", "output")}], folder / "quiz.jsonl")
    with bag_encoder(folder / "cache"):
        yield folder


def arms_without(*stages: str) -> dict[str, Any]:
    return {"arms": ["curated", "raw", *({"name": f"no-{stage}", "without": [stage]} for stage in stages)]}


@pytest.fixture(scope="module")
def run(here: Path) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.report, "write", lambda run: None)
        return curate(write_recipe(here, "s.jsonl", **EVERY_STAGE, run="all", training=arms_without(*WITHOUT)))


def ids(run: RunFolder, arm: str) -> list[str]:
    return pl.read_parquet(run.arm(arm))["id"].to_list()


def test_every_stage_and_balance_can_be_left_out() -> None:
    assert get_args(StageName) == (*(stage.name for stage in STAGES), "balance")
    assert set(WITHOUT) == {stage.name for stage in STAGES}


@pytest.mark.parametrize("stage", WITHOUT)
def test_an_arm_holds_what_a_recipe_without_the_stage_keeps(here: Path, run: RunFolder, stage: str) -> None:
    record = run.manifest.finished_counts().arms[f"no-{stage}"]
    assert record.left_out == [stage]
    arm, curated = ids(run, f"no-{stage}"), ids(run, "curated")
    dropped = set(run.ledger().filter(stage=stage, action="drop")["id"])
    if stage == "prefixes":  # no row of this data begins another
        assert not dropped
        assert record.same_as == ["curated"]
    else:
        assert dropped
        assert set(arm) - set(curated), "leaving the stage out changes nothing"

    other = curate(write_recipe(here, "s.jsonl", **{**EVERY_STAGE, **WITHOUT[stage]}, run=f"no-{stage}"))
    kept = ids(other, "curated")
    if not record.unmeasured:
        assert arm == kept
        return
    # A difference is explained by rows that the stage dropped, which no later stage measured: such a row stays in the
    # arm, and so does a row that the other recipe drops for one of them, and what is dropped for these.
    assert stage in ("checks", "exact", "near", "answers", "conflicts", "semantic")
    assert set(kept) <= set(arm)
    witnesses = dict(other.ledger().filter(action="drop").select("id", "witness").iter_rows())
    for row in set(arm) - set(kept):
        assert row in dropped or witnesses[row] in dropped


def test_what_no_stage_measured_is_counted(run: RunFolder) -> None:
    arms = run.manifest.finished_counts().arms
    dropped = run.ledger().filter(stage="near", action="drop").height
    assert arms["no-near"].unmeasured == dict.fromkeys(("answers", "conflicts", "semantic", "contamination"), dropped)
    assert not arms["no-contamination"].unmeasured
    assert not arms["curated"].left_out


def test_balance_chooses_again_or_not_at_all(here: Path) -> None:
    balanced = {**EVERY_STAGE, "contamination": None, "balance": {"rows": 30}}
    training = arms_without("semantic", "balance")
    training["arms"].append({"name": "dedup-only", "with": ["exact", "prefixes", "near", "answers", "conflicts"]})
    run = curate(write_recipe(here, "s.jsonl", **balanced, run="balanced", training=training))
    for stage, changed in (("semantic", WITHOUT["semantic"]), ("balance", {"balance": None})):
        other = curate(write_recipe(here, "s.jsonl", **{**balanced, **changed}, run=f"balanced-{stage}"))
        assert ids(run, f"no-{stage}") == ids(other, "curated")
        assert ids(run, f"no-{stage}") != ids(run, "curated")
    assert run.manifest.finished_counts().arms["no-semantic"].rows == len(ids(run, "curated")) == 30
    assert run.manifest.finished_counts().arms["dedup-only"].left_out == ["checks", "semantic", "balance"]


def test_repeats_stand_in_an_arm_as_often_as_balance_says(here: Path) -> None:
    balance = {"rows": 150, "repeat": True, "bins": 2}
    sections = {name: EVERY_STAGE[name] for name in ("splits", "model")} | {"balance": balance}
    run = curate(write_recipe(here, "s.jsonl", **sections, run="repeats", training=arms_without("checks", "balance")))
    once = ids(run, "no-balance")
    assert len(once) == len(set(once)) < len(ids(run, "no-checks")) == 150
    assert run.rows().filter(pl.col("arms").list.contains("no-checks")).height == len(set(ids(run, "no-checks")))


def test_decisions_by_hand_hold_in_every_arm(tmp_path: Path) -> None:
    write_source(data(), tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl", splits=EVERY_STAGE["splits"], training=arms_without("near"))
    before = curate(recipe)
    drops = before.ledger().filter(stage="answers", action="drop")
    dropped = drops["id"][0]
    kept = next(row for row in ids(before, "curated") if row not in set(drops["witness"]))
    assert kept in ids(before, "no-near")
    assert dropped not in ids(before, "no-near")
    write_override(before, Override(dropped, "restore", "these differ"))
    write_override(before, Override(kept, "drop", "a bad row"))
    after = curate(recipe)
    assert dropped in ids(after, "no-near")
    assert kept not in ids(after, "no-near")


@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
@given(made=rows(), left_out=st.sets(st.sampled_from(["exact", "near", "answers", "conflicts"]), min_size=1))
def test_arms_are_conserved_and_the_same_each_time(
    tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, Any]], left_out: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("conserved")
    held_out = {"instruction": "quite another question", "output": "with an answer of its own", "split": "test"}
    write_source([held_out, *made], folder / "s.jsonl")
    training = {"arms": ["raw", {"name": "by-stage", "without": sorted(left_out)}]}
    recipe = write_recipe(folder, "s.jsonl", splits={"near": 1.0}, training=training)
    first = curate(recipe)
    written = first.arm("by-stage").read_bytes()
    again = curate(recipe)
    assert again.arm("by-stage").read_bytes() == written
    arm, fates = ids(first, "by-stage"), first.rows()
    assert len(arm) == len(set(arm)) == first.manifest.finished_counts().arms["by-stage"].rows
    assert set(ids(first, "curated")) <= set(arm) <= set(ids(first, "raw"))
    assert fates.filter(pl.col("arms").list.contains("by-stage"))["id"].to_list() == arm
    assert not fates.filter(pl.col("split") != "train", pl.col("arms").list.contains("by-stage")).height
    # A row that a stage dropped stays dropped unless this stage was left out.
    others = first.ledger().filter(pl.col("action") == "drop", ~pl.col("stage").is_in(sorted(left_out)))
    assert not set(others["id"]) & set(arm)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"name": "a", "without": ["neer"]}, r"training\.arms\.1\.without\.0 .*Did you mean 'near'"),
        ({"name": "a", "without": ["splits"]}, r"Input should be 'checks', 'exact'"),
        ({"name": "a", "without": ["semantic"]}, r"names the stage 'semantic', which this recipe does not have. Its"),
        ({"name": "a", "with": ["balance"]}, r"names the stage 'balance', which this recipe does not have. Its stages"),
        (
            {"name": "a", "with": ["checks", "exact", "prefixes", "near", "answers", "conflicts"]},
            r"leaves out no stage, so it would be the arm curated",
        ),
        ({"name": "a", "without": []}, r"training\.arms\.1\.without .*at least 1 item"),
        ({"name": "a"}, r"the arm 'a' needs a list of stages"),
        ({"name": "a", "without": ["near"], "with": ["near"]}, r"the arm 'a' needs a list of stages"),
        (
            {"name": "a", "wihtout": ["near"]},
            r"unknown key. Did you mean 'without'\? Accepted here: name, without, with",
        ),
        ({"without": ["near"]}, r"training\.arms\.1\.name .*is missing"),
        ({"name": "raw", "without": ["near"]}, r"the name 'raw' is taken"),
        ({"name": "test", "without": ["near"]}, r"the name 'test' is taken"),
        ({"name": "No near", "without": ["near"]}, r"'No near' cannot name an arm"),
        ("raw", r"two arms have the name 'raw'"),
        ("balanced", r"training\.arms\.1 .*Did you mean 'balanced-random'"),
        (7, r"Input should be 'raw', 'curated'"),
    ],
    ids=str,
)
def test_a_wrong_arm_is_one_clear_error(tmp_path: Path, arm: Any, message: str) -> None:
    write_source(many(12), tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl", splits={"test": 2}, training={"arms": ["raw", arm]})
    with pytest.raises(UserError, match=message) as fault:
        curate(recipe)
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "run").exists()


def test_the_file_of_an_arm_that_the_recipe_names_no_more_is_removed(tmp_path: Path) -> None:
    write_source(many(30), tmp_path / "s.jsonl")
    run = curate(write_recipe(tmp_path, "s.jsonl", splits={"test": 3}, training=arms_without("near")))
    assert "no-near" in run.arms()
    curate(write_recipe(tmp_path, "s.jsonl", splits={"test": 3}))
    assert run.arms() == ["balanced-random", "curated", "longest", "random", "raw"]
