"""Model folders, tokenizers and adapters that are not what they say: one sentence each, and nothing of them runs."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from siftune.curation.errors import UserError
from siftune.training import models
from tests.training.random_adapters import write_adapter
from tests.training.worlds import write_tiny_llama


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_remote_code(folder: Path, file: str, key: str) -> None:
    """A module of the folder that leaves a trace where it runs."""
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    edit(folder / file, auto_map={key: ["evil.Evil", "evil.Evil"] if key == "AutoTokenizer" else "evil.Evil"})


class Trace:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def lengthen_header(path: Path, size: int) -> None:
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])


def claim_more(path: Path) -> None:
    """A header whose last tensor ends behind the file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = max((key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"][1])
    header[name]["data_offsets"][1] += 1 << 40
    header[name]["shape"] = [(header[name]["data_offsets"][1] - header[name]["data_offsets"][0]) // 4]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text)


def read_tokenizer(folder: Path) -> Any:
    return models.load_tokenizer(models.resolve(str(folder)))


def read_all(folder: Path) -> Any:
    resolved = models.resolve(str(folder))
    models.load_tokenizer(resolved)
    return models.load_base(resolved, models.choose_loading("fp32", resolved))


TOKENIZERS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: cut(folder / "tokenizer.json"),
    "empty": lambda folder: (folder / "tokenizer.json").write_bytes(b""),
    "not JSON": lambda folder: (folder / "tokenizer.json").write_bytes(b"\x80\x04\x95pickle"),
    "of another kind": lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "Evil"}}'),
    "a list": lambda folder: (folder / "tokenizer.json").write_text("[1, 2]"),
    "no object in its settings": lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
    "settings truncated": lambda folder: cut(folder / "tokenizer_config.json"),
    "missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "template is no text": lambda folder: (
        (folder / "chat_template.jinja").unlink(),
        edit(folder / "tokenizer_config.json", chat_template=7),
    ),
}
WEIGHTS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: cut(folder / "model.safetensors"),
    "no bytes": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "header longer than the file": lambda folder: lengthen_header(folder / "model.safetensors", 1 << 26),
    "header of 2**62 bytes": lambda folder: lengthen_header(folder / "model.safetensors", 1 << 62),
    "tensor longer than the file": lambda folder: claim_more(folder / "model.safetensors"),
    "other shapes": lambda folder: edit(folder / "config.json", hidden_size=32),
    "no tensor": lambda folder: save_file({}, folder / "model.safetensors"),
    "a pickle under the name of safetensors": lambda folder: (folder / "model.safetensors").write_bytes(
        pickle.dumps(Trace(folder / "ran"))
    ),
    "sizes that cannot be": lambda folder: edit(folder / "config.json", num_attention_heads=0),
    "text for a size": lambda folder: edit(folder / "config.json", hidden_size="many"),
    "an index of files elsewhere": lambda folder: (
        (folder / "model.safetensors").rename(folder / "other.safetensors"),
        (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"a": "../../x"}}'),
    ),
}


def refused(folder: Path, read: Callable[[Path], object]) -> str:
    with pytest.raises(UserError) as fault:
        read(folder)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 1_000
    assert not (folder / "ran").exists()
    return str(fault.value)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("change", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_is_none(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)
    refused(folder, read_tokenizer)


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_are_none(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)
    refused(folder, read_all)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "AutoConfig"),
        ("config.json", "AutoModelForCausalLM"),
        ("tokenizer_config.json", "AutoTokenizer"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_code_of_a_model_folder_never_runs(folder: Path, file: str, key: str, known: bool) -> None:
    """A known type is read without its code; one that only the code knows is refused."""
    with_remote_code(folder, file, key)
    if not known:
        edit(folder / file, **({"model_type": "evil"} if file == "config.json" else {"tokenizer_class": "Evil"}))
    try:
        read_all(folder)
    except UserError as fault:
        sentence = str(fault)
    else:
        sentence = "read"
        assert known or file == "tokenizer_config.json"
    assert "\n" not in sentence
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{% for message in messages %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_a_hostile_chat_template_writes_no_row(folder: Path, text: str) -> None:
    from siftune.training.masks import tokenise
    from siftune.training.sanity_checks import check_masks
    from tests.training.worlds import arm_frame, toy_messages

    template(folder, text)

    def train(folder: Path) -> None:
        rows = tokenise(read_tokenizer(folder), arm_frame([toy_messages(1)] * 2), max_length=64, system="keep")
        check_masks(rows, what="Arm 'raw'")

    refused(folder, train)


_LOOP = "{% for a in range(100000) %}"
#: Templates that take more than there is, and what is said of them.
ENDLESS = {
    "a loop of a thousand million": ("{% for n in range(1000000000) %}x{% endfor %}", "Range too big"),
    "loops in loops that write": (_LOOP * 3 + "x" + "{% endfor %}" * 3, "does not end"),
    "loops in loops that write nothing": (_LOOP * 3 + "{% endfor %}" * 3, "does not end"),
    "loops in loops over a text": (
        "{% set t = 'x' * 9999 %}{% for a in t %}{% for b in t %}{% for c in t %}{% endfor %}{% endfor %}{% endfor %}",
        "does not end",
    ),
    "macros that call each other": (
        "{% macro a(n) %}{{ b(n) }}{{ b(n) }}{% endmacro %}{% macro b(n) %}{{ a(n) }}{% endmacro %}{{ a(1) }}",
        "maximum recursion depth",
    ),
    "macros that double": (
        "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
        "does not end",
    ),
    "a number of a thousand million digits": ("{{ 10 ** (10 ** 9) }}", "does not end"),
    "a long text": ("{{ 'x' * 10 ** 7 }}", "writes 10,000,000 characters"),
    "a text longer than memory": ("{{ 'x' * 10 ** 15 }}", "more memory"),
    "a list longer than memory": ("{{ [0] * 10 ** 15 }}", "more memory"),
    "a loop for some texts only": (
        "{% if messages | length > 1 and 'Question' in messages[0].content %}"
        + _LOOP * 3
        + "{% endfor %}" * 3
        + "{% endif %}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
        "does not end",
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tests.training.worlds import tiny_tokenizer

    return tiny_tokenizer("chatml")


def stopped(tokenizer: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of a template."""
    from siftune.training import render_limit
    from siftune.training.masks import tokenise
    from tests.training.worlds import arm_frame, message

    source, sentence = ENDLESS[name]
    monkeypatch.setattr(tokenizer, "chat_template", source)
    if sentence == "does not end":
        monkeypatch.setattr(render_limit, "SECONDS", 0.1)
    rows = arm_frame([[message("user", "Question one"), message("assistant", "Answer")]] * 50)
    with pytest.raises(UserError, match=sentence) as fault:
        tokenise(tokenizer, rows, max_length=64)
    return str(fault.value)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_chat_template_without_end_is_stopped(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert "\n" not in stopped(tokenizer, name, monkeypatch)


def test_a_chat_template_without_end_is_stopped_in_another_thread(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stopped, tokenizer, "loops in loops that write nothing", monkeypatch).result(timeout=60)


WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def change_weights(adapter: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)


#: What is done to an adapter, and what is said of it.
ADAPTERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (lambda folder: cut(folder / WEIGHTS), "is damaged"),
    "truncated configuration": (lambda folder: cut(folder / CONFIG), "is damaged"),
    "only a pickle": (lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"), "There is no adapter"),
    "another rank": (lambda folder: edit(folder / CONFIG, r=2), "not those of its adapter_config"),
    "other modules": (lambda folder: edit(folder / CONFIG, target_modules=["no"]), "not those of its adapter_config"),
    "no scale": (lambda folder: edit(folder / CONFIG, lora_alpha=None), "not those of its adapter_config"),
    "half a pair": (
        lambda folder: change_weights(folder, lambda tensors: dict(sorted(tensors.items())[1:])),
        "weights besides LoRA",
    ),
    "not a number": (
        lambda folder: change_weights(
            folder, lambda tensors: {name: value * np.nan for name, value in tensors.items()}
        ),
        "not finite",
    ),
}


@pytest.fixture(scope="module")
def intact_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    return write_adapter(folder / "adapter", write_tiny_llama(folder / "model"), seed=1)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_is_not_what_it_says_is_one_sentence(intact_adapter: Path, tmp_path: Path, name: str) -> None:
    from siftune.training.inference.lora_layers import read_adapter

    assert read_adapter(intact_adapter).modules
    adapter = Path(shutil.copytree(intact_adapter, tmp_path / "adapter"))
    damage, message = ADAPTERS[name]
    damage(adapter)
    with pytest.raises(UserError, match=message) as fault:
        read_adapter(adapter)
    assert "\n" not in str(fault.value)


def test_an_adapter_of_a_base_of_another_shape_is_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    """Its own files agree with each other, and its modules have the names of the base."""
    from siftune.curation.recipe.training_sections import Model
    from siftune.training.evaluation.loss_worker import EvaluationTarget, adapted_model
    from siftune.training.inference.transformers_engine import TransformersEngine

    def widen(tensors: dict[str, Any]) -> dict[str, Any]:
        return {
            name: np.concatenate([value, value], axis=1) if "lora_A" in name else value
            for name, value in tensors.items()
        }

    adapter = write_adapter(tmp_path / "adapter", tiny_model, seed=1)
    change_weights(adapter, widen)
    model = Model(name=str(tiny_model), load="fp32")
    with pytest.raises(UserError, match=r"another base model: model\S+ has \d+ x \d+ weights here") as fault:
        TransformersEngine(model, {"raw": adapter})
    assert "\n" not in str(fault.value)
    target = EvaluationTarget(name="raw", adapter=adapter, digest="d")
    with pytest.raises(UserError, match="another base model"), adapted_model(models.load_dense(model)[0], target):
        pass


def test_a_tokenizer_of_a_larger_model_is_one_sentence(folder: Path) -> None:
    resolved = models.resolve(str(folder))
    base = models.load_base(resolved, models.choose_loading("fp32", resolved))
    tokens = torch.tensor([[0, base.config.vocab_size - 1]])
    base(input_ids=tokens)
    with pytest.raises(UserError, match=f"the token {base.config.vocab_size}, and the model has") as fault:
        base(input_ids=tokens + 1)
    assert "\n" not in str(fault.value)
