from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from scipy import stats

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Budget, Compare, Model, Training
from siftune.training import models
from siftune.training.evaluation import sweep
from siftune.training.evaluation.differences import paired_difference
from siftune.training.evaluation.losses import LOSS_COLUMNS
from siftune.training.evaluation.sweep_plan import SettingChanges, SweepPlan, SweepSetting, apply_setting, load_plan
from tests.training.worlds import write_tiny_llama

LAB_PLAN = Path(__file__).parents[3] / "data" / "recipes" / "sweeps" / "lab.yaml"


def losses_of(nll: np.ndarray, sizes: np.ndarray, *, first: int = 0) -> pl.DataFrame:
    """LOSS_COLUMNS of one run; ids from `first` on."""
    rows = len(nll)
    columns: dict[str, Any] = {
        "id": [f"toy:{row:03}" for row in range(first, first + rows)],
        "nll": nll,
        "tokens": np.full(rows, 9),
        "group": np.arange(first, first + rows),
        "source": ["toy"] * rows,
        "length_bin": ["0000-0032 prompt tokens"] * rows,
        "leaked": [False] * rows,
        "mask_hash": ["m"] * rows,
        "bytes": sizes,
    }
    return pl.DataFrame(columns, schema=LOSS_COLUMNS)


def test_cells_are_compared_row_by_row_and_seed_by_seed():
    """Bits per byte; what a row and a seed add to both cells is in no interval: against plain loops and scipy's t."""
    random = np.random.default_rng(0)
    sizes = random.integers(20, 60, 400)
    rows, seeds = random.normal(90, 40, 400), np.array([-6.0, 0.0, 6.0])
    noise = random.normal(0, 0.2, (2, 3))
    nll = {
        name: [rows + seeds[run] + noise[cell, run] + effect for run in range(3)]
        for cell, (name, effect) in enumerate({"first": 0.0, "other": -3.0}.items())
    }
    losses = {name: [losses_of(run, sizes) for run in runs] for name, runs in nll.items()}
    paired, left_out = sweep.pair_losses(losses, [0, 1, 2])
    assert left_out == 0
    difference, _ = paired_difference(paired, "other", "first", Compare(), seed=0)
    per_run = [(nll["other"][run] - nll["first"][run]).sum() / sizes.sum() / np.log(2) for run in range(3)]
    assert difference.per_token.value == pytest.approx(np.mean(per_run))
    half = stats.t.ppf(0.975, 2) * np.std(per_run, ddof=1) / np.sqrt(3)
    assert difference.per_token.high - difference.per_token.low == pytest.approx(2 * half, rel=0.1)
    assert difference.per_token.excludes_zero


def test_rows_that_a_model_does_not_see_whole_are_left_out():
    sizes = np.array([10, 20, 30, 40])
    nll = np.array([1.0, 2.0, 3.0, 4.0])
    cut = sizes - np.array([0, 0, 0, 5])  # the second model saw less of the last row's answer, and not the first row
    paired, left_out = sweep.pair_losses(
        {"first": [losses_of(nll, sizes)], "other": [losses_of(nll[1:], cut[1:], first=1)]}, [0]
    )
    assert paired.ids == ["toy:001", "toy:002"]
    assert left_out == 2
    assert paired.tokens.tolist() == [20, 30]
    assert paired.nll["other"] * np.log(2) == pytest.approx(np.array([[2.0, 3.0]]))
    with pytest.raises(UserError, match="No held-out row is evaluated whole by all models"):
        sweep.pair_losses({"first": [losses_of(nll, sizes)], "other": [losses_of(nll, sizes - 1)]}, [0])


def test_settings_change_the_recipe_and_nothing_else():
    base = Training(learning_rate=1e-3, batch_rows=2, micro_rows=2)
    changes = SettingChanges.model_validate({"schedule": "cosine", "lora": {"rank": 8}, "batch_rows": 6})
    section = apply_setting(base, SweepSetting(name="x", changes=changes), Budget(minutes=2))
    assert section.schedule == "cosine"
    assert section.lora.rank == 8
    assert section.lora.alpha == base.lora.alpha
    assert section.learning_rate == 1e-3
    assert (section.batch_rows, section.micro_rows) == (6, 2)
    assert section.budget == Budget(minutes=2)
    by_setting = SweepSetting(name="y", changes=SettingChanges(budget=Budget(steps=3)))
    assert apply_setting(base, by_setting, Budget(minutes=2)).budget == Budget(steps=3)
    odd = SweepSetting(name="z", changes=SettingChanges(batch_rows=5))
    with pytest.raises(UserError, match=r"Setting 'z' of the sweep does not go with the recipe: batch_rows \(5\)"):
        apply_setting(base, odd, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: raw", r"arms \(line 1\): unknown key\. Did you mean 'arm'"),
        ("seeds: [1, 1]", "seeds .*the same one stands in the list twice"),
        ("settings: [{name: a}, {name: a}]", "two settings have the same name"),
        ("settings:\n  - name: a\n    changes: {scheduel: cosine}", r"line 3\): unknown key\. Did you mean 'schedule'"),
        ("settings: [{name: a, changes: {lora: {rang: 8}}}]", "unknown key. Did you mean 'rank'"),
        ("settings: [{name: a, changes: {schedule: cosin}}]", "Did you mean 'cosine'"),
        ("settings: [{name: a, changes: {seeds: [3]}}]", "are the same for all settings"),
        ("a: [", "is not YAML"),
        ("[a]", "a sweep plan is a mapping; found list"),
    ],
)
def test_a_plan_that_is_wrong_says_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_plan(path)


def test_a_plan_that_is_empty_compares_nothing_but_the_recipe(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("")
    assert load_plan(path) == SweepPlan()
    with pytest.raises(UserError, match="There is no sweep plan at"):
        load_plan(tmp_path / "none.yaml")


@pytest.mark.slow
def test_the_labs_plan_with_two_models(tiny_run, tiny_model, tmp_path):
    """The shipped plan, with tiny models in place of its own, steps in place of minutes, and two of its settings."""
    for setting in load_plan(LAB_PLAN).settings:
        apply_setting(Training(), setting, None)
    plan = yaml.safe_load(LAB_PLAN.read_text(encoding="utf-8"))
    plan["settings"] = plan["settings"][:2]
    larger = write_tiny_llama(tmp_path / "larger", template="chatml", layers=3)
    assert len(plan["models"]) == 2
    plan["models"] = [{"name": str(path), "load": "nf4"} for path in (tiny_model, larger)]
    plan |= {"arm": "raw", "budget": {"steps": 2}, "seeds": [0, 1], "questions": 1, "max_new_tokens": 4}
    plan["settings"][1]["changes"]["budget"] = {"steps": 4}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(plan))
    labels: list[str] = []
    table = sweep.sweep(tiny_run, tmp_path / "sweep.yaml", progress=lambda label, *_: labels.append(label))

    assert table.schema == sweep.SWEEP_COLUMNS
    assert table.height == 2 * len(plan["settings"])
    assert table["bits_per_byte"].is_sorted()
    assert set(table["runs"]) == {2}
    by_cell = {(row["model"], row["setting"]): row for row in table.iter_rows(named=True)}
    first = by_cell[str(tiny_model), "30 minutes"]
    assert first["outcome"] == sweep.FIRST
    assert first["difference"] is None
    for cell, row in by_cell.items():
        assert row["steps"] == (4 if cell[1] == "60 minutes" else 2)
        if row is not first:
            assert row["difference"] == pytest.approx(row["bits_per_byte"] - first["bits_per_byte"])
            assert row["low"] < row["difference"] < row["high"]
            assert row["outcome"] in ("better", "worse", "not enough evidence")
    assert len({row["answer_seconds"] for row in by_cell.values()}) == 2  # measured once for each model
    text = (tiny_run / "sweep" / "table.md").read_text(encoding="utf-8")
    # Two answers are longer than what the larger model's tokenizer leaves of them.
    assert "seeds 0, 1; 7 held-out rows, the same for all cells. 2 more are left out" in text
    assert text.count("\n| ") == 1 + table.height

    # Again: nothing is trained, evaluated or answered anew.
    labels.clear()
    again = sweep.sweep(tiny_run, tmp_path / "sweep.yaml", progress=lambda label, *_: labels.append(label))
    assert again.equals(table)
    assert {label.split(": ")[0] for label in labels} == {"sweep"}


@pytest.mark.slow
def test_one_seed_says_that_it_is_one(tiny_run, tmp_path):
    plan = SweepPlan(
        arm="raw",
        budget=Budget(steps=2),
        seeds=[3],
        heldout_rows=5,
        questions=0,
        settings=[SweepSetting(), SweepSetting(name="low", changes=SettingChanges(learning_rate=1e-5))],
    )
    table = sweep.sweep(tiny_run, plan)
    assert set(table["outcome"]) == {sweep.FIRST, "single run"}
    assert table["answer_seconds"].null_count() == 2
    text = (tiny_run / "sweep" / "table.md").read_text(encoding="utf-8")
    assert "seeds 3; 5 held-out rows" in text
    assert "no cell is called better or worse" in text


def test_answers_are_timed(tmp_path, tiny_model):
    from peft import LoraConfig, get_peft_model

    resolved = models.resolve(str(tiny_model))
    base = models.load_base(resolved, models.choose_loading("bf16", resolved))
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path)
    job = sweep.TimingJob(
        model=Model(name=str(tiny_model), load="bf16"), adapter=tmp_path, prompts=["Red?", "Blue?"], max_new_tokens=5
    )
    done: list[int] = []
    times = sweep.time_answers(job, lambda _, index, __: done.append(index))
    assert times["answer_seconds"] > 0
    # Both answers have at most five tokens.
    assert 0 < times["answer_tokens_per_second"] * times["answer_seconds"] <= 5
    assert done == [0, 1, 2]
