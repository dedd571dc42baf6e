"""Logits of selected positions only: the vocabulary is large, and most positions of a row are prompt or padding."""

from __future__ import annotations

from typing import Any

import torch


def logits_where(model: Any, ids: torch.Tensor, selected: torch.Tensor, *, past: Any = None) -> torch.Tensor:
    """Next-token logits at the selected positions only.

    The model's own forward does the rest, so whatever it does to its logits (scaling, soft-capping) is done.

    Args:
        model: A causal language model.
        ids: Token ids, int64 (rows, width), padded on the right.
        selected: Whether the token after each position is selected, bool (rows, width − 1).
        past: Keys and values of what stands before `ids`, a cache that the call may change.

    Returns:
        (selected tokens, vocabulary), in the model's type.
    """

    def select(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (arguments[0][:, :-1][selected].unsqueeze(0),)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        logits: torch.Tensor = model(input_ids=ids, past_key_values=past, use_cache=past is not None).logits[0]
    finally:
        handle.remove()
    return logits
