"""Low-rank adapters of several arms over one base: every row of a batch gets the adapter of its arm."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256

Strategy = Literal["auto", "batched", "merged"]
_PEFT_PREFIX = "base_model.model."
_TRAIN_AGAIN = "Remove its folder and train the arm again: siftune train RUN"
#: Modules that read the same input wherever they stand in one parent (Llama, Qwen, Mistral, Gemma). Where they should
#: not, they cost time and still answer right.
_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
#: Modules that are timed: six layers of a Llama, more than the caches hold.
_SAMPLE_MODULES = 24
#: How often each strategy is timed.
_ROUNDS = 8

#: `down` (r, in) and `up` (out, r): A and B of LoRA (arXiv 2106.09685), B already scaled.
LowRank = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: sha256 of its file, and the low-rank change of each module by the module's name (float32)."""

    digest: str
    modules: dict[str, LowRank]


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter that PEFT saved. The change is scaled by alpha / r, or alpha / √r where the config says rsLoRA
    (arXiv 2312.03732).

    Raises:
        UserError: it is missing or damaged, its weights are not those of its configuration, or it is not a plain LoRA
            adapter of linear modules.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights, config_path = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not (weights.is_file() and config_path.is_file()):
        raise UserError(f"There is no adapter in {folder}. Train the arm first: siftune train RUN")
    try:
        config, tensors = dict(json.loads(config_path.read_text(encoding="utf-8"))), load_file(weights)
    except (OSError, ValueError, TypeError, SafetensorError) as fault:
        raise UserError(f"The adapter in {folder} is damaged ({fault}). {_TRAIN_AGAIN}") from None
    special = [name for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(name)]
    if config.get("peft_type") != "LORA" or special or config.get("bias", "none") != "none":
        raise UserError(f"{folder} is not a plain LoRA adapter ({config.get('peft_type')}, {', '.join(special)}).")
    mismatch = UserError(f"The weights in {folder} are not those of its adapter_config.json. {_TRAIN_AGAIN}")
    alpha, targets = config.get("lora_alpha"), config.get("target_modules")
    if not isinstance(alpha, int | float) or not isinstance(targets, str | list):
        raise mismatch
    modules = {}
    for key in sorted(tensors):
        if ".lora_A." in key and (other := key.replace(".lora_A.", ".lora_B.")) in tensors:
            down, up = tensors[key], tensors[other]
            rank = down.shape[0]
            name = key.split(".lora_A.")[0].removeprefix(_PEFT_PREFIX)
            if not rank == up.shape[1] == config.get("r") or not _is_target(name, targets):
                raise mismatch
            scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
            modules[name] = (down.float(), up.float() * scaling)
    if 2 * len(modules) != len(tensors):
        raise UserError(f"{folder} holds weights besides LoRA of linear modules; these cannot be applied row by row.")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise UserError(f"The adapter in {folder} holds numbers that are not finite. {_TRAIN_AGAIN}")
    return Adapter(file_sha256(weights), modules)


def _is_target(module: str, targets: str | Sequence[str]) -> bool:
    """Whether PEFT's `target_modules` names a module; a text is a regular expression, which is PEFT's to read."""
    return isinstance(targets, str) or any(module == target or module.endswith(f".{target}") for target in targets)


class ArmLinear(nn.Module):
    """A linear module, or several that read the same input, whose rows belong to arms: x·W plus the low-rank change of
    each row's arm.

    batched: one product with the shared base for all rows, then two thin ones with the adapters of all arms side by
    side, each row keeping its own arm's part. merged: a whole product with the arm's own merged weights for each row,
    which costs one copy of the weights per arm.

    Args:
        modules: The linear modules, `(out_i, in)` each; their outputs are concatenated.
        adapters: For each arm the pair `down` (r, in) and `up` (sum of out_i, r); None where the arm changes nothing.
    """

    def __init__(self, modules: Sequence[nn.Linear], adapters: Sequence[LowRank | None]) -> None:
        super().__init__()
        weight, self.bias = _concatenate(modules)
        #: (out, in); None once it is packed or merged.
        self.weight: Tensor | None = weight
        self.out_features = len(weight)
        #: The base and the `down` halves of all adapters, reordered for oneDNN, and its bias.
        self.packed: tuple[Tensor, Tensor | None] | None = None
        self.packed_up: Tensor | None = None
        #: One merged weight per arm.
        self.merged: list[Tensor] | None = None
        #: The arm of each row of the batches to come.
        self.rows: list[int] = []
        self.has_adapters = any(adapter is not None for adapter in adapters)
        #: (arms, r, in) and (arms, out, r).
        self.down, self.up = _stack(adapters, weight)
        #: `down` and `up` of the arms in the batch, side by side.
        self.side_by_side: tuple[Tensor, Tensor] | None = None
        #: (rows, 1, columns of `down`): 1 where a column belongs to the row's arm.
        self.mask: Tensor

    def merge(self) -> None:
        """Keep W plus the arm's change for every arm; the sum is made in float32."""
        assert self.weight is not None
        if self.has_adapters:
            changes = [up.float() @ down.float() for down, up in zip(self.down, self.up, strict=True)]
            self.merged = [(self.weight.float() + change).to(self.weight.dtype) for change in changes]

    def can_pack(self) -> bool:
        """Whether oneDNN can hold the weights in an order of its own: bf16 on a CPU."""
        return (
            self.weight is not None
            and self.weight.device.type == "cpu"
            and self.weight.dtype == torch.bfloat16
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        )

    def pack(self) -> None:
        """Reorder the weights for oneDNN once instead of at every product; the unpacked copy of the base is given back.

        The `down` halves of all adapters are packed below W, so that one product makes both.
        """
        assert self.weight is not None
        rows = torch.cat([self.weight, self.down.flatten(0, 1)]) if self.has_adapters else self.weight
        bias = self.bias if self.bias is None else nn.functional.pad(self.bias, (0, len(rows) - self.out_features))
        self.packed = _reordered(rows), bias
        self.packed_up = _reordered(self.up.transpose(0, 1).flatten(1)) if self.has_adapters else None
        self.weight = None

    def assign(self, rows: list[int]) -> None:
        """Set the arm (its index) of each row of the batches to come."""
        self.rows = rows
        if not self.has_adapters:
            return
        arms = list(range(len(self.down))) if self.packed else sorted(set(rows))
        own = torch.tensor([[arm == row for arm in arms] for row in rows], device=self.down.device)
        self.mask = own.to(self.down.dtype).repeat_interleave(self.down.shape[1], dim=1)[:, None]
        if not self.packed:
            self.side_by_side = self.down[arms].flatten(0, 1), self.up[arms].transpose(1, 2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, time, in) → (rows, time, out), in the type of the weights."""
        # Merged: each row by the weights of its arm.
        if self.merged is not None:
            outputs = [
                nn.functional.linear(x[row : row + 1], self.merged[arm], self.bias) for row, arm in enumerate(self.rows)
            ]
            return torch.cat(outputs)

        # Packed: one product for the base and all `down` halves, a second one adds the `up` half of each row's arm.
        if self.packed is not None:
            pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - the op inductor uses
            product: Tensor = pointwise(x, *self.packed, "none", [], "")
            if self.packed_up is None:
                return product
            base, low_rank = product[..., : self.out_features], product[..., self.out_features :]
            adapted: Tensor = pointwise.binary(low_rank * self.mask, base.contiguous(), self.packed_up, None, "add")
            return adapted

        # Otherwise the same in plain PyTorch.
        assert self.weight is not None
        base = nn.functional.linear(x, self.weight, self.bias)
        if self.side_by_side is None:
            return base
        down, up = self.side_by_side
        low_rank = (nn.functional.linear(x, down) * self.mask).flatten(0, 1)
        return torch.addmm(base.reshape(-1, self.out_features), low_rank, up).view(base.shape)


class FusedLinears:
    """Linear modules that read the same input: whichever runs first computes the outputs of all in one product."""

    def __init__(self, linear: ArmLinear, widths: list[int]) -> None:
        self._linear, self._widths = linear, widths
        self._input: Tensor | None = None
        self._outputs: dict[int, Tensor] = {}

    def take(self, index: int, x: Tensor) -> Tensor:
        """The output of module number `index` for `x`, handed over once."""
        if x is not self._input or index not in self._outputs:
            self._input, self._outputs = x, dict(enumerate(self._linear(x).split(self._widths, dim=-1)))
        output = self._outputs.pop(index)
        if not self._outputs:
            self._input = None
        return output


class _FusedLinear(nn.Module):
    """Stands in the model where one of the fused modules stood."""

    def __init__(self, fused: FusedLinears, index: int) -> None:
        super().__init__()
        self._fused, self._index = fused, index

    def forward(self, x: Tensor) -> Tensor:
        return self._fused.take(self._index, x)


def _reordered(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)  # noqa: SLF001
    return packed


def _stack(adapters: Sequence[LowRank | None], weight: Tensor) -> tuple[Tensor, Tensor]:
    """(arms, r, in) and (arms, out, r), smaller ranks and missing adapters filled with zeros."""
    rank = max((adapter[0].shape[0] for adapter in adapters if adapter is not None), default=0)
    down = weight.new_zeros(len(adapters), rank, weight.shape[1])
    up = weight.new_zeros(len(adapters), weight.shape[0], rank)
    for arm, adapter in enumerate(adapters):
        if adapter is not None:
            down[arm, : adapter[0].shape[0]] = adapter[0].to(weight.device, weight.dtype)
            up[arm, :, : adapter[1].shape[1]] = adapter[1].to(weight.device, weight.dtype)
    return down, up


def install_adapters(
    model: Any, adapters: Mapping[str, Adapter | None], *, strategy: Strategy, pack: bool = True
) -> tuple[list[ArmLinear], str]:
    """Replace the linear modules of `model` (but its head) by ArmLinear.

    Args:
        model: A dense causal language model; it is changed in place.
        adapters: The adapter of each arm; None leaves the base as it is.
        strategy: How the adapters are applied; auto measures which way is faster here.
        pack: Let oneDNN reorder the weights where it can.

    Returns:
        The new modules, and the strategy that was chosen, with the reason in words.

    Raises:
        UserError: an adapter changes the head, or names modules that the model does not have.
    """
    modules = dict(model.named_modules())
    head = model.get_output_embeddings()
    targets = {name for adapter in adapters.values() if adapter for name in adapter.modules}
    if head is not None and any(modules.get(name) is head for name in targets):
        raise UserError("An adapter changes the output head, which all arms share here. Train without it.")
    unknown = sorted(name for name in targets if not isinstance(modules.get(name), nn.Linear))
    if unknown:
        raise UserError(f"The adapter belongs to another base model: this one has no linear module {unknown[0]}.")
    for adapter in filter(None, adapters.values()):
        require_fitting(adapter, modules)
    linears = {name: module for name, module in modules.items() if isinstance(module, nn.Linear) and module is not head}
    del modules

    # Replace group by group, and let go of each old module at once: memory never holds all weights twice.
    arm_linears = []
    for names in _group_by_input(linears):
        group = [linears.pop(name) for name in names]
        arm_adapters = [
            _join_adapters([adapter.modules.get(name) for name in names], group) if adapter else None
            for adapter in adapters.values()
        ]
        arm_linear = ArmLinear(group, arm_adapters)
        fused = FusedLinears(arm_linear, [module.out_features for module in group])
        for index, name in enumerate(names):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, arm_linear if len(names) == 1 else _FusedLinear(fused, index))
        arm_linears.append(arm_linear)
    return arm_linears, _apply_strategy(arm_linears, strategy, arms=len(adapters), pack=pack)


def require_fitting(adapter: Adapter, modules: Mapping[str, nn.Module]) -> None:
    """Raise `UserError` when the base of these modules, by name, is not the one that an adapter was trained over."""
    for name, (down, up) in adapter.modules.items():
        if name not in modules:
            raise UserError(f"The adapter belongs to another base model: this one has no module {name}.")
        module, there = modules[name], (len(up), down.shape[1])
        if isinstance(module, nn.Linear) and (here := (module.out_features, module.in_features)) != there:
            raise UserError(
                f"The adapter belongs to another base model: {name} has {here[0]} x {here[1]} weights here, and the "
                f"adapter is one of {there[0]} x {there[1]}."
            )


def _group_by_input(linears: Mapping[str, nn.Linear]) -> list[list[str]]:
    """The names of the modules, those that read the same input in one list."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, module in linears.items():
        parent, _, leaf = name.rpartition(".")
        siblings = next((names for names in _SAME_INPUT if leaf in names), leaf)
        key = (parent, siblings, module.in_features, module.weight.dtype, module.weight.device)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _concatenate(modules: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights (outputs of all, in) and biases, one module below the other; a single module's own."""
    weights = [module.weight.detach() for module in modules]
    biases = [None if module.bias is None else module.bias.detach() for module in modules]
    if len(modules) == 1:
        return weights[0], biases[0]
    if all(bias is None for bias in biases):
        return torch.cat(weights), None
    filled = [
        weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in zip(weights, biases, strict=True)
    ]
    return torch.cat(weights), torch.cat(filled)


def _join_adapters(adapters: Sequence[LowRank | None], modules: Sequence[nn.Linear]) -> LowRank | None:
    """One arm's adapter of fused modules: `down` one below the other, `up` on a diagonal."""
    if all(adapter is None for adapter in adapters):
        return None
    filled = [
        (torch.zeros(0, module.in_features), torch.zeros(module.out_features, 0)) if adapter is None else adapter
        for adapter, module in zip(adapters, modules, strict=True)
    ]
    return torch.cat([down for down, _ in filled]), torch.block_diag(*(up for _, up in filled))


def _apply_strategy(linears: list[ArmLinear], strategy: Strategy, *, arms: int, pack: bool) -> str:
    if strategy == "auto":
        chosen, reason = _faster_strategy(linears, arms=arms, pack=pack)
    else:
        chosen, reason = strategy, "requested"
    for linear in linears:
        if chosen == "merged" and linear.merged is None and linear.weight is not None:
            linear.merge()
        if linear.merged is not None:
            linear.packed = linear.packed_up = linear.weight = None
        elif linear.packed is None and pack and linear.can_pack():
            linear.pack()
    return f"{chosen} ({reason})"


def _faster_strategy(linears: list[ArmLinear], *, arms: int, pack: bool) -> tuple[Literal["batched", "merged"], str]:
    """Which of the two is faster for one token of every arm, on a sample of the model's own modules.

    Rounds alternate and the best of each counts, since other work on the machine only adds. Merged copies cost memory,
    so they have to win by a tenth.
    """
    sample = [linear for linear in linears if linear.has_adapters][:_SAMPLE_MODULES]
    if not sample:
        return "batched", "no adapters"
    for linear in sample:
        linear.merge()
        if pack and linear.can_pack():
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
    """Seconds per module for one token of every assigned row, with these merged copies or without any."""
    for linear, copy in zip(sample, copies, strict=True):
        linear.merged = copy
    inputs = [linear.down.new_ones(len(linear.rows), 1, linear.down.shape[2]) for linear in sample]
    start = time.perf_counter()
    for linear, x in zip(sample, inputs, strict=True):
        linear(x)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(sample)
