"""Logits where they are wanted: the vocabulary is large, and most positions of a row are prompt or padding."""

from __future__ import annotations

from typing import Any

import torch


def logits_where(model: Any, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Next-token logits at the `wanted` positions only, as [wanted tokens, vocabulary].

    `ids` is [rows, width], padded on the right; `wanted` is [rows, width - 1]. The model's own forward does the rest,
    so whatever it does to its logits (scaling, soft-capping) is done.
    """

    def only_wanted(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (arguments[0][:, :-1][wanted].unsqueeze(0),)

    handle = model.get_output_embeddings().register_forward_pre_hook(only_wanted)
    try:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    finally:
        handle.remove()
    return logits
