"""Checks that stop a training run with a meaningless result, before it starts or at the step where it fails."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import polars as pl

from siftune.curation.errors import UserError
from siftune.training.masks import TokenRows

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_ADAPTED = re.compile(r"\.(\w+)\.lora_")
_CURE = (
    "Known cause: a 4-bit model that was evaluated or generated with before this step, in the same process. Train in a "
    "process of its own (siftune train does), or set model.load: bf16."
)


def check_masks(rows: TokenRows, *, what: str) -> None:
    """Raise `UserError` when none or all of the tokens of a row set enter the loss: its mask cannot be right."""
    trained, total = int(rows.trained_counts.sum()), int(rows.lengths.sum())
    if trained == 0:
        raise UserError(f"{what}: 0 of {total:,} tokens are trained; no row has an assistant turn.")
    if trained == total:
        raise UserError(
            f"{what}: all {total:,} tokens are trained, prompts included; the chat template puts nothing before an "
            "answer. Rows need user turns, and the model a chat template that renders them."
        )


def check_arms_differ(hashes: Mapping[str, str]) -> None:
    """Raise `UserError` when two arms hold the same dialogues: their true difference is zero."""
    for (first, one), (second, other) in combinations(hashes.items(), 2):
        if one == other:
            raise UserError(
                f"The arms {first!r} and {second!r} hold the same rows, so comparing them is meaningless. Either "
                "curation removed no row (see report.md), or one arm should be left out of training.arms."
            )


def check_heldout(arms: Mapping[str, pl.DataFrame], heldout: pl.DataFrame) -> None:
    """Raise `UserError` when a held-out row is in an arm too, by its id or word for word."""
    heldout = heldout.select("id", "messages")
    for name, rows in arms.items():
        by_id = rows.join(heldout, on="id", how="semi")
        by_text = rows.join(heldout, on="messages", how="semi")
        leaked_ids = [*by_id["id"].to_list(), *by_text["id"].to_list()]
        if leaked_ids:
            raise UserError(
                f"The arm {name!r} holds {len(set(leaked_ids)):,} held-out rows (such as {leaked_ids[0]}), so its "
                "result would be invalid. The run folder was changed after curation: curate again."
            )


def check_gradients(model: Any, *, step: int, may_overflow: bool = False) -> None:
    """Look at the gradients of all adapters before the optimiser uses them.

    Args:
        model: The adapted model after a backward pass.
        step: The number of the optimiser step, for the message.
        may_overflow: float16 with a loss scale, where a step with infinite gradients is skipped by design.

    Raises:
        UserError: a gradient is not finite; or all gradients of the adapters on some module of some layer are exactly
            zero; or 4-bit weights were repacked for inference, and gradients that are not zero are wrong.
    """
    check_gradient_values(model, step=step, may_overflow=may_overflow)
    repacked = repacked_modules(model)
    if repacked:
        raise UserError(
            f"4-bit weights of {repacked} modules were repacked for inference before step {step}, and gradients do not "
            f"pass through such weights, though the loss still looks right. {_CURE}"
        )


def check_gradient_values(model: Any, *, step: int, may_overflow: bool = False) -> None:
    """The part of `check_gradients` that only looks at the numbers. Raises like it."""
    largest = {module: _largest(gradients) for module, gradients in _gradients_by_module(model).items()}
    if not may_overflow and any(not value < float("inf") for value in largest.values()):
        raise UserError(
            f"Gradients are not finite at step {step}; training stopped before they damaged the adapter. Lower "
            "training.learning_rate, or set model.load: fp32."
        )
    dead = [module for module, value in largest.items() if value == 0.0]
    if dead:
        raise UserError(
            f"The adapter gradients of {len(dead)} of {len(largest)} modules (first: {dead[0]}) are exactly zero at "
            f"step {step}: they have stopped learning, though the loss may still look right. {_CURE}"
        )


def _gradients_by_module(model: Any) -> dict[str, list[torch.Tensor]]:
    """Gradients by what they adapt, such as `layer 0 q_proj`; the experts of a layer count as one, since a step may
    leave some of them out."""
    by_module: dict[str, list[torch.Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer, adapted = _LAYER.search(name), _ADAPTED.search(name)
            gradients = by_module[f"layer {layer.group(1) if layer else '-'} {adapted.group(1) if adapted else name}"]
            if parameter.grad is not None:
                gradients.append(parameter.grad)
    return by_module


def repacked_modules(model: Any) -> int:
    """How many 4-bit modules bitsandbytes has repacked for inference: it does so at the first pass in `eval()` mode on
    CPUs with avx512_bf16, and `train()` does not undo it."""
    weights = [getattr(module, "weight", None) for _, module in model.named_modules()]
    states = {id(weight): getattr(weight, "quant_state", None) for weight in weights}  # adapters share their base's
    return sum(bool(getattr(state, "packing_format_for_cpu", False)) for state in states.values())


def _largest(gradients: list[torch.Tensor]) -> float:
    import torch

    if not gradients:
        return 0.0
    return float(torch.stack([gradient.detach().abs().amax().float() for gradient in gradients]).amax())
