"""A faster dropout for CPUs, where PyTorch draws one Bernoulli number at a time: a seventh of a training step.

Adapters on all linear layers mean seven dropouts per layer, each over the whole input. Here eight decisions come from
one 64-bit random number, so the rate is a multiple of 1/256. What is kept is scaled by 1 / (1 − rate): the mean holds.
"""

from __future__ import annotations

from typing import Any

import torch


class ByteDropout(torch.nn.Module):
    """Inverted dropout with a rate rounded to n/256. Uses PyTorch's global generator, like the original."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = min(255, max(1, round(rate * 256)))
        self.scale = 256.0 / (256 - self.dropped)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (any shape and floating type), with a share of its elements set to zero while training."""
        if not self.training:
            return x
        words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,), dtype=torch.int64)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * keep.to(x.dtype).mul_(self.scale)


def use_fast_dropout(model: Any) -> None:
    """Put `ByteDropout` in place of every adapter's dropout, where the adapter lies on a CPU."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if not isinstance(dropouts, torch.nn.ModuleDict):
            continue
        for name, dropout in dropouts.items():
            if isinstance(dropout, torch.nn.Dropout) and next(module.lora_A.parameters()).device.type == "cpu":
                dropouts[name] = ByteDropout(dropout.p)
