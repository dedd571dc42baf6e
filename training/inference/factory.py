"""Which arms of a run can answer, and the engine that lets them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siftune.curation.errors import UserError, did_you_mean, missing_extra
from siftune.curation.recipe.sections import Recipe
from siftune.training.arm_names import BASE, arm_sort_key
from siftune.training.inference.engine import Engine, Kind

if TYPE_CHECKING:
    from siftune.training.inference.openai_engine import ServedModel

EXPORTS = "exports"


def trained_arms(run: Path, *, seed: int | None = None) -> dict[str, Path | None]:
    """Adapter folder of every finished arm, the untrained base (None) first; of the lowest seed unless one is given."""
    folders: dict[str, Path] = {}
    for done in sorted(run.glob("training/*/seed-*/done.json"), key=_seed_of, reverse=True):
        if seed is None or _seed_of(done) == seed:
            folders[done.parent.parent.name] = done.parent / "adapter"
    return {BASE: None} | {arm: folders[arm] for arm in sorted(folders, key=arm_sort_key)}


def _seed_of(done: Path) -> int:
    return int(done.parent.name.removeprefix("seed-"))


def adapters_of(run: Path, arms: Sequence[str] | None, *, seed: int | None = None) -> dict[str, Path | None]:
    """`trained_arms` narrowed to `arms`.

    Raises:
        UserError: nothing is trained, or not what was asked for.
    """
    found = trained_arms(run, seed=seed)
    if len(found) == 1:
        which = "" if seed is None else f" with seed {seed}"
        raise UserError(f"{run} holds no trained arm{which}. Train first: siftune train {run}")
    missing = [arm for arm in arms or () if arm not in found]
    if missing:
        raise UserError(
            f"{run} holds no trained arm {missing[0]!r}.{did_you_mean(missing[0], found)} Trained: "
            f"{', '.join(arm for arm in found if arm != BASE)}. Train it with: siftune train {run} --arm {missing[0]}"
        )
    return found if arms is None else {arm: found[arm] for arm in dict.fromkeys(arms)}


def open_engine(
    run: Path,
    recipe: Recipe,
    *,
    kind: Kind = "transformers",
    arms: Sequence[str] | None = None,
    seed: int | None = None,
    served: Mapping[str, ServedModel] | None = None,
    same_weights: bool = False,
) -> Engine:
    """An engine that answers for arms of a run.

    Args:
        kind: transformers over the recipe's model and the run's adapters; llama.cpp over the files in run/exports;
            openai over `served` (arm → address and model name).
        same_weights: allow two arms with the same weights, which is otherwise an error.

    Raises:
        UserError: an arm is not trained or not exported, an extra is not installed, or two arms are the same weights.
    """
    if kind == "openai":
        from siftune.training.inference.openai_engine import OpenAIEngine

        return OpenAIEngine(served or {}, same_weights=same_weights)
    adapters = adapters_of(run, arms, seed=seed)
    if kind == "llama.cpp":
        return _open_gguf(run, list(adapters) if arms else None, same_weights=same_weights)
    try:
        from siftune.training.inference.transformers_engine import TransformersEngine
    except ModuleNotFoundError as fault:
        raise missing_extra(str(fault.name), "train") from None
    return TransformersEngine(recipe.model, adapters, same_weights=same_weights)


def _open_gguf(run: Path, arms: Sequence[str] | None, *, same_weights: bool) -> Engine:
    try:
        from siftune.training.inference.llamacpp_engine import LlamaCppEngine
    except ModuleNotFoundError:
        raise missing_extra("llama-cpp-python", "gguf") from None
    files = exported(run)
    for arm in arms or ():
        if arm not in files:
            raise UserError(f"{arm} is not exported. Do: siftune export {run} --arm {arm} --to gguf --quant Q4_K_M")
    if not files:
        raise UserError(f"{run} holds no GGUF file. Do: siftune export {run} --arm curated --to gguf --quant Q4_K_M")
    return LlamaCppEngine({arm: files[arm] for arm in arms or files}, same_weights=same_weights)


def exported(run: Path) -> dict[str, Path]:
    """The smallest GGUF file of each exported arm, run/exports/ARM-gguf…/*.gguf, that passed its drift check."""
    found: dict[str, Path] = {}
    for path in sorted((run / EXPORTS).glob("*-gguf*/*.gguf"), key=lambda path: path.stat().st_size, reverse=True):
        drift = path.with_name("drift.json")
        if drift.is_file() and json.loads(drift.read_text(encoding="utf-8"))["passed"]:
            found[path.parent.name.split("-gguf")[0]] = path
    return {arm: found[arm] for arm in sorted(found, key=arm_sort_key)}
