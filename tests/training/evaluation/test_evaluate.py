from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs, masks, memory, models
from siftune.training.evaluation import evaluate, loss_worker
from tests.training.worlds import heldout_frame, message


def quiet(*_: Any) -> None:
    pass


def make_job(
    run: Path, *, load: str, engine: str | None = None, max_rows: int | None = None
) -> loss_worker.EvaluateJob:
    recipe = RunFolder.open(run).recipe
    resolved = models.resolve(recipe.model.name)
    return loss_worker.EvaluateJob(
        heldout=run / "heldout" / "test.parquet",
        folder=run / "evaluation",
        max_length=128,
        max_rows=max_rows,
        seed=0,
        model=recipe.model.model_copy(update={"load": load}),
        resolved=resolved,
        targets=[loss_worker.Target(name="base", adapter=None, digest=resolved.identity), *adapters(run, resolved)],
        engine=engine,
        key="key",
    )


def adapters(run: Path, resolved: models.ResolvedModel) -> list[loss_worker.Target]:
    """Random adapters, strong enough to matter, as training would leave them."""
    import torch
    from peft import LoraConfig, get_peft_model

    targets = []
    for seed, arm in enumerate(("raw", "curated")):
        folder = run / "training" / arm / "seed-0"
        if not folder.is_dir():
            torch.manual_seed(seed)
            base = models.load_base(resolved, models.choose_loading("fp32", resolved))
            config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
            get_peft_model(base, config).save_pretrained(folder / "adapter")
            digest = models.hash_file(folder / "adapter" / "adapter_model.safetensors")
            facts = {"arm": arm, "seed": 0, "adapter_hash": digest, "key": arm}
            (folder / jobs.DONE).write_text(json.dumps(facts))
        digest = json.loads((folder / jobs.DONE).read_text())["adapter_hash"]
        targets.append(loss_worker.Target(name=f"{arm}-seed-0", adapter=folder / "adapter", digest=digest))
    return targets


def row_by_row(job: loss_worker.EvaluateJob, adapter: Path | None) -> dict[str, float]:
    """The oracle: one row at a time, all logits, float64 log-softmax."""
    import torch
    from peft import PeftModel

    tokenizer = models.load_tokenizer(job.resolved)
    model = models.load_base(job.resolved, models.choose_loading("fp32", job.resolved)).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    rows = masks.tokenise(tokenizer, pl.read_parquet(job.heldout), max_length=job.max_length)
    losses = {}
    for name, ids, trained in zip(rows.names, rows.ids, rows.trained, strict=True):
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=tokens).logits[0].double(), dim=-1)
        losses[name] = -sum(float(log_p[place - 1, ids[place]]) for place in np.flatnonzero(trained))
    return losses


def test_losses_are_those_of_one_row_at_a_time(tiny_run):
    job = make_job(tiny_run, load="fp32")
    loss_worker.judge(job, quiet)
    frames = {}
    for target in job.targets:
        frame = pl.read_parquet(job.folder / f"{target.name}.parquet")
        expected = row_by_row(job, target.adapter)
        assert dict(frame.select("id", "nll").iter_rows()) == pytest.approx(expected, rel=1e-5)
        frames[target.name] = frame
    assert frames["base"]["mask_hash"].equals(frames["raw-seed-0"]["mask_hash"])
    assert not frames["base"]["nll"].equals(frames["raw-seed-0"]["nll"])
    assert not frames["raw-seed-0"]["nll"].equals(frames["curated-seed-0"]["nll"])
    facts = json.loads((job.folder / "raw-seed-0.json").read_text())
    assert facts["engine"] == "merged"
    assert facts["drift"] is None
    assert facts["loss"] == pytest.approx(frames["raw-seed-0"]["nll"].sum() / frames["raw-seed-0"]["tokens"].sum())


def test_columns_come_from_the_held_out_rows(tiny_run):
    job = make_job(tiny_run, load="fp32")
    loss_worker.judge(job.model_copy(update={"targets": job.targets[:1]}), quiet)
    frame = pl.read_parquet(job.folder / "base.parquet")
    heldout = pl.read_parquet(job.heldout)
    for column in ("id", "source", "group", "leaked"):
        assert frame[column].to_list() == heldout[column].to_list()
    answers = [turns[-1]["content"] for turns in heldout["messages"].to_list()]
    whole = [place for place, text in enumerate(answers) if frame["bytes"][place] == len(text.encode())]
    assert len(whole) + json.loads((job.folder / "base.json").read_text())["truncated_rows"] == 9
    assert set(frame["length_bin"]) <= {"0033-0064 prompt tokens", "0065-0128 prompt tokens"}


def test_merged_and_4_bit_agree_and_the_drift_is_told(tiny_run):
    merged = make_job(tiny_run, load="nf4", engine="merged")
    loss_worker.judge(merged, quiet)
    loss = {name: read(merged, name) for name in ("base", "raw-seed-0", "curated-seed-0")}
    loss_worker.judge(make_job(tiny_run, load="nf4", engine="nf4"), quiet)
    for name, (frame, facts) in loss.items():
        packed, told = read(merged, name)
        assert told["engine"] == "nf4"
        assert facts["engine"] == "merged"
        per_token = (frame["nll"] - packed["nll"]) / frame["tokens"]
        assert float(per_token.abs().max()) < 0.05
        # The sample is all nine rows here, so the drift that is told is the drift.
        assert facts["drift"]["largest"] == pytest.approx(float(per_token.abs().max()), abs=1e-6)
        mean = (frame["nll"].sum() - packed["nll"].sum()) / frame["tokens"].sum()
        assert facts["drift"]["mean"] == pytest.approx(mean, abs=1e-6)


def read(job: loss_worker.EvaluateJob, name: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    return pl.read_parquet(job.folder / f"{name}.parquet"), json.loads((job.folder / f"{name}.json").read_text())


def test_a_merged_model_that_drifts_is_not_used(tiny_run, monkeypatch):
    monkeypatch.setattr(loss_worker, "DRIFT_LIMIT", -1.0)
    job = make_job(tiny_run, load="nf4")
    assert loss_worker.judge(job, quiet) == {"engine": "nf4"}
    assert "drifts by" in read(job, "base")[1]["engine_why"]


def test_without_room_for_dense_copies_the_packed_model_judges(tiny_run, monkeypatch):
    monkeypatch.setattr(memory, "_free", lambda _: 1000)
    job = make_job(tiny_run, load="nf4")
    assert loss_worker.judge(job, quiet) == {"engine": "nf4"}
    facts = read(job, "raw-seed-0")[1]
    assert facts["engine_why"].startswith("no room for two copies")
    assert facts["drift"] is None


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 1000))
def test_batches_hold_every_row_once_and_keep_to_the_limit(lengths, most):
    each = np.array(lengths, dtype=np.int64)
    parts = loss_worker.length_batches(each, most_tokens=most)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    assert all(len(part) == 1 or int(each[part].max()) * len(part) <= most for part in parts)


def test_max_rows_draws_the_same_rows_each_time():
    frame = heldout_frame(40)
    first, again = (loss_worker._chosen(frame, 10, seed=3)["id"].to_list() for _ in range(2))
    assert first == again
    assert len(set(first)) == 10
    assert first == sorted(first, key=frame["id"].to_list().index)
    assert loss_worker._chosen(frame, 10, seed=4)["id"].to_list() != first
    assert loss_worker._chosen(frame, None, seed=4).equals(frame)


@pytest.mark.slow
def test_only_what_is_new_is_judged_again(tiny_run):
    adapters(tiny_run, models.resolve(RunFolder.open(tiny_run).recipe.model.name))
    said: list[str] = []

    def hear(label: str, _: int, __: int) -> None:
        said.append(label)

    facts = evaluate.evaluate(tiny_run, progress=hear)
    assert [each["name"] for each in facts] == ["base", "curated-seed-0", "raw-seed-0"]
    assert len([label for label in said if label.startswith("judged ")]) == 3
    said.clear()
    assert evaluate.evaluate(tiny_run, progress=hear) == facts
    assert said == []
    done = tiny_run / "training" / "raw" / "seed-0" / jobs.DONE
    done.write_text(json.dumps({**json.loads(done.read_text()), "adapter_hash": "another"}))
    evaluate.evaluate(tiny_run, progress=hear)
    assert [label.split(":")[0] for label in said if label.startswith("judged ")] == ["judged raw-seed-0"]
    # Other held-out rows: everything is judged again, and nothing of before is left to be mixed in.
    changed = heldout_frame(5, start=2000)
    changed.write_parquet(tiny_run / "heldout" / "test.parquet")
    evaluate.evaluate(tiny_run, arms=["raw"], progress=hear)
    left = sorted(path.stem for path in (tiny_run / "evaluation").glob("*.parquet"))
    assert left == ["base", "raw-seed-0", "truncated"]


def test_what_is_not_trained_cannot_be_judged(tiny_run):
    with pytest.raises(UserError, match=r"No arm of .* is trained. Do: siftune train"):
        evaluate.evaluate(tiny_run)
    adapters(tiny_run, models.resolve(RunFolder.open(tiny_run).recipe.model.name))
    with pytest.raises(UserError, match=r"random of .* is not trained. Do: siftune train .* --arm random"):
        evaluate.evaluate(tiny_run, arms=["random"])


def test_rows_without_a_question_are_refused(tiny_run):
    rows = heldout_frame(2).with_columns(
        pl.Series(
            "messages", [[message("user", "?")], [message("user", "!")]], dtype=heldout_frame(1)["messages"].dtype
        )
    )
    rows.write_parquet(tiny_run / "heldout" / "test.parquet")
    with pytest.raises(UserError, match="None of 2 rows has a trained token"):
        loss_worker.judge(make_job(tiny_run, load="fp32"), quiet)
