from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths
from siftune.training import masks, models
from siftune.training.evaluation import evaluate, loss_worker
from siftune.training.evaluation.losses import LOSS_COLUMNS, Evaluation, read_evaluation
from siftune.training.result import read_result, write_result
from tests.training.worlds import heldout_frame, message, training_result


def quiet(*_: Any) -> None:
    pass


def make_job(
    run: Path, *, load: str, engine: str | None = None, max_rows: int | None = None
) -> loss_worker.EvaluationJob:
    recipe = RunFolder.open(run).recipe
    resolved = models.resolve(recipe.model.name)
    base = loss_worker.EvaluationTarget(name="base", adapter=None, digest=resolved.identity)
    return loss_worker.EvaluationJob(
        heldout=run / "heldout" / "test.parquet",
        folder=run / "evaluation",
        max_length=128,
        max_rows=max_rows,
        seed=0,
        model=recipe.model.model_copy(update={"load": load}),
        resolved=resolved,
        targets=[base, *adapters(run, resolved)],
        engine=engine,
        key="key",
    )


def adapters(run: Path, resolved: models.ResolvedModel) -> list[loss_worker.EvaluationTarget]:
    """Random adapters, strong enough to matter, as training would leave them."""
    import torch
    from peft import LoraConfig, get_peft_model

    targets = []
    for seed, arm in enumerate(("raw", "curated")):
        folder = RunPaths(run).training(arm, 0)
        if not folder.is_dir():
            torch.manual_seed(seed)
            base = models.load_base(resolved, models.choose_loading("fp32", resolved))
            config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
            get_peft_model(base, config).save_pretrained(folder / "adapter")
            digest = file_sha256(folder / "adapter" / "adapter_model.safetensors")
            write_result(training_result(arm=arm, adapter_hash=digest), folder)
        result = read_result(folder)
        target = {"name": f"{arm}-seed-0", "adapter": folder / "adapter", "digest": result.adapter_hash}
        targets.append(loss_worker.EvaluationTarget(**target))
    return targets


def row_by_row(job: loss_worker.EvaluationJob, adapter: Path | None) -> dict[str, float]:
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
        losses[name] = -sum(float(log_p[index - 1, ids[index]]) for index in np.flatnonzero(trained))
    return losses


def test_losses_are_those_of_one_row_at_a_time(tiny_run):
    job = make_job(tiny_run, load="fp32")
    loss_worker.compute_losses(job, quiet)
    frames = {}
    for target in job.targets:
        frame = pl.read_parquet(job.folder / f"{target.name}.parquet")
        expected = row_by_row(job, target.adapter)
        assert dict(frame.select("id", "nll").iter_rows()) == pytest.approx(expected, rel=1e-5)
        frames[target.name] = frame
    assert frames["base"]["mask_hash"].equals(frames["raw-seed-0"]["mask_hash"])
    assert not frames["base"]["nll"].equals(frames["raw-seed-0"]["nll"])
    assert not frames["raw-seed-0"]["nll"].equals(frames["curated-seed-0"]["nll"])
    assert frames["raw-seed-0"].schema == LOSS_COLUMNS
    _, evaluation = read(job, "raw-seed-0")
    assert evaluation.engine == "dense"
    assert evaluation.drift is None
    assert evaluation.loss == pytest.approx(frames["raw-seed-0"]["nll"].sum() / frames["raw-seed-0"]["tokens"].sum())


def test_columns_come_from_the_held_out_rows(tiny_run):
    job = make_job(tiny_run, load="fp32")
    loss_worker.compute_losses(job.model_copy(update={"targets": job.targets[:1]}), quiet)
    frame = pl.read_parquet(job.folder / "base.parquet")
    heldout = pl.read_parquet(job.heldout)
    for column in ("id", "source", "group", "leaked"):
        assert frame[column].to_list() == heldout[column].to_list()
    answers = [turns[-1]["content"] for turns in heldout["messages"].to_list()]
    complete = [size for size, text in zip(frame["bytes"], answers, strict=True) if size == len(text.encode())]
    assert len(complete) + read(job, "base")[1].truncated_rows == 9
    assert set(frame["length_bin"]) <= {"0033-0064 prompt tokens", "0065-0128 prompt tokens"}


def test_dense_and_4_bit_agree_and_the_drift_is_recorded(tiny_run):
    dense = make_job(tiny_run, load="nf4")
    loss_worker.compute_losses(dense, quiet)
    by_dense = {name: read(dense, name) for name in ("base", "raw-seed-0", "curated-seed-0")}
    loss_worker.compute_losses(make_job(tiny_run, load="nf4", engine="nf4"), quiet)
    for name, (frame, evaluation) in by_dense.items():
        packed, packed_evaluation = read(dense, name)
        assert packed_evaluation.engine == "nf4"
        assert packed_evaluation.drift is None
        assert evaluation.engine == "dense"
        per_token = (frame["nll"] - packed["nll"]) / frame["tokens"]
        assert float(per_token.abs().max()) < 0.01
        assert evaluation.drift.rows == 4
        assert abs(evaluation.drift.mean) <= evaluation.drift.largest < 0.01


def read(job: loss_worker.EvaluationJob, name: str) -> tuple[pl.DataFrame, Evaluation]:
    evaluation = read_evaluation(job.folder, name)
    assert evaluation is not None
    return pl.read_parquet(job.folder / f"{name}.parquet"), evaluation


def test_a_dense_model_that_drifts_is_not_used(tiny_run):
    job = make_job(tiny_run, load="nf4").model_copy(update={"drift_limit": -1.0})
    assert loss_worker.compute_losses(job, quiet) == {"engine": "nf4"}
    _, evaluation = read(job, "raw-seed-0")
    assert "drifts by" in evaluation.engine_why
    assert evaluation.drift.rows == 4


def test_without_room_for_the_dense_model_the_packed_model_is_used(tiny_run, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (1000, 1000))
    job = make_job(tiny_run, load="nf4")
    assert loss_worker.compute_losses(job, quiet) == {"engine": "nf4"}
    _, evaluation = read(job, "raw-seed-0")
    assert evaluation.engine_why.startswith("no room for the dense model")
    assert evaluation.drift is None


@given(st.lists(st.tuples(st.lists(st.integers(0, 1), max_size=8), st.integers(1, 3)), min_size=1, max_size=6))
def test_the_shared_prefix_is_the_longest_one_before_any_prediction(prompts_and_answers):
    ids = [np.array([5, 5, *prompt, *[9] * answer], dtype=np.int32) for prompt, answer in prompts_and_answers]
    trained = [
        np.arange(len(row)) >= len(row) - answer for row, (_, answer) in zip(ids, prompts_and_answers, strict=True)
    ]
    rows = masks.TokenRows([str(row) for row in range(len(ids))], ids, trained, schema.empty(schema.LEDGER))

    def fits(length: int) -> bool:
        same = len({row[:length].tobytes() for row in ids}) == 1
        return same and not any(mask[: length + 1].any() for mask in trained)

    longest = max(length for length in range(12) if length == 0 or fits(length))
    assert loss_worker.shared_prefix(rows) == longest


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 1000))
def test_batches_hold_every_row_once_and_keep_to_the_limit(lengths, most):
    tokens = np.array(lengths, dtype=np.int64)
    batches = loss_worker.length_batches(tokens, most_tokens=most)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or int(tokens[batch].max()) * len(batch) <= most for batch in batches)


def test_max_rows_draws_the_same_rows_each_time():
    frame = heldout_frame(40)
    first, again = (loss_worker.draw_rows(frame, 10, seed=3)["id"].to_list() for _ in range(2))
    assert first == again
    assert len(set(first)) == 10
    assert first == sorted(first, key=frame["id"].to_list().index)
    assert loss_worker.draw_rows(frame, 10, seed=4)["id"].to_list() != first
    assert loss_worker.draw_rows(frame, None, seed=4).equals(frame)


@pytest.mark.slow
def test_only_what_is_new_is_evaluated_again(tiny_run):
    adapters(tiny_run, models.resolve(RunFolder.open(tiny_run).recipe.model.name))
    labels: list[str] = []

    def hear(label: str, _: int, __: int) -> None:
        labels.append(label)

    def evaluated() -> list[str]:
        return [label.split(":")[0] for label in labels if label.startswith("evaluated ")]

    evaluations = evaluate.evaluate(tiny_run, progress=hear)
    assert [evaluation.name for evaluation in evaluations] == ["base", "raw-seed-0", "curated-seed-0"]
    assert evaluated() == ["evaluated base", "evaluated raw-seed-0", "evaluated curated-seed-0"]
    labels.clear()
    assert evaluate.evaluate(tiny_run, progress=hear) == evaluations
    assert labels == []
    write_result(training_result(adapter_hash="another"), RunPaths(tiny_run).training("raw", 0))
    evaluate.evaluate(tiny_run, progress=hear)
    assert evaluated() == ["evaluated raw-seed-0"]
    # Other held-out rows: everything is evaluated again, and nothing of before is left to be mixed in.
    changed = heldout_frame(5, start=2000)
    changed.write_parquet(tiny_run / "heldout" / "test.parquet")
    evaluate.evaluate(tiny_run, arms=["raw"], progress=hear)
    left = sorted(path.stem for path in (tiny_run / "evaluation").glob("*.parquet"))
    assert left == ["base", "raw-seed-0", "truncated"]


def test_an_arm_that_is_not_trained_cannot_be_evaluated(tiny_run):
    with pytest.raises(UserError, match=r"No arm of .* is trained. Run: siftune train"):
        evaluate.evaluate(tiny_run)
    adapters(tiny_run, models.resolve(RunFolder.open(tiny_run).recipe.model.name))
    with pytest.raises(UserError, match=r"random of .* is not trained. Run: siftune train .* --arm random"):
        evaluate.evaluate(tiny_run, arms=["random"])


def test_rows_without_a_question_are_refused(tiny_run):
    rows = heldout_frame(2).with_columns(
        pl.Series(
            "messages", [[message("user", "?")], [message("user", "!")]], dtype=heldout_frame(1)["messages"].dtype
        )
    )
    rows.write_parquet(tiny_run / "heldout" / "test.parquet")
    with pytest.raises(UserError, match="None of 2 rows has a trained token"):
        loss_worker.compute_losses(make_job(tiny_run, load="fp32"), quiet)
