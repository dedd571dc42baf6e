from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import yaml

from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Budget, Model, Training
from siftune.training import models
from siftune.training.evaluation import sweep


def test_the_interval_is_a_bootstrap_of_groups():
    """Against a plain loop over the same idea, with another generator."""
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 4) * 7
    units = random.integers(5, 60, groups.size).astype(float)
    shared = np.repeat(random.normal(0, 0.5, 30), 4)
    nll = units * (2.0 + shared + random.normal(0, 0.1, groups.size))
    frame = pl.DataFrame({"nll": nll, "bytes": units, "group": groups})
    bits = sweep.bits_per_byte(frame)
    draws = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(groups == 7 * group) for group in random.integers(0, 30, 30)])
        draws.append(nll[rows].sum() / units[rows].sum() / np.log(2))
    assert bits.value == pytest.approx(nll.sum() / units.sum() / np.log(2))
    assert (bits.low, bits.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.03)
    # Rows of one group move together: taking rows for independent would promise twice as much.
    by_row = sweep.bits_per_byte(frame.with_columns(group=pl.int_range(pl.len())))
    assert bits.high - bits.low > 1.5 * (by_row.high - by_row.low)


def test_settings_change_the_recipe_and_nothing_else():
    base = Training(learning_rate=1e-3)
    setting = sweep.SweepSetting(name="x", changes={"schedule": "cosine", "lora": {"rank": 8}})
    section = sweep.apply_setting(base, setting, Budget(minutes=2))
    assert section.schedule == "cosine"
    assert section.lora.rank == 8
    assert section.lora.alpha == base.lora.alpha
    assert section.learning_rate == 1e-3
    assert section.budget == Budget(minutes=2)
    by_setting = sweep.SweepSetting(name="y", changes={"budget": {"steps": 3}})
    assert sweep.apply_setting(base, by_setting, None).budget == Budget(steps=3)
    with pytest.raises(UserError, match=r"Setting 'z' of the sweep: rank: .*Accepted: arms, budget"):
        sweep.apply_setting(base, sweep.SweepSetting(name="z", changes={"rank": 8}), None)


def test_a_plan_that_is_wrong_says_so(tmp_path):
    path = tmp_path / "sweep.yaml"
    for text, message in (
        ("arms: raw", "arms: Extra inputs are not permitted"),
        ("settings: [{name: a}, {name: a}]", "two settings have the same name"),
        ("a: [", "cannot be read as a sweep plan"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            sweep.load_plan(path)
    with pytest.raises(UserError, match="cannot be read"):
        sweep.load_plan(tmp_path / "none.yaml")
    path.write_text("")
    assert sweep.load_plan(path) == sweep.SweepPlan()


@pytest.mark.slow
def test_a_sweep_makes_a_table_and_keeps_what_is_done(tiny_run, tmp_path):
    plan = {
        "arm": "raw",
        "budget": {"steps": 3},
        "settings": [{"name": "low", "changes": {"learning_rate": 1e-5}}, {"name": "high", "changes": {}}],
        "questions": 0,
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(plan))
    labels: list[str] = []
    table = sweep.sweep(tiny_run, tmp_path / "sweep.yaml", progress=lambda label, *_: labels.append(label))
    assert table.schema == sweep.SWEEP_COLUMNS
    assert table["setting"].to_list() == ["high", "low"]  # the better one first
    assert table["steps"].to_list() == [3, 3]
    assert (table["low"] < table["bits_per_byte"]).all()
    assert (table["bits_per_byte"] < table["high"]).all()
    assert table["answer_seconds"].null_count() == 2
    assert pl.read_parquet(tiny_run / "sweep" / "table.parquet").equals(table)
    assert (tiny_run / "sweep" / "table.md").read_text().count("\n| ") == 3
    labels.clear()
    again = sweep.sweep(tiny_run, tmp_path / "sweep.yaml", progress=lambda label, *_: labels.append(label))
    assert again.equals(table)
    assert [label.split(": ")[0] for label in labels] == ["sweep", "sweep"]


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
