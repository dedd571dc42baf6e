"""How much memory a training run needs, told from the model's config before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psutil

from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Training
from siftune.training.models import Loading, ResolvedModel

#: 4 bits, plus 8-bit scales for each 64 weights and 32-bit scales of scales for each 256 of those: QLoRA, section 3.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
#: float32 weight, gradient and two moments of AdamW.
_TRAINED_BYTES = 16
#: Kept for the backward pass, in elements a token and layer: of the hidden width (norms, q, k, v, attention, residuals,
#: adapter inputs and their dropout) and of the feed-forward width. Counted from the graph of a Llama layer.
_HIDDEN_KEPT, _INNER_KEPT = 28, 12
#: Logits in the compute type, in float32, their softmax and its gradient.
_LOGIT_BYTES = 14
_LIBRARIES = 700 * 2**20


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimated bytes."""

    weights: int
    adapter: int
    activations: int
    free: int
    device: str
    #: Gradient checkpointing is on: slower, but without it the run would not fit.
    checkpointing: bool

    @property
    def total(self) -> int:
        """Everything together, the libraries included."""
        return self.weights + self.adapter + self.activations + _LIBRARIES

    def as_facts(self) -> dict[str, Any]:
        """For done.json and the dry run, in MiB."""
        facts = {name: value // 2**20 for name, value in asdict(self).items() if type(value) is int}
        return {**facts, "total": self.total // 2**20, "unit": "MiB", "checkpointing": self.checkpointing}


def estimate_memory(model: ResolvedModel, loading: Loading, training: Training) -> MemoryEstimate:
    """Estimate from the shapes alone: the model is built without storage."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(model.folder), local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    head = skeleton.get_output_embeddings()
    linear = [part for part in skeleton.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    in_linear = sum(part.weight.numel() for part in linear)
    others = sum(parameter.numel() for parameter in skeleton.parameters()) - in_linear
    size = 4 if loading.compute == "float32" else 2
    weights = in_linear * (_NF4_BYTES if loading.load == "nf4" else size) + others * size
    targets = training.lora.targets
    adapted = [
        part
        for name, part in skeleton.named_modules()
        if isinstance(part, torch.nn.Linear)
        and part is not head
        and (targets == "all-linear" or name.rpartition(".")[2] in targets)
    ]
    adapter = sum(training.lora.rank * (part.in_features + part.out_features) for part in adapted) * _TRAINED_BYTES
    text = config.get_text_config()
    tokens = training.micro_rows * training.max_length
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    kept = (_HIDDEN_KEPT * text.hidden_size + _INNER_KEPT * inner) * size * tokens
    logits = tokens * text.vocab_size * _LOGIT_BYTES
    free = _free(loading.device)
    full = MemoryEstimate(
        int(weights), adapter, int(kept * text.num_hidden_layers + logits), free, loading.device, checkpointing=False
    )
    if full.total <= free:
        return full
    # One layer's activations at a time, and what enters each layer.
    less = kept + text.num_hidden_layers * text.hidden_size * size * tokens + logits
    return MemoryEstimate(int(weights), adapter, int(less), free, loading.device, checkpointing=True)


def require_memory(memory: MemoryEstimate, name: str) -> None:
    """Raises `UserError` when the estimate does not fit into what is free now."""
    if memory.total <= memory.free:
        return
    raise UserError(
        f"Training {name} needs about {_gib(memory.total)} ({_gib(memory.weights)} weights, {_gib(memory.adapter)} "
        f"adapter, {_gib(memory.activations)} activations) and {_gib(memory.free)} are free on the {memory.device}. "
        "Lower training.micro_rows or training.max_length, set model.load: nf4, or choose a smaller model."
    )


def _free(device: str) -> int:
    import torch

    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
