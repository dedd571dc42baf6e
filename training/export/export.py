"""Write an arm's model for other programs, and check that its predictions are those of the trained adapter."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from siftune.curation.atomic_files import write_json, write_text
from siftune.curation.child_process import module_environment
from siftune.curation.errors import UserError, did_you_mean, missing_extra
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import training_name
from siftune.training import models
from siftune.training.arm_names import BASE
from siftune.training.export.model_card import model_card
from siftune.training.export.parity import ExportForm, ExportRecord, parity_limits, parity_of_gguf, parity_of_merged
from siftune.training.inference.factory import PARITY_FILE, adapters_of
from siftune.training.library_output import silence_llamacpp
from siftune.training.masks import end_tokens
from siftune.training.result import read_result

_CONVERTER = "convert-hf-to-gguf"
#: The converter's name for each type of the merged weights.
_OUTTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
#: Characters of the converter's error message that are shown.
_MESSAGE_CHARACTERS = 1500

#: Writes base plus adapter into a folder: (recipe, adapter, folder).
Merge = Callable[[Recipe, Path, Path], None]


def merge_adapter(recipe: Recipe, adapter: Path, out: Path) -> None:
    """Write the dense base plus an adapter as safetensors, with the tokenizer.

    Args:
        recipe: Names the base model.
        adapter: A folder that PEFT wrote.
        out: The folder to write into.
    """
    from peft import PeftModel

    from siftune.training.inference.lora_layers import read_adapter, require_fitting
    from siftune.training.inference.transformers_engine import generation_ends

    base, tokenizer, _ = models.load_dense(recipe.model)
    require_fitting(read_adapter(adapter), dict(base.named_modules()))
    model = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    # Whoever loads the model stops where it was trained to stop.
    ends = sorted(generation_ends(model, tokenizer))
    if ends and model.generation_config is not None:
        model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    # A GGUF file has one end token, the tokenizer's.
    trained_ends = end_tokens(tokenizer)
    if trained_ends and tokenizer.eos_token_id not in trained_ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(trained_ends[0])
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are dense now, and must be loaded as such
    _keep_dense_while_saving(model)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def export(
    run: Path,
    arm: str,
    *,
    to: ExportForm,
    seed: int | None = None,
    quant: str | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
    merge: Merge = merge_adapter,
) -> ExportRecord:
    """Export an arm, check that it answers as the adapter does, and write a model card.

    Args:
        run: The run folder.
        arm: A trained arm.
        to: merged, a folder of safetensors (the dense base with the adapter added); or gguf, one file for llama.cpp.
        seed: The training seed; the lowest by default.
        quant: for gguf, a llama.cpp type such as Q4_K_M; 16 bits when None.
        out: an empty or new folder; RUN/exports/ARM-FORM by default, where an earlier export is replaced.
        progress: Called before each step.
        merge: Adds the adapter to the base.

    Raises:
        UserError: the arm is not trained, `quant` is unknown, a converter is missing or fails, or the export differs
            more from the adapter than its limits allow (its files stay, marked as failed).
    """
    # Everything that can be refused is refused before minutes of merging.
    folder = RunFolder.open(run)
    if arm == BASE:
        raise UserError("The base arm is the untrained model; there is nothing to export.")
    adapter = adapters_of(folder.path, [arm], seed=seed)[arm]
    assert adapter is not None
    result = read_result(adapter.parent)
    assert result is not None
    if quant is not None and to != "gguf":
        raise UserError("--quant is for --to gguf; merged weights are written in 16 bits.")
    ftype = _ftype(quant) if quant else None
    if to == "gguf":
        find_converter()
    target = _target_folder(folder, arm if seed is None else training_name(arm, seed), to, quant, out)

    # 1. Merge the adapter into the dense base.
    report = progress or (lambda _label, _done, _total: None)
    steps = 3 if to == "gguf" else 2
    report("merging", 0, steps)
    merged = target if to == "merged" else target / ".merged"
    merge(folder.recipe, adapter, merged)

    # 2. For llama.cpp convert it to one file, and quantise that.
    path = target
    if to == "gguf":
        report("converting", 1, steps)
        path = _to_gguf(merged, target, arm, quant, ftype)
        shutil.rmtree(merged)

    # 3. Load what was written as anybody would, and compare its predictions with the adapter's.
    report("checking parity", steps - 1, steps)
    limits = parity_limits(quant if to == "gguf" else None)
    measure = parity_of_gguf if to == "gguf" else parity_of_merged
    parity = measure(folder, adapter, path, limits=limits)

    # 4. Write down how it was made and how close it is.
    record = ExportRecord(arm, result.seed, to, quant, path, parity)
    write_json({**asdict(record), "path": path.name, "passed": parity.passed}, target / PARITY_FILE)
    write_text(model_card(folder, record, result), target / "README.md")
    if not parity.passed:
        raise UserError(f"The predictions of {path} differ too much from the adapter's: do not use it. {parity}")
    return record


def _target_folder(run: RunFolder, name: str, to: ExportForm, quant: str | None, out: Path | None) -> Path:
    """The folder to write into: a given one must be empty, our own is made anew."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is not empty; an export needs a new or empty folder. Nothing was written.")
        target = out
    else:
        target = run.exports_folder / "-".join([name, to, *([quant.upper()] if quant else [])])
        shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    return target


def _keep_dense_while_saving(model: Any) -> None:
    """transformers reverses while saving what it did while loading. That it unpacked 4-bit weights of a checkpoint must
    not be reversed, and cannot be."""
    conversions = getattr(model, "_weight_conversions", None) or []
    kept = [
        conversion
        for conversion in conversions
        if not any("bitsandbytes" in type(step).__module__ for step in getattr(conversion, "operations", []))
    ]
    if len(kept) < len(conversions):
        model._weight_conversions = kept  # noqa: SLF001 - no public name


def find_converter() -> str:
    """The path of llama.cpp's converter. Raises `UserError` when it is not installed."""
    beside_python = Path(sys.executable).parent / _CONVERTER
    path = str(beside_python) if beside_python.is_file() else shutil.which(_CONVERTER)
    if path is None:
        raise missing_extra(_CONVERTER, "gguf")
    return path


def _ftype(quant: str) -> int:
    """llama.cpp's number of a quantisation type. Raises `UserError` for an unknown type, listing all."""
    try:
        import llama_cpp
    except ModuleNotFoundError:
        raise missing_extra("llama-cpp-python", "gguf") from None
    prefix = "LLAMA_FTYPE_MOSTLY_"
    names = sorted(name.removeprefix(prefix) for name in dir(llama_cpp) if name.startswith(prefix))
    if quant.upper() not in names:
        raise UserError(f"llama.cpp has no type {quant!r}.{did_you_mean(quant, names)} Types: {', '.join(names)}.")
    return int(getattr(llama_cpp, prefix + quant.upper()))


def _to_gguf(merged: Path, target: Path, arm: str, quant: str | None, ftype: int | None) -> Path:
    """Convert a merged folder to one GGUF file in `target`, quantised when `ftype` is given."""
    # Convert in the type that the merged weights have.
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    outtype = _OUTTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "auto")
    dense = target / f"{arm}-{outtype}.gguf"
    command = [find_converter(), str(merged), "--outfile", str(dense), "--outtype", outtype, "--model-name", arm]
    process = subprocess.run(  # noqa: S603 - a converter we depend on
        command, capture_output=True, text=True, check=False, env=module_environment()
    )
    if process.returncode != 0 or not dense.is_file():
        message = (process.stderr or process.stdout).strip()[-_MESSAGE_CHARACTERS:]
        raise UserError(f"{_CONVERTER} could not convert this model: {message}")
    if quant is None or ftype is None:
        return dense

    # Quantise, and keep only the smaller file.
    import llama_cpp

    silence_llamacpp()
    quantised = target / f"{arm}-{quant.upper()}.gguf"
    settings: Any = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = ftype
    code = llama_cpp.llama_model_quantize(str(dense).encode(), str(quantised).encode(), ctypes.byref(settings))
    if code or not quantised.is_file():
        raise UserError(f"llama.cpp could not quantise {dense.name} to {quantised.name} (code {code}).")
    dense.unlink()
    return quantised
