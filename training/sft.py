"""Train one arm: rows in, adapter out. Read from top to bottom.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314) with TRL's SFTTrainer: the base in 4-bit NormalFloat with double
quantisation, LoRA adapters (Hu et al. 2021, arXiv 2106.09685: W + alpha / rank · B·A) on all linear layers, loss on
assistant turns only. Never evaluates: see `siftune.training.worker` for the reason.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from siftune.curation.atomic_files import write_json
from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.curation.progress import Progress
from siftune.curation.run.paths import ADAPTER, training_name
from siftune.training import models, sanity_checks, worker
from siftune.training.fast_dropout import use_fast_dropout
from siftune.training.jobs import TrainBatch, TrainJob
from siftune.training.masks import TokenRows, tokenise
from siftune.training.memory import FreeMemory, MemoryEstimate, estimate_memory, free_memory, require_memory
from siftune.training.result import (
    LOG_FILE,
    RESULT_FILE,
    TRUNCATED_FILE,
    TrainingMeasurements,
    TrainingResult,
    write_result,
    write_truncated,
)
from siftune.training.schedule import StepPlan, forward_passes, learning_rate_factor, plan_steps
from siftune.training.selected_logits import logits_where
from siftune.training.step_log import StepLog
from siftune.training.weight_average import WeightAverage

#: Labels of tokens that do not enter the loss: PyTorch's `ignore_index`.
IGNORED = -100


class SharedBase:
    """What the jobs of one worker share: the base model, loaded when the first of them needs it, and its tokenizer.

    Args:
        jobs: The jobs, at least one.
        free: Asked once, before anything is loaded, for the memory that is free.
    """

    def __init__(self, jobs: Sequence[TrainJob], *, free: FreeMemory = free_memory) -> None:
        self.resolved = jobs[0].resolved
        self.loading = models.choose_loading(jobs[0].model.load, self.resolved)
        self.tokenizer = models.load_tokenizer(self.resolved)
        self.free = free(self.loading.device)
        self.unpacked = self._has_room_for_unpacked(jobs)

    @cached_property
    def model(self) -> Any:
        """The base model, frozen and without adapters."""
        base = models.load_base(self.resolved, self.loading)
        return base.dequantize() if self.unpacked else base

    def estimate(self, job: TrainJob) -> MemoryEstimate:
        """The memory that a job needs beside this base."""
        return self._estimate(job, unpacked=self.unpacked)

    def _has_room_for_unpacked(self, jobs: Sequence[TrainJob]) -> bool:
        """Whether 4-bit weights are unpacked once and not in each pass: in float32 on a CPU, where there is room.

        Without native bf16 bitsandbytes unpacks a weight and then multiplies, so the adapters are the same bytes. Where
        it has a kernel of its own (CUDA, avx512_bf16) they are not, and little is gained.
        """
        loading = self.loading
        if loading.load != "nf4" or loading.device != "cpu" or loading.compute != "float32":
            return False
        estimates = (
            self._estimate(job, unpacked=True) for job in {job.training.model_dump_json(): job for job in jobs}.values()
        )
        return all(not estimate.checkpointing for estimate in estimates)

    def _estimate(self, job: TrainJob, *, unpacked: bool) -> MemoryEstimate:
        loading = replace(self.loading, load="fp32") if unpacked else self.loading
        return estimate_memory(job.resolved, loading, job.training, free=lambda _: self.free)


def train(job: TrainJob, progress: Progress, *, shared: SharedBase | None = None) -> TrainingMeasurements:
    """Train the arm of `job` and return its result. Continues from the last whole checkpoint.

    A probe (`job.probe_steps`) saves nothing and returns only what it measured.

    Args:
        job: The arm, its rows and all settings.
        progress: Called after each optimiser step.
        shared: The base model of earlier jobs, which gets no trace of this one.

    Raises:
        UserError: a sanity check fails, the model cannot be loaded, or there is too little memory.
    """
    _prepare_folder(job)
    shared = shared or SharedBase([job])
    loading, tokenizer = shared.loading, shared.tokenizer

    # 1. The rows as tokens with a mask, and the steps that the budget buys of them.
    rows = tokenise(
        tokenizer, pl.read_parquet(job.rows, glob=False), max_length=job.training.max_length, system=job.model.system
    )
    sanity_checks.check_masks(rows, what=f"Arm {job.arm!r}")
    plan = plan_steps(rows.trained_counts, rows.names, job.training, seed=job.seed)

    # 2. The base model, when there is room for it.
    memory = shared.estimate(job)
    require_memory(memory, job.resolved.name)
    base = shared.model

    # 3. The adapter. Seeded here, so that all arms of one seed start from the same weights.
    torch.manual_seed(job.seed)
    lora = job.training.lora
    model = get_peft_model(
        base,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            task_type="CAUSAL_LM",
        ),
    )
    use_fast_dropout(model)

    # 4. The trainer, which takes the planned steps.
    average = WeightAverage(model)
    log = StepLog(plan, job, average, progress)
    trainer = ArmTrainer(
        model=model,
        args=_arguments(job, loading, memory, steps=len(plan.steps)),
        train_dataset=_dataset(rows),
        processing_class=tokenizer,
        callbacks=[log],
        plan=plan,
        loading=loading,
        log=log,
        job=job,
    )
    # TRL rounds the adapters of a 4-bit base to bf16, where an update of 2e-4 is lost in rounding: keep float32.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()

    # 5. Train.
    checkpoint = last_checkpoint(job.folder)
    log.resume(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    log.write()
    measurements = _measurements(job, rows, plan, log, loading, memory)
    if job.probe_steps is not None:
        return measurements

    # 6. Keep the adapter, its truncated rows and, as the last file, the result.
    average.apply()
    model.save_pretrained(job.folder / ADAPTER)
    write_truncated(rows.truncated, job.folder)
    adapter_hash = file_sha256(job.folder / ADAPTER / "adapter_model.safetensors")
    result = TrainingResult(**measurements.model_dump(), adapter_hash=adapter_hash)
    write_result(result, job.folder)
    _remove_adapter(model)
    return result


def train_all(batch: TrainBatch, progress: Progress) -> Iterator[TrainingMeasurements]:
    """Train the jobs of a batch one after the other over one base model; each result comes when it is on disk.

    An adapter is the same, byte for byte, as when its job is trained alone. Raises `UserError` like `train`, at the
    job that fails.
    """
    shared = SharedBase(batch.jobs)
    for job in batch.jobs:
        yield train(job, progress, shared=shared)


class ArmTrainer(SFTTrainer):
    """TRL's trainer with planned steps: one batch is one optimiser step, which is divided into forward passes here."""

    def __init__(self, *, plan: StepPlan, loading: models.Loading, log: StepLog, job: TrainJob, **trainer: Any) -> None:
        self.plan, self.loading, self.step_log, self.job = plan, loading, log, job
        super().__init__(**trainer)
        self.remove_callback(PrinterCallback)  # it would print every step

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The planned steps in order; whatever comes after a resume is skipped to by position."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=[step.tolist() for step in self.plan.steps],
            collate_fn=self.data_collator,
        )

    def create_scheduler(
        self,
        num_training_steps: int,  # noqa: ARG002 - the plan's, or unknown when the budget is time
        optimizer: torch.optim.Optimizer | None = None,
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and decay over the share of the budget that is used: steps, or time when the budget is time."""
        settings = self.job.training

        def factor(step: int) -> float:
            # The rate of a step is that of its middle, so that no step has the rate zero.
            share = self.step_log.share_of_budget(step + 0.5)
            return learning_rate_factor(settings.schedule, share, warmup=settings.warmup)

        self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,  # noqa: ARG002 - counted below, for this step's rows
    ) -> torch.Tensor:
        """Accumulate gradients over passes of similar length; each trained token of the step weighs the same.

        Args:
            model: The adapted model.
            inputs: `input_ids`, `attention_mask` and `labels` of the step's rows, each int64 (rows, width), padded on
                the right.
            num_items_in_batch: Not used: TRL counts for another division of the step.

        Returns:
            The mean loss of the step's trained tokens in nats per token, a float32 scalar.
        """
        model.train()
        inputs = self._prepare_inputs(inputs)
        lengths = inputs["attention_mask"].sum(dim=1)
        trained_tokens = (inputs["labels"][:, 1:] != IGNORED).sum()

        # Forward and backward for a few rows of similar length at a time; gradients add up.
        step_loss = torch.zeros((), device=self.args.device)
        most_tokens = self.job.training.micro_rows * self.job.training.max_length
        for rows in forward_passes(lengths.cpu().numpy(), most_tokens=most_tokens):
            width = int(lengths[rows].max())
            pass_inputs = {name: tensor[rows, :width] for name, tensor in inputs.items()}
            loss = self.compute_loss(model, pass_inputs, num_items_in_batch=trained_tokens)
            self.accelerator.backward(loss)
            step_loss += loss.detach()

        # Count, and look at the gradients before the optimiser uses them.
        self.step_log.count(int(trained_tokens))
        sanity_checks.check_gradients(
            model, step=self.state.global_step + 1, may_overflow=self.loading.compute == "float16"
        )
        return step_loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - TRL's signature
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """On CUDA TRL's fused head. On CPUs that head scores every position of every row against the vocabulary; here
        it sees only the positions whose next token is trained.

        Rows are padded on the right and attention is causal, so no real token can see padding and no attention mask
        is needed: without one the attention kernel skips half of the work.

        Args:
            model: The adapted model.
            inputs: As in `training_step`, of the rows of one pass.
            return_outputs: Passed on to TRL on CUDA; not used on CPUs.
            num_items_in_batch: Trained tokens of the whole step, by which the summed loss is divided.
        """
        if self.loading.device == "cuda":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        trained = inputs["labels"][:, 1:] != IGNORED
        with torch.autocast("cpu", self.loading.dtype, enabled=self.loading.compute != "float32"):
            logits = logits_where(model, inputs["input_ids"], trained)
        targets = inputs["labels"][:, 1:][trained]
        loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return loss / (num_items_in_batch or trained.sum())

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the weights of a checkpoint, and the mean of the last ones beside them."""
        super()._save(output_dir, state_dict)
        self.step_log.average.write(Path(output_dir or self.args.output_dir))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card for a checkpoint; the export writes one."""


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a training folder that was written to its end."""

    def is_whole(checkpoint: Path) -> bool:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # a checkpoint's last file
        except (OSError, ValueError):
            return False
        return True

    checkpoints = [path for path in (folder / "checkpoints").glob("checkpoint-*") if is_whole(path)]
    return max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _remove_adapter(model: Any) -> None:
    """Leave the base as it was before: without the adapter, and without what gradient checkpointing needs of it."""
    base = model.unload()
    if base.is_activation_checkpointing:
        base.activation_checkpointing_disable()
        base.disable_input_require_grads()
    gc.collect()  # the trainer holds the adapter's gradients in a cycle


def _prepare_folder(job: TrainJob) -> None:
    """Clear away what another job left in the folder of this one, and note whose it is."""
    note = job.folder / "job.json"
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8"))["key"] != job.key:
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(job.folder / ADAPTER, ignore_errors=True)
        for name in (RESULT_FILE, LOG_FILE, TRUNCATED_FILE):
            (job.folder / name).unlink(missing_ok=True)
        write_json({"key": job.key}, note)


def _arguments(job: TrainJob, loading: models.Loading, memory: MemoryEstimate, *, steps: int) -> SFTConfig:
    """TRL's settings from the recipe's. Raises `UserError` for a tracker that is not installed."""
    settings = job.training
    for tracker in settings.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise UserError(
                f"training.report_to names {tracker}, which is not installed. Install it with: pip install {tracker}"
            )
    # Trackers take the names of their runs from here; TensorBoard's files go beside the log.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(job.folder / "tensorboard"))
    cuda = loading.device == "cuda"
    return SFTConfig(
        output_dir=str(job.folder / "checkpoints"),
        run_name=training_name(job.arm, job.seed),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_rows,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        neftune_noise_alpha=settings.neftune,
        # QLoRA pages the optimiser out of a full GPU; a CPU has nothing to page to.
        optim="paged_adamw_32bit" if cuda and loading.load == "nf4" else "adamw_torch",
        use_cpu=not cuda,
        bf16=cuda and loading.compute == "bfloat16",
        fp16=cuda and loading.compute == "float16",
        gradient_checkpointing=memory.checkpointing,
        seed=job.seed,
        data_seed=job.seed,
        max_length=None,  # rows are truncated and counted already
        packing=False,  # without a variable-length attention kernel packed rows read one another
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no" if job.probe_steps else "steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(settings.report_to) if job.probe_steps is None else [],
        disable_tqdm=True,
    )


def _dataset(rows: TokenRows) -> datasets.Dataset:
    """`input_ids` and `labels` of each row, int32 lists of the row's length."""
    labels = [np.where(mask, ids, IGNORED) for ids, mask in zip(rows.ids, rows.trained, strict=True)]
    return datasets.Dataset.from_dict({"input_ids": rows.ids, "labels": labels})


def _measurements(
    job: TrainJob, rows: TokenRows, plan: StepPlan, log: StepLog, loading: models.Loading, memory: MemoryEstimate
) -> TrainingMeasurements:
    steps, seconds = len(log.rows), log.rows[-1]["seconds"]
    rows_taken = sum(len(step) for step in plan.steps[:steps])
    return TrainingMeasurements.model_validate(
        {
            "key": job.key,
            "arm": job.arm,
            "seed": job.seed,
            "data": job.data,
            "model": {"name": job.resolved.name, "identity": job.resolved.identity, "origin": job.resolved.origin},
            "load": {"load": loading.load, "device": loading.device, "compute": loading.compute, "why": loading.why},
            "budget": job.training.budget.model_dump(exclude_none=True),
            "steps": steps,
            "tokens": log.tokens,
            "rows": rows_taken,
            "epochs": round(rows_taken / len(rows.names), 4),
            "seconds": round(seconds, 2),
            "minutes": round(seconds / 60, 4),
            "truncated_rows": rows.truncated.height,
            "warnings": list(rows.warnings),
            "arm_rows": len(rows.names),
            "arm_tokens": int(rows.trained_counts.sum()),
            "planned": {"steps": len(plan.steps), "tokens": int(plan.tokens.sum())},
            "tokens_per_second": round(log.tokens / seconds, 2),
            "last_loss": log.rows[-1]["loss"],
            "memory": memory.in_mib(),
            "threads": torch.get_num_threads(),
            "versions": models.versions(),
        }
    )


def main() -> int:
    """The worker: a `TrainBatch` on standard input, its results on standard output."""
    return worker.serve_all(
        lambda text, progress: (
            result.model_dump() for result in train_all(TrainBatch.model_validate_json(text), progress)
        )
    )


if __name__ == "__main__":
    sys.exit(main())
