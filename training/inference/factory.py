"""The arms of a run that can answer, and how their engine is opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from siftune.curation.errors import UserError, did_you_mean, missing_extra
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.paths import ADAPTER, RunPaths
from siftune.training.arm_names import BASE, arm_sort_key
from siftune.training.inference.engine import Engine, EngineKind
from siftune.training.result import finished_trainings

if TYPE_CHECKING:
    from siftune.training.inference.lora_layers import Strategy
    from siftune.training.inference.openai_engine import ServedModel

#: The file beside an export that says whether it answers as the adapter does: see `siftune.training.export.parity`.
PARITY_FILE = "parity.json"


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is opened with; each engine takes what it needs."""

    run: Path
    recipe: Recipe
    #: All arms that can answer when None.
    arms: Sequence[str] | None = None
    #: The lowest training seed of each arm when None.
    seed: int | None = None
    served: Mapping[str, ServedModel] = field(default_factory=dict)
    same_weights: bool = False
    #: Whether the way in which adapters are applied is the same on every machine and at every load.
    fixed: bool = False


def _open_transformers(options: EngineOptions) -> Engine:
    try:
        from siftune.training.inference.transformers_engine import TransformersEngine
    except ModuleNotFoundError as fault:
        raise missing_extra(str(fault.name), "train") from None
    adapters = adapters_of(options.run, options.arms, seed=options.seed)
    strategy: Strategy = "batched" if options.fixed else "auto"
    return TransformersEngine(options.recipe.model, adapters, same_weights=options.same_weights, strategy=strategy)


def _open_llamacpp(options: EngineOptions) -> Engine:
    try:
        from siftune.training.inference.llamacpp_engine import LlamaCppEngine
    except ModuleNotFoundError:
        raise missing_extra("llama-cpp-python", "gguf") from None
    run, files = options.run, gguf_exports(options.run)
    adapters_of(run, options.arms, seed=options.seed)  # raises for an arm that is not trained
    arms = list(dict.fromkeys(options.arms or files))
    for arm in arms:
        if arm not in files:
            raise UserError(f"{arm} is not exported. Run: siftune export {run} --arm {arm} --to gguf --quant Q4_K_M")
    if not arms:
        raise UserError(f"{run} holds no GGUF file. Run: siftune export {run} --arm curated --to gguf --quant Q4_K_M")
    system = options.recipe.model.system
    return LlamaCppEngine({arm: files[arm] for arm in arms}, system=system, same_weights=options.same_weights)


def _open_openai(options: EngineOptions) -> Engine:
    from siftune.training.inference.openai_engine import OpenAIEngine

    return OpenAIEngine(options.served, same_weights=options.same_weights)


#: Every engine and how it is opened. What an engine needs is imported when it is opened.
ENGINES: dict[EngineKind, Callable[[EngineOptions], Engine]] = {
    "transformers": _open_transformers,
    "llama.cpp": _open_llamacpp,
    "openai": _open_openai,
}


def open_engine(
    run: Path,
    recipe: Recipe,
    *,
    kind: EngineKind = "transformers",
    arms: Sequence[str] | None = None,
    seed: int | None = None,
    served: Mapping[str, ServedModel] | None = None,
    same_weights: bool = False,
    fixed: bool = False,
) -> Engine:
    """An engine that answers for arms of a run.

    Args:
        run: The run folder.
        recipe: Names the base model.
        kind: transformers over the recipe's model and the run's adapters; llama.cpp over the GGUF files in
            run/exports; openai over `served`.
        arms: Names of arms; all that can answer by default.
        seed: The training seed of the adapters; the lowest of each arm by default.
        served: For openai: the address and model name of each arm.
        same_weights: Allow two arms with the same weights, which is otherwise an error.
        fixed: Do not measure which way of applying adapters is faster now: the two ways differ in the last bits of the
            logits, and answers that are stored should not depend on how busy the machine was.

    Raises:
        UserError: there is no such engine, an arm is not trained or not exported, an extra is not installed, or two
            arms are the same weights.
    """
    if kind not in ENGINES:
        raise UserError(f"There is no engine {kind!r}.{did_you_mean(kind, ENGINES)} Engines: {', '.join(ENGINES)}.")
    options = EngineOptions(
        run, recipe, arms=arms, seed=seed, served=served or {}, same_weights=same_weights, fixed=fixed
    )
    return ENGINES[kind](options)


def trained_arms(run: Path, *, seed: int | None = None) -> dict[str, Path | None]:
    """Adapter folder of every finished arm, the untrained base (None) first; of the lowest seed unless one is given."""
    adapters: dict[str, Path | None] = {BASE: None}
    for folder, result in finished_trainings(run):
        if seed is None or result.seed == seed:
            adapters.setdefault(result.arm, folder / ADAPTER)
    return adapters


def adapters_of(run: Path, arms: Sequence[str] | None, *, seed: int | None = None) -> dict[str, Path | None]:
    """`trained_arms` narrowed to `arms`.

    Raises:
        UserError: nothing is trained, or one of `arms` is not.
    """
    adapters = trained_arms(run, seed=seed)
    if len(adapters) == 1:
        which = "" if seed is None else f" with seed {seed}"
        raise UserError(f"{run} holds no trained arm{which}. Train first: siftune train {run}")
    for arm in arms or ():
        if arm not in adapters:
            trained = ", ".join(name for name in adapters if name != BASE)
            raise UserError(
                f"{run} holds no trained arm {arm!r}.{did_you_mean(arm, adapters)} Trained: {trained}. "
                f"Train it with: siftune train {run} --arm {arm}"
            )
    return adapters if arms is None else {arm: adapters[arm] for arm in dict.fromkeys(arms)}


def gguf_exports(run: Path) -> dict[str, Path]:
    """The smallest GGUF file of each exported arm, run/exports/ARM-gguf…/*.gguf, that passed its parity check."""
    files: dict[str, Path] = {}
    for path in sorted(
        RunPaths(run).exports_folder.glob("*-gguf*/*.gguf"), key=lambda path: path.stat().st_size, reverse=True
    ):
        parity = path.with_name(PARITY_FILE)
        if parity.is_file() and json.loads(parity.read_text(encoding="utf-8"))["passed"]:
            files[path.parent.name.split("-gguf")[0]] = path
    return {arm: files[arm] for arm in sorted(files, key=arm_sort_key)}
