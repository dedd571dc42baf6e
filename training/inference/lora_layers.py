"""Low-rank adapters of several arms over one base: every row of a batch gets the adapter of its arm."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from siftune.curation.errors import UserError

Strategy = Literal["auto", "batched", "merged"]
_PREFIX = "base_model.model."
#: Modules that read the same input wherever they stand in one parent (Llama, Qwen, Mistral, Gemma). Where they should
#: not, they cost time and still answer right.
_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_SAMPLE = 24  # products: six layers of a Llama, more than the caches hold
_ROUNDS = 8


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: for each module `down` (r, in) and `up` (out, r), scaling in `up`; `digest` of its weights."""

    digest: str
    modules: dict[str, tuple[Tensor, Tensor]]


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter that PEFT saved.

    Raises:
        UserError: it is missing, or it is not a plain LoRA adapter of linear modules.
    """
    from safetensors.torch import load_file

    weights, config_path = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not (weights.is_file() and config_path.is_file()):
        raise UserError(f"There is no adapter in {folder}. Train the arm first: siftune train RUN")
    config = json.loads(config_path.read_text(encoding="utf-8"))
    special = [name for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(name)]
    if config.get("peft_type") != "LORA" or special or config.get("bias", "none") != "none":
        raise UserError(f"{folder} is not a plain LoRA adapter ({config.get('peft_type')}, {', '.join(special)}).")
    tensors = load_file(weights)
    modules = {}
    for key in sorted(tensors):
        if ".lora_A." in key:
            down, up = tensors[key], tensors[key.replace(".lora_A.", ".lora_B.")]
            rank = down.shape[0]
            scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
            name = key.split(".lora_A.")[0].removeprefix(_PREFIX)
            modules[name] = (down.float(), up.float() * scale)
    if 2 * len(modules) != len(tensors):
        raise UserError(f"{folder} holds weights besides LoRA of linear modules; these cannot be applied row by row.")
    with weights.open("rb") as handle:
        return Adapter(hashlib.file_digest(handle, "sha256").hexdigest(), modules)


class ArmLinear(nn.Module):
    """A linear module, or several that read the same input, whose rows belong to arms: x·W plus the low-rank change of
    each row's arm.

    batched: one product with the shared base for all rows, then two thin ones with the adapters of all arms side by
    side, each row keeping its own arm's part. merged: a whole product with the arm's own merged weights for each row,
    which costs one copy of the weights an arm.
    """

    def __init__(self, modules: Sequence[nn.Linear], pairs: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        super().__init__()
        weight, self.bias = _joined(modules)
        self.weight: Tensor | None = weight
        self.wide = len(weight)
        self.packed: tuple[Tensor, Tensor | None] | None = None
        self.packed_up: Tensor | None = None
        self.merged: list[Tensor] | None = None
        self.rows: list[int] = []
        self.plain = all(pair is None for pair in pairs)
        self.down, self.up = _stack(pairs, weight)
        self.thin: tuple[Tensor, Tensor] | None = None
        self.mask: Tensor

    def merge(self) -> None:
        """Keep W plus the arm's change for every arm; the sum is made in float32."""
        assert self.weight is not None
        if not self.plain:
            changes = [up.float() @ down.float() for down, up in zip(self.down, self.up, strict=True)]
            self.merged = [(self.weight.float() + change).to(self.weight.dtype) for change in changes]

    def pack(self) -> None:
        """Reorder the weights for oneDNN once instead of at every product; the plain copy of the base is given back.

        The first halves of all adapters are packed below W, so that one product makes both.
        """
        assert self.weight is not None
        joined = self.weight if self.plain else torch.cat([self.weight, self.down.flatten(0, 1)])
        bias = self.bias if self.bias is None else nn.functional.pad(self.bias, (0, len(joined) - self.wide))
        self.packed = _reordered(joined), bias
        self.packed_up = None if self.plain else _reordered(self.up.transpose(0, 1).flatten(1))
        self.weight = None

    def assign(self, rows: list[int]) -> None:
        """Say which arm each row of the batches to come belongs to."""
        self.rows = rows
        if self.plain:
            return
        used = list(range(len(self.down))) if self.packed else sorted(set(rows))
        own = torch.tensor([[arm == row for arm in used] for row in rows], device=self.down.device)
        self.mask = own.to(self.down.dtype).repeat_interleave(self.down.shape[1], dim=1)[:, None]
        if not self.packed:
            self.thin = self.down[used].flatten(0, 1), self.up[used].transpose(1, 2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, time, in) → (rows, time, out)."""
        if self.merged is not None:
            parts = [
                nn.functional.linear(x[row : row + 1], self.merged[arm], self.bias) for row, arm in enumerate(self.rows)
            ]
            return torch.cat(parts)
        pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - the op inductor uses
        if self.packed is not None:
            joined: Tensor = pointwise(x, *self.packed, "none", [], "")
            if self.packed_up is None:
                return joined
            y, middle = joined[..., : self.wide], joined[..., self.wide :]
            changed: Tensor = pointwise.binary(middle * self.mask, y.contiguous(), self.packed_up, None, "add")
            return changed
        assert self.weight is not None
        y = nn.functional.linear(x, self.weight, self.bias)
        if self.thin is None:
            return y
        down, up = self.thin
        own = (nn.functional.linear(x, down) * self.mask).flatten(0, 1)
        return torch.addmm(y.reshape(-1, self.wide), own, up).view(y.shape)


class _Siblings:
    """Linear modules that read the same input: whichever is asked first computes the outputs of all in one product."""

    def __init__(self, linear: ArmLinear, widths: list[int]) -> None:
        self._linear, self._widths = linear, widths
        self._given: Tensor | None = None
        self._ready: dict[int, Tensor] = {}

    def take(self, place: int, x: Tensor) -> Tensor:
        """The output of the module at `place`, handed over once."""
        if x is not self._given or place not in self._ready:
            self._given, self._ready = x, dict(enumerate(self._linear(x).split(self._widths, dim=-1)))
        part = self._ready.pop(place)
        if not self._ready:
            self._given = None
        return part


class _Sibling(nn.Module):
    """Stands in the model where one of them stood."""

    def __init__(self, siblings: _Siblings, place: int) -> None:
        super().__init__()
        self._siblings, self._place = siblings, place

    def forward(self, x: Tensor) -> Tensor:
        return self._siblings.take(self._place, x)


def _reordered(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)  # noqa: SLF001
    return packed


def _stack(pairs: Sequence[tuple[Tensor, Tensor] | None], weight: Tensor) -> tuple[Tensor, Tensor]:
    """(arms, r, in) and (arms, out, r), smaller ranks and missing adapters filled with zeros."""
    rank = max((pair[0].shape[0] for pair in pairs if pair is not None), default=0)
    down = weight.new_zeros(len(pairs), rank, weight.shape[1])
    up = weight.new_zeros(len(pairs), weight.shape[0], rank)
    for arm, pair in enumerate(pairs):
        if pair is not None:
            down[arm, : pair[0].shape[0]] = pair[0].to(weight.device, weight.dtype)
            up[arm, :, : pair[1].shape[1]] = pair[1].to(weight.device, weight.dtype)
    return down, up


def install(model: Any, adapters: Mapping[str, Adapter | None], *, strategy: Strategy) -> tuple[list[ArmLinear], str]:
    """Replace the linear modules of `model` (but its head) by ArmLinear; returns them and what was chosen, in words.

    Raises:
        UserError: an adapter names modules that the model does not have.
    """
    found = dict(model.named_modules())
    head = model.get_output_embeddings()
    targets = {name for adapter in adapters.values() if adapter for name in adapter.modules}
    if head is not None and any(found.get(name) is head for name in targets):
        raise UserError("An adapter changes the output head, which all arms share here. Train without it.")
    unknown = sorted(name for name in targets if not isinstance(found.get(name), nn.Linear))
    if unknown:
        raise UserError(f"The adapter belongs to another base model: this one has no linear module {unknown[0]}.")
    linears = []
    plain = {name: module for name, module in found.items() if isinstance(module, nn.Linear) and module is not head}
    del found
    for names in _together(plain):
        modules = [plain.pop(name) for name in names]
        pairs = [
            _pair([adapter.modules.get(name) for name in names], modules) if adapter else None
            for adapter in adapters.values()
        ]
        linear = ArmLinear(modules, pairs)
        siblings = _Siblings(linear, [module.out_features for module in modules])
        for place, name in enumerate(names):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, linear if len(names) == 1 else _Sibling(siblings, place))
        linears.append(linear)
    return linears, _prepare(linears, strategy, arms=len(adapters))


def _together(plain: Mapping[str, nn.Linear]) -> list[list[str]]:
    """The names, those of siblings in one list."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, module in plain.items():
        parent, _, leaf = name.rpartition(".")
        kind = next((kind for kind in _SAME_INPUT if leaf in kind), leaf)
        like = module.in_features, module.weight.dtype, module.weight.device
        groups.setdefault((parent, kind, *like), []).append(name)
    return list(groups.values())


def _joined(modules: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights (outputs of all, in) and biases, one module below the other; a single module's own."""
    weights = [module.weight.detach() for module in modules]
    given = [None if module.bias is None else module.bias.detach() for module in modules]
    if len(modules) == 1:
        return weights[0], given[0]
    biases = [
        weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in zip(weights, given, strict=True)
    ]
    return torch.cat(weights), None if given == [None] * len(given) else torch.cat(biases)


def _pair(pairs: Sequence[tuple[Tensor, Tensor] | None], modules: Sequence[nn.Linear]) -> tuple[Tensor, Tensor] | None:
    """One arm's adapter of joined modules: the first halves one below the other, the second ones on a diagonal."""
    if all(pair is None for pair in pairs):
        return None
    halves = [
        (torch.zeros(0, module.in_features), torch.zeros(module.out_features, 0)) if pair is None else pair
        for pair, module in zip(pairs, modules, strict=True)
    ]
    return torch.cat([down for down, _ in halves]), torch.block_diag(*(up for _, up in halves))


def _prepare(linears: list[ArmLinear], strategy: Strategy, *, arms: int) -> str:
    chosen, why = (strategy, "asked for") if strategy != "auto" else _measured(linears, arms=arms)
    for linear in linears:
        if chosen == "merged" and linear.merged is None and linear.weight is not None:
            linear.merge()
        if linear.merged is not None:
            linear.packed = linear.packed_up = linear.weight = None
        elif linear.packed is None and _can_pack(linear):
            linear.pack()
    return f"{chosen} ({why})"


def _measured(linears: list[ArmLinear], *, arms: int) -> tuple[Literal["batched", "merged"], str]:
    """Which of the two is faster for one token of every arm, on a sample of the model's own modules.

    Rounds alternate and the best of each counts, since other work on the machine only adds. Merged copies cost memory,
    so they have to win by a tenth.
    """
    sample = [linear for linear in linears if not linear.plain][:_SAMPLE]
    if not sample:
        return "batched", "no adapters"
    for linear in sample:
        linear.merge()
        if _can_pack(linear):
            linear.pack()
        linear.assign(list(range(arms)))
    copies = [linear.merged for linear in sample]
    batched = merged = float("inf")
    for _ in range(_ROUNDS):
        merged = min(merged, _seconds(sample, copies))
        batched = min(batched, _seconds(sample, [None] * len(sample)))
    chosen: Literal["batched", "merged"] = "merged" if merged < 0.9 * batched else "batched"
    for linear, copy in zip(sample, copies, strict=True):
        linear.merged = copy if chosen == "merged" else None
    return chosen, f"measured: batched {1e6 * batched:.0f} µs, merged {1e6 * merged:.0f} µs a module"


@torch.inference_mode()
def _seconds(sample: list[ArmLinear], copies: Sequence[list[Tensor] | None]) -> float:
    """Seconds a module for one token of every assigned row, with these merged copies or without any."""
    for linear, copy in zip(sample, copies, strict=True):
        linear.merged = copy
    inputs = [linear.down.new_ones(len(linear.rows), 1, linear.down.shape[2]) for linear in sample]
    start = time.perf_counter()
    for linear, x in zip(sample, inputs, strict=True):
        linear(x)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(sample)


def _can_pack(linear: ArmLinear) -> bool:
    weight = linear.weight
    return (
        weight is not None
        and weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
