"""Exports: the merged folder is the adapter's function, parity is checked against scipy, failures are loud."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths
from siftune.training import models
from siftune.training.export.export import export, find_converter, merge_adapter
from siftune.training.export.parity import Parity, ParityLimits, compare_logits, measure_parity, parity_limits
from siftune.training.inference.engine import Message, Request, Sampling
from siftune.training.inference.factory import gguf_exports, open_engine
from tests.training.random_adapters import write_adapter, write_trained
from tests.training.worlds import write_tiny_run

PROMPT = (Message("user", "What colour has apple 7?"),)


def test_parity_is_kl_and_agreement() -> None:
    rng = np.random.default_rng(0)
    adapter = rng.normal(size=(50, 20)).astype(np.float32)
    noisy = adapter + rng.normal(0, 0.5, adapter.shape)
    export_logits = np.concatenate([noisy, np.full((50, 3), 9.0)], axis=1).astype(np.float32)
    next_tokens = rng.integers(0, 20, 50).astype(np.int32)
    same, kl, loss, adapter_loss = compare_logits(adapter, export_logits, next_tokens)
    p, q = softmax(adapter.astype(float), axis=1), softmax(export_logits[:, :20].astype(float), axis=1)
    assert kl == pytest.approx(rel_entr(p, q).sum(1), rel=1e-6)
    assert (same == (adapter.argmax(1) == export_logits[:, :20].argmax(1))).all()
    assert 0 < same.sum() < 50
    assert loss == pytest.approx(-np.log(q[np.arange(50), next_tokens]))
    assert adapter_loss == pytest.approx(-np.log(p[np.arange(50), next_tokens]))


def test_parity_limits_are_kept_or_not() -> None:
    limits = ParityLimits(0.9, 0.1)
    assert Parity(1, 1, 0.95, 0.05, 1, 1, limits).passed
    assert not Parity(1, 1, 0.85, 0.05, 1, 1, limits).passed
    assert not Parity(1, 1, 0.95, 0.15, 1, 1, limits).passed
    assert not Parity(1, 1, 0.95, float("nan"), 1, 1, limits).passed
    assert parity_limits(None).divergence < parity_limits("q8_0").divergence < parity_limits("Q4_K_M").divergence


@pytest.fixture
def trained(tiny_run: Path, tiny_model: Path) -> Path:
    pytest.importorskip("torch")
    return write_trained(tiny_run, tiny_model)


def test_a_merged_export_answers_as_its_adapter_and_says_how_it_was_made(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = export(trained, "curated", to="merged")
    assert record.path == trained / "exports" / "curated-merged"
    assert record.parity.agreement > 0.95
    assert "Parity check passed" in str(record)
    model = AutoModelForCausalLM.from_pretrained(record.path, dtype="auto")
    assert not hasattr(model.config, "quantization_config")
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert AutoTokenizer.from_pretrained(record.path).chat_template
    card = (record.path / "README.md").read_text(encoding="utf-8")
    assert "These were dequantised" in card
    assert "the arm `curated`" in card
    again = export(trained, "curated", to="merged")
    assert again.parity == record.parity, "an earlier export is replaced, and the numbers are the same"


def test_over_a_checkpoint_that_is_4_bit_already_the_export_is_dense(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    resolved = models.resolve(str(tiny_model))
    base = models.load_base(resolved, models.choose_loading("nf4", resolved))
    base.save_pretrained(tmp_path / "packed")
    models.load_tokenizer(resolved).save_pretrained(tmp_path / "packed")
    run = write_trained(write_tiny_run(tmp_path / "run", model=tmp_path / "packed"), tiny_model)
    record = export(run, "curated", to="merged")
    assert record.parity.passed
    model = AutoModelForCausalLM.from_pretrained(record.path, dtype="auto")
    assert {parameter.dtype.itemsize for parameter in model.parameters()} <= {2, 4}


def test_an_export_stops_where_its_chat_template_ends_answers(tmp_path: Path, tiny_model: Path) -> None:
    """A base model with ChatML names `<|endoftext|>` as its end and was trained to write `<|im_end|>`."""
    from transformers import AutoTokenizer, GenerationConfig

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id).save_pretrained(folder)
    run = write_trained(write_tiny_run(tmp_path / "run", model=folder), folder)
    path = export(run, "curated", to="merged").path
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert GenerationConfig.from_pretrained(path).eos_token_id == ends
    assert AutoTokenizer.from_pretrained(path).eos_token == "<|im_end|>"


def test_another_arms_weights_fail_the_parity_check(trained: Path) -> None:
    other = RunPaths(trained).adapter("raw", 0)
    with pytest.raises(UserError, match="differ too much from the adapter's"):
        export(trained, "curated", to="merged", merge=lambda recipe, _, out: merge_adapter(recipe, other, out))
    folder = trained / "exports" / "curated-merged"
    assert json.loads((folder / "parity.json").read_text(encoding="utf-8"))["passed"] is False
    assert "failed its parity check" in (folder / "README.md").read_text(encoding="utf-8")


def test_what_cannot_be_exported_is_said_before_any_work(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained arm 'longest'"):
        export(trained, "longest", to="merged")
    with pytest.raises(UserError, match="nothing to export"):
        export(trained, "base", to="merged")
    with pytest.raises(UserError, match="--quant is for"):
        export(trained, "raw", to="merged", quant="Q4_K_M")
    with pytest.raises(UserError, match="with seed 7"):
        export(trained, "raw", to="merged", seed=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        export(trained, "raw", to="merged", out=tmp_path / "full")
    pytest.importorskip("llama_cpp")
    with pytest.raises(UserError, match="Did you mean 'q4_k_s'"):
        export(trained, "raw", to="gguf", quant="Q4_K_N")


@pytest.mark.slow
def test_smollm2_goes_to_gguf_and_two_arms_answer_from_contexts_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from transformers import AutoModelForCausalLM

    try:
        find_converter()
        smollm2 = models.resolve("smollm2")
    except UserError as fault:
        pytest.skip(str(fault))
    # Its first two layers, with the whole vocabulary: what is converted does not depend on how many there are.
    folder = tmp_path / "two layers"
    AutoModelForCausalLM.from_pretrained(smollm2.folder, num_hidden_layers=2, dtype="auto").save_pretrained(folder)
    models.load_tokenizer(smollm2).save_pretrained(folder)
    run = write_tiny_run(tmp_path / "run", model=folder)
    write_trained(run, folder)
    for index, arm in enumerate(("raw", "curated")):
        shutil.rmtree(adapter := RunPaths(run).adapter(arm, 0))
        write_adapter(adapter, folder, seed=index + 1, rank=16, scale=0.01)
    records = [export(run, arm, to="gguf", quant="Q8_0") for arm in ("raw", "curated")]
    assert [record.path.name for record in records] == ["raw-Q8_0.gguf", "curated-Q8_0.gguf"]
    assert list(gguf_exports(run)) == ["raw", "curated"]
    assert not list((run / "exports").rglob("*.safetensors")), "no intermediate weights are left"
    engine = open_engine(run, RunFolder.open(run).recipe, kind="llama.cpp")
    try:
        assert engine.fingerprint("raw") != engine.fingerprint("curated")
        alone = {arm: ask(engine, [arm])[0] for arm in engine.arms}
        assert ask(engine, ["raw", "curated"]) == [alone["raw"], alone["curated"]]
        assert ask(engine, ["curated", "raw"]) == [alone["curated"], alone["raw"]]
    finally:
        engine.close()


def ask(engine: object, arms: list[str]) -> list[str]:
    texts = [""] * len(arms)
    for chunk in engine.stream([Request(arm, PROMPT, Sampling(max_new_tokens=12)) for arm in arms]):  # type: ignore[attr-defined]
        texts[chunk.request] += chunk.text
    return texts


def test_few_held_out_rows_are_enough_and_none_is_an_error(trained: Path) -> None:
    (trained / "heldout" / "test.parquet").unlink()
    adapter = RunPaths(trained).adapter("raw", 0)
    with pytest.raises(UserError, match="no held-out rows"):
        measure_parity(
            RunFolder.open(trained),
            adapter,
            lambda ids: np.zeros((len(ids), 512), np.float32),
            limits=parity_limits(None),
        )
