"""Lengths of texts in words, and in tokens of a tokenizer on this machine."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.text import lengths


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SIFTUNE_CACHE", str(folder))
    return folder


def test_lengths_are_counted_in_words_when_there_is_no_tokenizer():
    counter = lengths.length_counter(None)
    batches = [pl.Series(["What is this?", None]), pl.Series([""]), pl.Series(["多くの言葉"])]
    assert counter.of(batches).tolist() == [3, 0, 0, 5]
    assert counter.unit == "words"


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer with a token for each letter."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {word: at for at, word in enumerate(itertools.chain(["?"], "abcdefgh"))}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="?").save_pretrained(folder)


def test_lengths_are_counted_in_tokens_of_a_local_tokenizer(tmp_path):
    save_tokenizer(tmp_path)
    counter = lengths.length_counter(str(tmp_path))
    assert counter.unit == f"tokens of {tmp_path}"
    assert counter.of([pl.Series(["abc", "a b", ""]), pl.Series(["hgfedcba"])]).tolist() == [3, 3, 0, 8]
    missing = lengths.length_counter(str(tmp_path / "missing"))
    assert missing.unit == f"words (no tokenizer for {tmp_path / 'missing'} on this machine)"


def test_a_hub_that_is_not_reached_leaves_what_is_cached(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    commit = "0123456789" * 4
    save_tokenizer(tmp_path / "models--owner--cached" / "snapshots" / commit)
    (tmp_path / "models--owner--cached" / "refs").mkdir()
    (tmp_path / "models--owner--cached" / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert lengths.length_counter("owner/cached").of([pl.Series(["abc", "a b"])]).tolist() == [3, 3]
    assert lengths.length_counter("owner/missing").unit == "words (no tokenizer for owner/missing on this machine)"


def test_a_tokenizer_that_was_read_once_is_read_without_transformers(tmp_path, cache):
    save_tokenizer(tmp_path)
    code = (
        "import sys, polars as pl; from siftune.curation.text import lengths\n"
        f"counter = lengths.length_counter({str(tmp_path)!r})\n"
        "assert counter.of([pl.Series(['abc', 'a b'])]).tolist() == [3, 3]\n"
        "print('transformers' in sys.modules)"
    )

    def imports_transformers() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    assert [imports_transformers() for _ in range(2)] == ["True", "False"]
    stored = next((cache / "tokenizers").glob("*.json"))
    whole = stored.read_bytes()
    stored.write_bytes(whole.replace(b'\\"a\\":1', b'\\"z\\":1'))
    assert stored.read_bytes() != whole
    assert imports_transformers() == "True", "a damaged file is made again"
    assert stored.read_bytes() == whole
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"model_max_length": 7,', 1))
    assert imports_transformers() == "True", "another tokenizer is read anew"


def test_a_cache_that_cannot_be_written_changes_no_length(tmp_path, cache):
    save_tokenizer(tmp_path)
    (cache / "tokenizers").write_text("a file where the folder would be")
    counter = lengths.length_counter(str(tmp_path))
    assert counter.unit == f"tokens of {tmp_path}"
    assert counter.of([pl.Series(["abc", "a b"])]).tolist() == [3, 3]
