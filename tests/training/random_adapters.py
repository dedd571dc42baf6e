"""Adapters as training leaves them, without training: random ones that answer differently."""

from __future__ import annotations

from pathlib import Path

from siftune.curation.file_hash import file_sha256
from siftune.curation.run.paths import RunPaths
from siftune.training.result import write_result
from tests.training.worlds import training_result


def write_adapter(
    folder: Path, model: Path, *, seed: int, rank: int = 4, scale: float = 1.0, targets: str | list[str] = "all-linear"
) -> Path:
    """Save a LoRA adapter of random weights as PEFT does; `scale` 0 leaves the base as it is."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    adapted.save_pretrained(folder)
    return folder


def write_trained(run: Path, model: Path, arms: tuple[str, ...] = ("raw", "curated"), *, seed: int = 0) -> Path:
    """Adapters and results of arms in a run folder, as `siftune train` leaves them."""
    paths = RunPaths(run)
    for index, arm in enumerate(arms):
        adapter = write_adapter(paths.adapter(arm, seed), model, seed=10 * seed + index + 1)
        digest = file_sha256(adapter / "adapter_model.safetensors")
        write_result(training_result(arm=arm, seed=seed, adapter_hash=digest), paths.training(arm, seed))
    return run
