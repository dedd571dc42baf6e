"""Adapters as training leaves them, without training: random ones that answer differently."""

from __future__ import annotations

import json
from pathlib import Path


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
    """Adapters and done.json of arms in a run folder, as `siftune train` leaves them."""
    import hashlib

    for place, arm in enumerate(arms):
        folder = run / "training" / arm / f"seed-{seed}"
        adapter = write_adapter(folder / "adapter", model, seed=10 * seed + place + 1)
        digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
        facts = {"arm": arm, "seed": seed, "adapter_hash": digest, "tokens": 1000, "seconds": 60.0, "steps": 10}
        facts |= {"rows": 40, "arm_rows": 24, "arm_tokens": 800, "truncated_rows": 0, "key": "k"}
        facts |= {"model": {"name": "tiny", "origin": "a folder"}, "load": {"load": "nf4"}}
        (folder / "done.json").write_text(json.dumps(facts), encoding="utf-8")
    return run
