"""How much memory a training run needs, estimated from the model's config before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Training
from siftune.training.models import Loading, ResolvedModel

#: Bytes per weight: 4 bits, plus 8-bit scales for each 64 weights and 32-bit scales of scales for each 256 of those
#: (QLoRA, arXiv 2305.14314, section 3).
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
#: Bytes per trained parameter: float32 weight, gradient and two moments of AdamW.
_TRAINED_BYTES = 16
#: And its mean over the last steps, where the adapter is that.
_MEAN_BYTES = 4
#: Elements that are kept for the backward pass, per token and layer: of the hidden width (norms, q, k, v, attention,
#: residuals, adapter inputs and their dropout) and of the feed-forward width. Counted from the graph of a Llama layer.
_HIDDEN_KEPT, _INNER_KEPT = 28, 12
#: Bytes per logit: in the compute type, in float32, its softmax and its gradient.
_LOGIT_BYTES = 14
#: Bytes of the libraries themselves.
_LIBRARIES = 700 * 2**20

#: Bytes that are free now on a device, "cpu" or "cuda".
FreeMemory = Callable[[str], int]


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimated bytes of a training run, and the bytes that are free on its device."""

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

    def in_mib(self) -> dict[str, Any]:
        """The estimate in MiB, as the training result keeps it (`siftune.training.result.MemoryRecord`)."""
        sizes = {"weights": self.weights, "adapter": self.adapter, "activations": self.activations}
        sizes |= {"free": self.free, "total": self.total}
        in_mib = {name: size // 2**20 for name, size in sizes.items()}
        return {**in_mib, "unit": "MiB", "checkpointing": self.checkpointing}


def free_memory(device: str) -> int:
    """Bytes that are free now on "cpu" or "cuda"."""
    import torch

    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def estimate_memory(
    model: ResolvedModel, loading: Loading, training: Training, *, free: FreeMemory = free_memory
) -> MemoryEstimate:
    """Estimate the memory of a training run. The model is built from its config without storage.

    Args:
        model: The base model.
        loading: How the base is loaded, and the type of activations.
        training: Rank and targets of the adapters, rows of a forward pass and their greatest length.
        free: Asked for the bytes that are free on the device.

    Returns:
        The estimate; with gradient checkpointing when it would not fit without.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # 1. The model's shapes.
    config = AutoConfig.from_pretrained(str(model.folder), local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    head = skeleton.get_output_embeddings()
    linears = {
        name: module
        for name, module in skeleton.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }

    # 2. Weights: linear modules as they are loaded, embeddings and norms in 16 or 32 bits.
    linear_weights = sum(module.weight.numel() for module in linears.values())
    other_weights = sum(parameter.numel() for parameter in skeleton.parameters()) - linear_weights
    element = 4 if loading.compute == "float32" else 2
    weights = int(linear_weights * (_NF4_BYTES if loading.load == "nf4" else element) + other_weights * element)

    # 3. The adapters on the targets, with their gradients and the optimiser's state.
    targets = training.lora.targets
    adapted = [
        module for name, module in linears.items() if targets == "all-linear" or name.rpartition(".")[2] in targets
    ]
    trained = sum(training.lora.rank * (layer.in_features + layer.out_features) for layer in adapted)
    adapter = trained * (_TRAINED_BYTES + (_MEAN_BYTES if training.average_last else 0))

    # 4. Activations of one forward pass.
    text = config.get_text_config()
    tokens = training.micro_rows * training.max_length
    feed_forward = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    one_layer = (_HIDDEN_KEPT * text.hidden_size + _INNER_KEPT * feed_forward) * element * tokens
    logits = tokens * text.vocab_size * _LOGIT_BYTES
    free_bytes, layers = free(loading.device), text.num_hidden_layers
    all_layers = int(one_layer * layers + logits)
    estimate = MemoryEstimate(weights, adapter, all_layers, free_bytes, loading.device, checkpointing=False)
    if estimate.total <= free_bytes:
        return estimate

    # 5. With checkpointing only one layer's activations at a time, and what enters each layer.
    checkpointed = int(one_layer + layers * text.hidden_size * element * tokens + logits)
    return MemoryEstimate(weights, adapter, checkpointed, free_bytes, loading.device, checkpointing=True)


def require_memory(memory: MemoryEstimate, name: str) -> None:
    """Raise `UserError` when training the model `name` does not fit into what is free."""
    if memory.total <= memory.free:
        return
    raise UserError(
        f"Training {name} needs about {_gib(memory.total)} ({_gib(memory.weights)} weights, {_gib(memory.adapter)} "
        f"adapter, {_gib(memory.activations)} activations) and {_gib(memory.free)} are free on the {memory.device}. "
        "Lower training.micro_rows or training.max_length, set model.load: nf4, or choose a smaller model."
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
