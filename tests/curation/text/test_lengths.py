"""Lengths of texts in words, and in tokens of a tokenizer on this machine."""

from __future__ import annotations

import itertools
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.text import lengths


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
