from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.curation.recipe.training_sections import Budget, Model, Training
from siftune.curation.run.folder import RunFolder
from siftune.training import arms, dry_run, jobs, models, sanity_checks, sft, worker
from siftune.training.mask_viewer import row_tokens
from siftune.training.memory import estimate_memory
from siftune.training.result import LOG_COLUMNS, RESULT_FILE, read_log, read_result, read_truncated, write_result
from siftune.training.schedule import forward_passes, learning_rate_factor, plan_steps
from tests.training.worlds import (
    arm_frame,
    heldout_frame,
    message,
    tiny_recipe,
    toy_messages,
    training_result,
    write_tiny_llama,
    write_tiny_run,
)


def quiet(*_: Any) -> None:
    pass


def make_job(folder: Path, model: Path, frame: pl.DataFrame, *, load: str = "nf4", **training: Any) -> jobs.TrainJob:
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "rows.parquet")
    settings = tiny_recipe(model, **training)["training"]
    return jobs.TrainJob(
        arm="raw",
        seed=0,
        rows=folder / "rows.parquet",
        folder=folder / "out",
        data=jobs.data_hash(frame, ordered=True),
        model=Model(name=str(model), load=load),
        training=Training.model_validate(settings),
        resolved=models.resolve(str(model)),
    )


# --- the plan ---

counts = st.lists(st.integers(1, 60), min_size=1, max_size=30).map(lambda tokens: np.array(tokens, dtype=np.int64))


def ids_of(trained: np.ndarray) -> list[str]:
    return [f"toy:{number}" for number in range(len(trained))]


def settings_of(batch: int = 1, **budget: float) -> Training:
    return Training(budget=Budget(**budget), batch_rows=batch, micro_rows=1)


@given(counts, st.integers(1, 800), st.integers(1, 8), st.integers(0, 3))
def test_a_token_budget_is_met_within_half_a_row(trained, budget, batch, seed):
    plan = plan_steps(trained, ids_of(trained), settings_of(batch, tokens=budget), seed=seed)
    taken = np.concatenate(plan.steps)
    assert int(plan.tokens.sum()) == int(trained[taken].sum())
    assert abs(int(plan.tokens.sum()) - budget) <= max(int(trained.max()) / 2, int(trained.max()) - budget)
    assert all(len(step) == batch for step in plan.steps[:-1])
    visits = np.bincount(taken, minlength=len(trained))
    assert visits.max() - visits.min() <= 1  # no row is seen again before all others were


@given(counts, st.integers(1, 8), st.integers(1, 9))
def test_steps_and_epochs(trained, batch, steps):
    by_steps = plan_steps(trained, ids_of(trained), settings_of(batch, steps=steps), seed=1)
    assert [len(step) for step in by_steps.steps] == [batch] * steps
    by_epochs = plan_steps(trained, ids_of(trained), settings_of(batch, epochs=2), seed=1)
    assert by_epochs.rows == 2 * len(trained)
    other = plan_steps(trained, ids_of(trained), settings_of(batch, epochs=2), seed=1)
    assert all(np.array_equal(one, two) for one, two in zip(by_epochs.steps, other.steps, strict=True))


def order_of(ids: list[str], *, seed: int, epochs: int = 1) -> list[str]:
    """The ids in the order in which they are trained."""
    trained = np.ones(len(ids), dtype=np.int64)
    return [ids[row] for row in np.concatenate(plan_steps(trained, ids, settings_of(epochs=epochs), seed=seed).steps)]


row_ids = st.lists(st.text(max_size=5), min_size=1, max_size=40, unique=True)


@given(row_ids, st.data(), st.integers(0, 5), st.integers(1, 40))
def test_arms_that_share_rows_take_them_in_the_same_order(ids, data, seed, first):
    small = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    large_order, small_order = order_of(data.draw(st.permutations(ids)), seed=seed), order_of(small, seed=seed)
    assert [row for row in large_order if row in small] == small_order
    # What the first rows of both arms have in common is all that it can be.
    assert set(large_order[:first]) & set(small) <= set(small_order[:first])


@given(row_ids, st.integers(0, 5))
def test_every_epoch_takes_each_row_once_in_another_order(ids, seed):
    order = order_of(ids, seed=seed, epochs=3)
    epochs = [order[start : start + len(ids)] for start in range(0, len(order), len(ids))]
    assert [sorted(epoch) for epoch in epochs] == [sorted(ids)] * 3


def test_seeds_and_epochs_differ_and_copies_are_apart():
    ids = [f"docs:{number}" for number in range(200)]
    first, second = order_of(ids, seed=0, epochs=2)[:200], order_of(ids, seed=0, epochs=2)[200:]
    for other in (second, order_of(ids, seed=1)):
        ranks = np.corrcoef([first.index(row) for row in ids], [other.index(row) for row in ids])
        assert abs(ranks[0, 1]) < 0.25
    trained = np.ones(400, dtype=np.int64)
    with_copies = np.concatenate(plan_steps(trained, [*ids, *ids], settings_of(epochs=1), seed=0).steps)
    assert sorted(with_copies) == list(range(400))
    assert [ids[row] for row in with_copies if row < 200] == first  # copies do not move the rows themselves
    assert sum(one % 200 == two % 200 for one, two in itertools.pairwise(with_copies)) < 10


def brute_force_cost(lengths: list[int], most: int, overhead: int) -> float:
    lengths = sorted(lengths, reverse=True)
    best = float("inf")
    for boundaries in range(2 ** (len(lengths) - 1)):
        parts: list[list[int]] = [[lengths[0]]]
        for index, length in enumerate(lengths[1:]):
            if boundaries >> index & 1:
                parts.append([length])
            else:
                parts[-1].append(length)
        if all(part[0] * len(part) <= most or len(part) == 1 for part in parts):
            best = min(best, sum(part[0] * len(part) + overhead for part in parts))
    return best


@given(st.lists(st.integers(1, 200), min_size=1, max_size=9), st.integers(50, 600), st.sampled_from([0, 48, 300]))
def test_passes_are_the_cheapest_division(lengths, most, overhead):
    tokens = np.array(lengths, dtype=np.int64)
    parts = forward_passes(tokens, most_tokens=most, overhead=overhead)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    cost = sum(int(tokens[part].max()) * len(part) + overhead for part in parts)
    assert cost == brute_force_cost(lengths, most, overhead)
    assert all(int(tokens[part].max()) * len(part) <= most or len(part) == 1 for part in parts)


def test_rate_rises_then_does_what_its_name_says():
    assert learning_rate_factor("constant", 0.05, warmup=0.1) == pytest.approx(0.5)
    assert [learning_rate_factor(kind, 0.55, warmup=0.1) for kind in ("constant", "linear", "cosine")] == pytest.approx(
        [1, 0.5, 0.5]
    )
    assert [learning_rate_factor(kind, 1.0, warmup=0.1) for kind in ("linear", "cosine")] == pytest.approx([0, 0])
    assert learning_rate_factor("constant", 0.0, warmup=0.0) == 1


# --- the loss ---


def test_loss_and_gradients_are_those_of_the_whole_logits(tmp_path, tiny_model, monkeypatch):
    """One step of ours against the textbook: all logits, an attention mask, cross-entropy with ignored labels."""
    import torch
    from peft import LoraConfig, get_peft_model

    frame = arm_frame([toy_messages(number) for number in range(5)])
    job = make_job(
        tmp_path,
        tiny_model,
        frame,
        load="fp32",
        budget={"steps": 1},
        batch_rows=5,
        micro_rows=1,
        lora={"rank": 4, "alpha": 8, "dropout": 0.0},
    )
    seen: dict[str, Any] = {}
    check = sanity_checks.check_gradients

    def spy(model: Any, **rest: Any) -> None:
        seen.update({name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None})
        check(model, **rest)

    monkeypatch.setattr(sanity_checks, "check_gradients", spy)
    result = sft.train(job, quiet)

    tokenizer = models.load_tokenizer(job.resolved)
    base = models.load_base(job.resolved, models.choose_loading("fp32", job.resolved))
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    rows = sft.tokenise(tokenizer, frame, max_length=128)
    width = max(len(ids) for ids in rows.ids)
    ids, labels = torch.zeros(5, width, dtype=torch.long), torch.full((5, width), -100)
    mask = torch.zeros(5, width, dtype=torch.long)
    for line, (row, trained) in enumerate(zip(rows.ids, rows.trained, strict=True)):
        ids[line, : len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[line, : len(row)] = 1
        labels[line, : len(row)] = torch.where(torch.from_numpy(trained), ids[line, : len(row)], -100)
    logits = model(input_ids=ids, attention_mask=mask).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    assert result.last_loss == pytest.approx(loss.item(), rel=1e-5)
    assert result.tokens == int((labels != -100).sum())
    expected = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    assert expected.keys() == seen.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-3, atol=1e-6)


def test_fast_dropout_drops_its_share_and_keeps_the_mean():
    import torch

    from siftune.training.fast_dropout import ByteDropout

    torch.manual_seed(0)
    drop, x = ByteDropout(0.1), torch.ones(1000, 999)
    y = drop(x)
    assert float((y == 0).float().mean()) == pytest.approx(26 / 256, abs=0.002)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.003)
    assert not torch.equal(y, drop(x))
    assert torch.equal(drop.eval()(x), x)


# --- sanity checks ---


class Layers:
    """Stands for an adapted model: named parameters with gradients."""

    def __init__(self, gradients: dict[str, Any]) -> None:
        import torch

        self.parameters = {}
        for name, value in gradients.items():
            parameter = torch.nn.Parameter(torch.zeros(3))
            parameter.grad = None if value is None else torch.tensor(value)
            self.parameters[name] = parameter

    def named_parameters(self) -> Any:
        return self.parameters.items()

    def named_modules(self) -> Any:
        return []


def layer(number: int, part: str = "lora_A") -> str:
    return f"base_model.model.model.layers.{number}.mlp.up_proj.{part}.default.weight"


def test_gradients_are_checked():
    zero, some = [0.0, 0.0, 0.0], [0.0, 1e-30, 0.0]
    # At the first step A has no gradient, since B is zero: a module is alive when either of them is.
    sanity_checks.check_gradients(Layers({layer(0): zero, layer(0, "lora_B"): some, layer(1): some}), step=1)
    with pytest.raises(UserError, match=r"2 of 3 modules \(first: layer 0 up_proj\) are exactly zero at step 7"):
        sanity_checks.check_gradients(Layers({layer(0): zero, layer(1): None, layer(2): some}), step=7)
    with pytest.raises(UserError, match="not finite at step 3"):
        sanity_checks.check_gradients(Layers({layer(0): [1.0, float("nan"), 0.0]}), step=3)
    with pytest.raises(UserError, match="not finite"):
        sanity_checks.check_gradients(Layers({layer(0): [1.0, float("-inf"), 0.0]}), step=3)
    sanity_checks.check_gradients(Layers({layer(0): [float("inf"), 1.0, 0.0]}), step=3, may_overflow=True)


def test_the_trap_itself_is_caught(tiny_model):
    """A 4-bit model that was evaluated in the training process: fresh adapters are dead, trained ones learn wrongly."""
    import torch
    from peft import LoraConfig, get_peft_model

    if not models.cpu_has_bf16() or torch.cuda.is_available():
        pytest.skip("bitsandbytes repacks 4-bit weights only on CPUs with avx512_bf16")
    resolved = models.resolve(str(tiny_model))
    base = models.load_base(resolved, models.choose_loading("nf4", resolved), repacking=True)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.arange(20, 40).reshape(1, -1)

    def step() -> None:
        model.train()
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(input_ids=ids, labels=ids).loss.backward()

    step()
    sanity_checks.check_gradients(model, step=1)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids[:, :1])
    step()
    with pytest.raises(UserError, match=r"modules \(first: layer 0 q_proj\) are exactly zero at step 2"):
        sanity_checks.check_gradients(model, step=2)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    step()  # past its first steps an adapter passes some gradient on by itself: nothing is zero, all of it is wrong
    with pytest.raises(UserError, match="4-bit weights of 14 modules were repacked for inference before step 3"):
        sanity_checks.check_gradients(model, step=3)
    sanity_checks.check_gradient_values(model, step=3)


def test_our_4_bit_base_is_safe_to_evaluate(tiny_model):
    """As loaded by us the trap is shut: a pass in eval mode changes neither gradients nor, by `state_dict`, losses."""
    import torch
    from peft import LoraConfig, get_peft_model

    resolved = models.resolve(str(tiny_model))
    base = models.load_base(resolved, models.choose_loading("nf4", resolved))
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    ids = torch.arange(20, 40).reshape(1, -1)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        model.state_dict()
        assert torch.equal(model(input_ids=ids).logits, before)
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    sanity_checks.check_gradients(model, step=1)


def test_a_set_that_is_all_prompt_or_all_answer():
    ids = [np.arange(4, dtype=np.int32)]
    none, everything = np.zeros(4, dtype=np.bool_), np.ones(4, dtype=np.bool_)
    truncated = schema.empty(schema.LEDGER)
    with pytest.raises(UserError, match="0 of 4 tokens"):
        sanity_checks.check_masks(sft.TokenRows(["a"], ids, [none], truncated), what="Arm 'raw'")
    with pytest.raises(UserError, match="all 4 tokens"):
        sanity_checks.check_masks(sft.TokenRows(["a"], ids, [everything], truncated), what="Arm 'raw'")


def test_same_arms_and_leaked_rows_are_refused():
    raw = arm_frame([toy_messages(1), toy_messages(2)])
    shuffled = arm_frame([toy_messages(2), toy_messages(1)], prefix="other")
    same = {name: jobs.data_hash(frame, ordered=False) for name, frame in {"raw": raw, "random": shuffled}.items()}
    with pytest.raises(UserError, match="'raw' and 'random' hold the same rows"):
        sanity_checks.check_arms_differ(same)
    assert jobs.data_hash(raw, ordered=True) != jobs.data_hash(shuffled, ordered=True)
    heldout = heldout_frame(3, start=50)
    sanity_checks.check_heldout({"raw": raw}, heldout)
    with pytest.raises(UserError, match=r"'raw' holds 1 held-out rows \(such as other:0\)"):
        sanity_checks.check_heldout({"raw": arm_frame([toy_messages(51)], prefix="other")}, heldout)
    with pytest.raises(UserError, match="such as toy:50"):
        sanity_checks.check_heldout({"raw": arm_frame([toy_messages(3)], start=50)}, heldout)


def test_the_run_is_checked_before_anything_is_trained(tiny_run):
    frame = pl.read_parquet(tiny_run / "arms" / "curated.parquet")
    frame.reverse().write_parquet(tiny_run / "arms" / "random.parquet")
    with pytest.raises(UserError, match="'curated' and 'random' hold the same rows"):
        arms.train(tiny_run)
    with pytest.raises(UserError, match=r"no arm 'curted'\. Did you mean 'curated'"):
        arms.train(tiny_run, arms=["curted"])
    rows = pl.DataFrame({"id": ["toy:0"], "arms": [["curated"]]})
    rows.write_parquet(tiny_run / "rows.parquet")
    with pytest.raises(UserError, match=r"holds 12 rows, but rows\.parquet lists 1"):
        arms.train(tiny_run, arms=["curated"])
    assert not (tiny_run / "training").exists()


def test_rows_that_the_template_cannot_write_are_found_before_training(tmp_path, tiny_model):
    """Of the arms and of the held-out rows: after hours of training it would be late."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = models.load_tokenizer(models.resolve(str(model)))
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template
    )
    tokenizer.save_pretrained(model)
    run = write_tiny_run(tmp_path / "run", model=model)
    system = message("system", "Be brief.")
    arm_frame([[system, *toy_messages(0)], *map(toy_messages, range(1, 20))]).write_parquet(
        run / "arms" / "raw.parquet"
    )
    heldout = pl.read_parquet(run / "heldout" / "test.parquet")
    refused = heldout.with_columns(pl.Series("messages", [[system, *toy_messages(500)]] * 9, heldout["messages"].dtype))
    refused.write_parquet(run / "heldout" / "test.parquet")
    notes: list[str] = []
    with pytest.raises(UserError, match=r"held-out rows: None of 9 rows .*no system.*model\.system: fold"):
        arms.train(run, arms=["raw"], warn=notes.append)
    assert not (run / "training").exists()
    assert [note.split(",")[0] for note in notes] == ["raw: 1 of 20 rows are left out"]
    entry = RunFolder.open(run).ledger().row(0, named=True)
    assert (entry["id"], entry["stage"], entry["reason"]) == ("toy:0", "train/raw", "template")


def test_not_enough_memory_is_refused_before_loading(tmp_path, tiny_model):
    job = make_job(tmp_path, tiny_model, arm_frame([toy_messages(1)]))
    with pytest.raises(UserError, match=r"needs about .* GiB .* free on the cpu. Lower training.micro_rows"):
        sft.train(job, quiet, shared=sft.SharedBase([job], free=lambda _: 2**20))


# --- training ---

#: Enough to learn three rows by heart.
MEMORISE: dict[str, Any] = {
    "budget": {"steps": 160},
    "batch_rows": 3,
    "micro_rows": 3,
    "learning_rate": 3e-3,
    "schedule": "linear",
    "max_grad_norm": 10.0,
    "lora": {"rank": 64, "alpha": 256, "dropout": 0.0},
}


def test_it_memorises_a_tiny_set_and_logs_every_step(tmp_path, tiny_model):
    frame = arm_frame([toy_messages(number) for number in (4, 12, 17)])
    job = make_job(
        tmp_path,
        tiny_model,
        frame,
        **MEMORISE,
        checkpoint_steps=500,
    )
    reports = []
    result = sft.train(job, lambda label, done, total: reports.append((label, done, total)))
    assert result.last_loss < 0.05
    log = read_log(job.folder)
    assert log.schema == LOG_COLUMNS
    assert log["step"].to_list() == list(range(1, 161))
    assert log["tokens"][-1] == result.tokens == result.planned.tokens
    assert log["tokens"].is_sorted()
    assert log["seconds"].is_sorted()
    assert reports[-1][1:] == (160, 160)
    assert "tokens/s" in reports[-1][0]
    assert result.rows == 480
    assert result.epochs == 160
    assert result.adapter_hash == file_sha256(job.folder / "adapter" / "adapter_model.safetensors")
    assert read_result(job.folder, key=job.key) == result


@pytest.mark.slow
def test_training_goes_on_learning_after_an_evaluation(tmp_path, tiny_model, monkeypatch):
    """Train, stop at a checkpoint, evaluate as siftune does (another process), go on: the first layer still learns."""
    from siftune.training.evaluation import evaluate

    run = write_tiny_run(
        tmp_path / "run",
        model=tiny_model,
        **MEMORISE,
        checkpoint_steps=10,
    )
    small = arm_frame([toy_messages(number) for number in (4, 12, 17)])
    job = make_job(tmp_path / "arm", tiny_model, small).model_copy(
        update={"training": RunFolder.open(run).recipe.training, "folder": RunFolder.open(run).training("raw", 0)}
    )

    class Stop(Exception):  # noqa: N818
        pass

    def stop_at_12(_: str, done: int, total: int) -> None:
        if done == 12:
            raise Stop

    with pytest.raises(Stop):
        sft.train(job, stop_at_12)
    checkpoint = sft.last_checkpoint(job.folder)
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-10"
    (job.folder / "adapter").symlink_to(checkpoint)
    write_result(training_result(adapter_hash=file_sha256(checkpoint / "adapter_model.safetensors")), job.folder)
    evaluations = evaluate.evaluate(run)
    assert [evaluation.name for evaluation in evaluations] == ["base", "raw-seed-0"]
    (job.folder / "adapter").unlink()
    (job.folder / RESULT_FILE).unlink()

    first_layer: list[float] = []
    check = sanity_checks.check_gradients

    def spy(model: Any, **rest: Any) -> None:
        grads = [part.grad for name, part in model.named_parameters() if ".layers.0." in name and part.grad is not None]
        first_layer.append(max(float(grad.abs().max()) for grad in grads))
        check(model, **rest)

    monkeypatch.setattr(sanity_checks, "check_gradients", spy)
    result = sft.train(job, quiet)
    assert len(first_layer) == 150
    assert min(first_layer) > 0
    assert result.last_loss < 0.05


def test_a_checkpoint_that_was_not_finished_is_passed_over(tmp_path):
    for step, state in ((2, "{}"), (4, '{"global_'), (6, None)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert sft.last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "checkpoint-2"
    assert sft.last_checkpoint(tmp_path / "none") is None


def test_minutes_end_the_run(tmp_path, tiny_model):
    frame = arm_frame([toy_messages(number) for number in range(4)])
    job = make_job(tmp_path, tiny_model, frame, budget={"minutes": 0.03}, schedule="linear", checkpoint_steps=10_000)
    result = sft.train(job, quiet)
    log = read_log(job.folder)
    assert log["seconds"][-1] >= 1.8
    assert (log["seconds"][:-1] < 1.8).all()
    assert result.steps == log.height < result.planned.steps


def kill_after(job: jobs.TrainJob, *, steps: int) -> None:
    """Run the worker as the parent does, and kill -9 it when it has reported this many steps."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "killed.log").open("w") as log:
        process = worker.start(jobs.WORKER, log=log)
    assert process.stdin is not None
    assert process.stdout is not None
    worker.hand_over(jobs.TrainBatch(jobs=[job]).model_dump_json(), process.stdin)
    for line in process.stdout:
        if json.loads(line).get("progress", [0, 0, 0])[1] >= steps:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_adapter(tmp_path, tiny_model):
    """SIGKILL between checkpoints; dropout and NEFTune draw random numbers, so the generator must be restored too."""
    frame = arm_frame([toy_messages(number) for number in range(12)])
    settings: dict[str, Any] = {"budget": {"steps": 9}, "checkpoint_steps": 3, "neftune": 5.0, "schedule": "cosine"}
    settings["average_last"] = 0.7  # the mean begins with step 3
    uninterrupted = make_job(tmp_path / "uninterrupted", tiny_model, frame, **settings)
    broken = make_job(tmp_path / "broken", tiny_model, frame, **settings)
    kill_after(broken, steps=5)
    assert read_result(broken.folder) is None
    checkpoint = sft.last_checkpoint(broken.folder)
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-3"
    resumed, expected = jobs.train_in_workers([broken, uninterrupted])
    assert resumed.adapter_hash == expected.adapter_hash
    same = ["step", "loss", "learning_rate", "grad_norm", "tokens"]
    logs = [read_log(job.folder).select(same) for job in (broken, uninterrupted)]
    assert logs[0].equals(logs[1])


@pytest.mark.slow
def test_one_process_trains_the_same_adapters_as_one_for_each_job(tmp_path, tiny_model):
    """The first job switches gradient checkpointing on in the base, the second does without. In their process there is
    no room for unpacked weights, in the one that trains a job alone there is."""
    frames = [arm_frame([toy_messages(number) for number in range(start, start + 8)]) for start in (0, 20)]
    settings: dict[str, Any] = {"budget": {"steps": 3}, "neftune": 5.0}
    first = make_job(tmp_path / "first", tiny_model, frames[0], **settings, micro_rows=4)
    second = make_job(tmp_path / "second", tiny_model, frames[1], **settings, micro_rows=1)
    alone = make_job(tmp_path / "alone", tiny_model, frames[1], **settings, micro_rows=1)
    loading = models.choose_loading("nf4", first.resolved)
    enough = estimate_memory(first.resolved, loading, first.training, free=lambda _: 2**40).total
    shared = sft.SharedBase([first], free=lambda _: enough - 1)
    results = [sft.train(job, quiet, shared=shared) for job in (first, second)]
    assert [result.memory.checkpointing for result in results] == [True, False]
    assert not [name for name, _ in shared.model.named_modules() if "lora" in name]
    assert not shared.unpacked
    assert sft.SharedBase([alone]).unpacked == (loading.device == "cpu" and loading.compute == "float32")
    expected = jobs.train_in_worker(alone)
    adapters = [job.folder / "adapter" / "adapter_model.safetensors" for job in (second, alone)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert results[1].adapter_hash == expected.adapter_hash != results[0].adapter_hash


@pytest.mark.slow
def test_a_process_that_dies_loses_no_job(tmp_path, tiny_model, monkeypatch):
    """Killed in its second job, it is followed by another one that goes on from there; a job at fault ends the rest."""
    frame = arm_frame([toy_messages(number) for number in range(8)])
    settings: dict[str, Any] = {"budget": {"steps": 4}, "checkpoint_steps": 1}
    planned = [make_job(tmp_path / name, tiny_model, frame, **settings) for name in ("one", "two", "three")]
    planned[1] = planned[1].model_copy(update={"seed": 1})
    too_short = planned[2].training.model_copy(update={"max_length": 9})
    planned[2] = planned[2].model_copy(update={"training": too_short, "seed": 2})
    started: list[Any] = []
    start = worker.start

    def start_and_remember(module: str, *, log: IO[str]) -> Any:
        started.append(start(module, log=log))
        return started[-1]

    def kill_once(label: str, done: int, _: int) -> None:
        if "seed 1" in label and done == 2 and len(started) == 1:
            started[0].kill()

    monkeypatch.setattr(worker, "start", start_and_remember)
    trained = jobs.train_in_workers(planned, progress=kill_once)
    assert next(trained).seed == 0
    assert next(trained).seed == 1
    assert len(started) == 2
    assert read_log(planned[1].folder)["step"].to_list() == [1, 2, 3, 4]
    with pytest.raises(UserError, match="has a trained token"):
        next(trained)
    assert [read_result(job.folder, key=job.key) is not None for job in planned] == [True, True, False]


def test_the_adapter_is_the_mean_of_the_last_weights(tmp_path, tiny_model):
    from safetensors.numpy import load_file

    frame = arm_frame([toy_messages(number) for number in range(8)])
    job = make_job(tmp_path, tiny_model, frame, budget={"steps": 5}, checkpoint_steps=1, average_last=0.4)
    sft.train(job, quiet)
    file = "adapter_model.safetensors"
    steps = [load_file(job.folder / "checkpoints" / f"checkpoint-{step}" / file) for step in (4, 5)]
    adapter = load_file(job.folder / "adapter" / file)
    assert adapter.keys() == steps[0].keys()
    for name, mean in adapter.items():
        np.testing.assert_allclose(mean, (steps[0][name] + steps[1][name]) / 2, atol=1e-6)
    assert any(not np.array_equal(adapter[name], steps[1][name]) for name in adapter)


def test_no_step_has_the_rate_zero(tmp_path, tiny_model):
    frame = arm_frame([toy_messages(number) for number in range(8)])
    job = make_job(tmp_path, tiny_model, frame, budget={"steps": 4}, schedule="linear", warmup=0.25)
    sft.train(job, quiet)
    assert read_log(job.folder)["learning_rate"].to_list() == pytest.approx([1.5e-3, 2.5e-3, 1.5e-3, 0.5e-3])


def test_another_job_in_the_same_folder_starts_anew(tmp_path, tiny_model):
    frame = arm_frame([toy_messages(number) for number in range(4)])
    job = make_job(tmp_path, tiny_model, frame, budget={"steps": 2}, checkpoint_steps=1)
    first = sft.train(job, quiet)
    settings = job.training.model_copy(update={"learning_rate": 1e-4})
    other = job.model_copy(update={"training": settings})
    assert read_result(other.folder, key=other.key) is None
    second = sft.train(other, quiet)
    assert second.adapter_hash != first.adapter_hash
    assert read_result(job.folder, key=job.key) is None


@pytest.mark.slow
def test_arms_are_trained_once_and_recorded_in_the_manifest(tiny_run):
    labels: list[str] = []
    results = arms.train(tiny_run, arms=["raw", "curated", "base"], progress=lambda label, *_: labels.append(label))
    assert [result.arm for result in results] == ["raw", "curated"]
    assert results[0].adapter_hash != results[1].adapter_hash
    record = RunFolder.open(tiny_run).manifest.training["raw-seed-0"]
    assert record.load["why"].startswith("the recipe says nf4")
    assert record.tokens == results[0].tokens
    labels.clear()
    again = arms.train(tiny_run, arms=["raw", "curated"], progress=lambda label, *_: labels.append(label))
    assert again == results
    assert labels == ["raw seed 0: already trained", "curated seed 0: already trained"]


@pytest.mark.slow
def test_a_fault_in_the_worker_reaches_the_user_word_for_word(tiny_run):
    recipe = json.loads((tiny_run / "manifest.json").read_text())
    recipe["recipe"] = recipe["recipe"].replace("max_length: 128", "max_length: 16")
    (tiny_run / "manifest.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=r"None of 24 rows has a trained token"):
        arms.train(tiny_run, arms=["raw"])


@pytest.mark.slow
def test_dry_run_plans_all_arms_and_writes_nothing(tiny_run):
    before = sorted(tiny_run.rglob("*"))
    plan = dry_run.dry_run(tiny_run)
    assert sorted(tiny_run.rglob("*")) == before
    assert [arm.arm for arm in plan.arms] == ["raw", "curated", "random"]
    assert [arm.rows for arm in plan.arms] == [24, 12, 12]
    assert all(arm.steps == 6 for arm in plan.arms)
    assert plan.tokens_per_second > 0
    assert plan.minutes == pytest.approx(sum(arm.minutes for arm in plan.arms))
    assert plan.memory["total"] > 0


def test_mask_shows_each_token(tiny_run):
    tokens = row_tokens(tiny_run, "toy:1")
    answer = toy_messages(1)[1]["content"]
    assert "".join(text for text, trained in tokens if trained) == answer + "<|im_end|>"
    assert "".join(text for text, trained in tokens if not trained).endswith("<|im_start|>assistant\n")
    assert row_tokens(tiny_run, "toy:1000")
    with pytest.raises(UserError, match="holds the row 'toy:77'"):
        row_tokens(tiny_run, "toy:77")


def test_truncated_rows_are_written_and_counted(tmp_path, tiny_model):
    frame = arm_frame([toy_messages(number) for number in range(8)])
    job = make_job(tmp_path, tiny_model, frame, budget={"steps": 1}, max_length=110)
    result = sft.train(job, quiet)
    truncated = read_truncated(job.folder)
    assert truncated is not None
    assert truncated.schema == schema.LEDGER
    assert result.truncated_rows == truncated.height > 0
    assert set(truncated["action"]) == {"truncate"}


@pytest.mark.slow
def test_other_loads_train_too(tmp_path):
    model = write_tiny_llama(tmp_path / "model", template="llama-3.2")
    frame = arm_frame([toy_messages(number) for number in range(4)])
    hashes, computed = set(), set()
    for load in ("bf16", "fp32", "nf4"):
        job = make_job(tmp_path / load, model, frame, load=load, budget={"steps": 3})
        result = sft.train(job, quiet)
        assert result.load.load == load
        hashes.add(result.adapter_hash)
        computed.add((load == "nf4", result.load.compute))  # without native bf16, `bf16` is computed in float32
    assert len(hashes) == len(computed) >= 2
