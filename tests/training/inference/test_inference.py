"""Engines on tiny models: the tokens of transformers alone, rows that never mix, stopping, fingerprints, refusals."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Model
from siftune.training import models
from siftune.training.inference.detokenizer import Detokenizer
from siftune.training.inference.engine import Chunk, Engine, Message, Request, Sampling, Stats

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from siftune.training.inference.lora_layers import ArmLinear, FusedLinears, Strategy, install_adapters, read_adapter  # noqa: E402
from siftune.training.inference.openai_engine import OpenAIEngine, ServedModel  # noqa: E402
from siftune.training.inference.transformers_engine import TransformersEngine, encode_prompt  # noqa: E402
from tests.training.random_adapters import write_adapter  # noqa: E402 - only where torch is

PROMPT = (Message("user", "What colour has apple 7?"),)
LONGER = (Message("system", "Be brief."), Message("user", "What colour has bridge 12? And what is it made of?"))


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "base": None,
        "raw": write_adapter(folder / "raw", tiny_model, seed=1),
        "curated": write_adapter(folder / "curated", tiny_model, seed=2, rank=8),
    }


@pytest.fixture(scope="module", params=["batched", "merged"])
def engine(request: pytest.FixtureRequest, tiny_model: Path, adapters: dict[str, Path | None]) -> TransformersEngine:
    # float32: so that the tokens of another way of computing must be the same ones.
    return TransformersEngine(Model(name=str(tiny_model), load="fp32"), adapters, strategy=request.param)


def collect(engine: Engine, requests: list[Request], **more: Any) -> tuple[list[str], list[Stats]]:
    texts, stats = [""] * len(requests), {}
    for chunk in engine.stream(requests, **more):
        assert chunk.request not in stats, "nothing comes after the last chunk of a request"
        texts[chunk.request] += chunk.text
        if chunk.stats is not None:
            stats[chunk.request] = chunk.stats
    assert len(stats) == len(requests), "every request ends"
    return texts, [stats[index] for index in range(len(requests))]


def generated(tiny_model: Path, adapter: Path | None, messages: tuple[Message, ...], tokens: int) -> tuple[str, int]:
    """The text and the number of tokens of `generated_ids`."""
    from transformers import AutoTokenizer

    new = generated_ids(tiny_model, adapter, messages, tokens)
    return AutoTokenizer.from_pretrained(tiny_model).decode(new, skip_special_tokens=True), len(new)


def generated_ids(tiny_model: Path, adapter: Path | None, messages: tuple[Message, ...], tokens: int) -> list[int]:
    """What transformers' own `generate` answers with PEFT's own model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = torch.tensor([encode_prompt(tokenizer, messages)])
    out = model.eval().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
    )
    return out[0, ids.shape[1] :].tolist()


def test_all_arms_at_once_answer_what_each_answers_alone_in_transformers(
    engine: TransformersEngine, tiny_model: Path, adapters: dict[str, Path | None]
) -> None:
    questions = [(arm, messages) for arm in ("curated", "base", "raw") for messages in (PROMPT, LONGER)]
    requests = [Request(arm, messages, Sampling(max_new_tokens=12)) for arm, messages in questions]
    texts, stats = collect(engine, requests)
    for (arm, messages), text, cost in zip(questions, texts, stats, strict=True):
        expected, count = generated(tiny_model, adapters[arm], messages, 12)
        assert text == expected
        assert cost.tokens in {count, count - 1}  # generate counts the end token
    assert len(set(texts[::2])) == 3, "three arms that answer alike would prove nothing"


def test_rows_that_end_early_leave_the_others_as_they_were(engine: TransformersEngine) -> None:
    alone, _ = collect(engine, [Request("raw", LONGER, Sampling(max_new_tokens=20))])
    mixed = [Request(arm, PROMPT, Sampling(max_new_tokens=n)) for arm, n in (("base", 1), ("curated", 5))]
    texts, stats = collect(engine, [mixed[0], Request("raw", LONGER, Sampling(max_new_tokens=20)), mixed[1]])
    assert texts[1] == alone[0]
    assert [cost.stopped for cost in stats] == ["length"] * 3
    assert [cost.tokens for cost in stats] == [1, 20, 5]
    assert all(cost.first_token_seconds is not None and cost.first_token_seconds <= cost.seconds for cost in stats)


def test_an_answer_ends_where_the_chat_template_ends_answers(
    tiny_model: Path, adapters: dict[str, Path | None], tmp_path: Path
) -> None:
    """A base model with ChatML learns `<|im_end|>` and names only `<|endoftext|>` as its end."""
    from transformers import AutoTokenizer

    # Some later token of an answer becomes the mark that the template writes behind answers.
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = encode_prompt(tokenizer, PROMPT)
    answers = {arm: generated_ids(folder, adapters[arm], PROMPT, 40) for arm in ("raw", "curated")}
    arm, length, end = next(
        (arm, length, tokenizer.convert_ids_to_tokens(token))
        for arm, answer in answers.items()
        for length, token in enumerate(answer)
        if length and token < len(tokenizer) and token not in [*answer[:length], *prompt]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [end]})
    written, ended = "+ '<|im_end|>'", f"+ ({end!r} if message['role'] == 'assistant' else '<|im_end|>')"
    assert written in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(written, ended)
    tokenizer.save_pretrained(folder)

    engine = TransformersEngine(Model(name=str(folder), load="fp32"), {arm: adapters[arm]})
    _, stats = collect(engine, [Request(arm, PROMPT, Sampling(max_new_tokens=40))])
    assert (stats[0].tokens, stats[0].stopped) == (length, "end")


def test_arms_stream_together_and_not_one_after_the_other(engine: TransformersEngine) -> None:
    requests = [Request(arm, PROMPT, Sampling(max_new_tokens=6)) for arm in ("raw", "curated")]
    order = [chunk.request for chunk in engine.stream(requests)]
    assert order[:6] == [0, 1, 0, 1, 0, 1]


def test_a_cancelled_stream_ends_within_one_token(engine: TransformersEngine) -> None:
    stop = threading.Event()
    requests = [Request(arm, PROMPT, Sampling(max_new_tokens=200)) for arm in ("raw", "curated")]
    chunks: list[Chunk] = []
    for chunk in engine.stream(requests, stop=stop):
        chunks.append(chunk)
        if chunk.tokens == 4 and chunk.request == 0:
            stop.set()
    last = [chunk for chunk in chunks if chunk.stats]
    assert [(chunk.stats.stopped, chunk.tokens) for chunk in last if chunk.stats] == [("cancelled", 4)] * 2
    collect(engine, requests[:1], stop=None)  # the engine is free again


def test_a_reader_that_goes_away_frees_the_engine(engine: TransformersEngine) -> None:
    stream = engine.stream([Request("raw", PROMPT, Sampling(max_new_tokens=50))])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert collect(engine, [Request("raw", PROMPT, Sampling(max_new_tokens=2))])[1][0].tokens == 2


def test_sampling_is_seeded_and_top_p_narrows_it(engine: TransformersEngine) -> None:
    def ask(**how: Any) -> str:
        return collect(engine, [Request("raw", PROMPT, Sampling(max_new_tokens=16, **how))])[0][0]

    assert ask(temperature=1.5, seed=1) == ask(temperature=1.5, seed=1) != ask(temperature=1.5, seed=2)
    assert ask(temperature=5.0, top_p=1e-6, seed=3) == ask()
    beside = [Request(arm, PROMPT, Sampling(temperature=1.5, seed=1, max_new_tokens=16)) for arm in ("base", "raw")]
    assert collect(engine, beside)[0][1] == ask(temperature=1.5, seed=1), "a seed belongs to its request"


def test_fingerprints_tell_arms_apart_and_do_not_change(
    engine: TransformersEngine, adapters: dict[str, Path | None]
) -> None:
    import hashlib

    prints = {arm: engine.fingerprint(arm) for arm in engine.arms}
    assert (
        len({print_.logits for print_ in prints.values()}) == len({print_.weights for print_ in prints.values()}) == 3
    )
    assert adapters["raw"] is not None
    file = (adapters["raw"] / "adapter_model.safetensors").read_bytes()
    assert prints["raw"].weights == hashlib.sha256(file).hexdigest()
    collect(engine, [Request("curated", PROMPT, Sampling(max_new_tokens=3))])
    assert engine.logit_hash("raw") == prints["raw"].logits


def test_the_same_weights_under_two_names_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    same = write_adapter(tmp_path / "a", tiny_model, seed=1)
    model = Model(name=str(tiny_model), load="fp32")
    with pytest.raises(UserError, match="one and two answer with the same weights"):
        TransformersEngine(model, {"one": same, "two": same})
    empty = write_adapter(tmp_path / "b", tiny_model, seed=3, scale=0.0)
    with pytest.raises(UserError, match="weights with the same logits"):
        TransformersEngine(model, {"base": None, "trained": empty}, strategy="batched")
    assert TransformersEngine(model, {"one": same, "two": same}, same_weights=True).arms == ("one", "two")


def test_nf4_arms_answer_over_the_values_that_nf4_left(tiny_model: Path, adapters: dict[str, Path | None]) -> None:
    pytest.importorskip("bitsandbytes")
    nf4 = TransformersEngine(Model(name=str(tiny_model), load="nf4"), adapters)
    dense = TransformersEngine(Model(name=str(tiny_model), load="bf16"), adapters)
    assert nf4.choice.startswith(("batched", "merged"))
    assert nf4.fingerprint("base").logits != dense.fingerprint("base").logits
    assert collect(nf4, [Request(arm, PROMPT, Sampling(max_new_tokens=4)) for arm in nf4.arms])[1][0].tokens == 4


@pytest.mark.parametrize("strategy", ["auto", "batched"])
def test_packed_weights_answer_as_unpacked_ones_do(
    tiny_model: Path, adapters: dict[str, Path | None], strategy: Strategy
) -> None:
    weights = {arm: read_adapter(folder) if folder else None for arm, folder in adapters.items()}

    def linears(strategy: Strategy, *, pack: bool) -> list[ArmLinear]:
        base = models.load_dense(Model(name=str(tiny_model), load="bf16"))[0]
        return install_adapters(base, weights, strategy=strategy, pack=pack)[0]

    rows = [0, 2, 1, 1]
    for packed, plain in zip(linears(strategy, pack=True), linears("batched", pack=False), strict=True):
        packed.assign(rows)
        plain.assign(rows)
        x = torch.randn(4, 3, plain.down.shape[2], generator=torch.Generator().manual_seed(0)).to(plain.down.dtype)
        assert torch.allclose(packed(x).float(), plain(x).float(), atol=0.05, rtol=0.05)
        assert plain.weight is not None
        matrices = [(plain.weight.float() + plain.up[arm].float() @ plain.down[arm].float()) for arm in rows]
        expected = torch.stack([row.float() @ matrix.T for row, matrix in zip(x, matrices, strict=True)])
        assert torch.allclose(plain(x).float(), expected, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("strategy", ["batched", "merged"])
def test_modules_computed_together_are_those_of_peft_one_by_one(tmp_path: Path, strategy: str) -> None:
    from transformers import AutoModelForCausalLM, Qwen2Config

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(Qwen2Config(**sizes, **heads))  # its queries, keys and values have biases
    for name, parameter in base.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    base.save_pretrained(tmp_path / "base")
    targets = {"some": ["q_proj", "v_proj", "up_proj"], "others": ["k_proj", "down_proj"], "all": "all-linear"}
    folders = {
        arm: write_adapter(tmp_path / arm, tmp_path / "base", seed=index, rank=3 + index, targets=names)
        for index, (arm, names) in enumerate(targets.items())
    }
    ids = torch.arange(12).view(3, 4)
    linears, _ = install_adapters(
        base.eval(), {arm: read_adapter(each) for arm, each in folders.items()}, strategy=strategy
    )
    assert len(linears) == 4 * sizes["num_hidden_layers"]
    for rows in ([0, 1, 2], [2, 0, 0]):
        for linear in linears:
            linear.assign(rows)
        logits = base(input_ids=ids).logits
        for index, row in enumerate(rows):
            plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
            peft_model = peft.PeftModel.from_pretrained(plain, str(list(folders.values())[row])).eval()
            assert torch.allclose(logits[index], peft_model(input_ids=ids[index : index + 1]).logits[0], atol=1e-4)


def test_modules_computed_together_may_be_asked_with_other_inputs() -> None:
    modules = [torch.nn.Linear(5, wide, bias=wide != 2) for wide in (3, 2, 4)]
    linear = ArmLinear(modules, [None])
    linear.assign([0, 0])
    fused = FusedLinears(linear, [3, 2, 4])
    one, two = torch.randn(2, 1, 5), torch.randn(2, 1, 5)
    for index, x in [(0, one), (1, two), (2, two), (2, two), (1, one), (0, one), (0, one)]:
        assert torch.allclose(fused.take(index, x), modules[index](x), atol=1e-6)


def test_what_cannot_be_answered_is_said(engine: TransformersEngine, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'curated'"):
        list(engine.stream([Request("curatd", PROMPT)]))
    with pytest.raises(UserError, match="takes 512 in total"):
        list(engine.stream([Request("raw", PROMPT, Sampling(max_new_tokens=500))]))
    with pytest.raises(UserError, match="no adapter"):
        TransformersEngine(Model(name=str(tiny_model), load="fp32"), {"raw": tmp_path / "nowhere"})
    with pytest.raises(UserError, match="top-p"):
        Sampling(top_p=0)
    assert list(engine.stream([])) == []


def test_an_adapter_of_another_base_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from tests.training.worlds import write_tiny_llama

    other = write_adapter(tmp_path / "a", write_tiny_llama(tmp_path / "m", layers=3), seed=1)
    with pytest.raises(UserError, match="another base model"):
        TransformersEngine(Model(name=str(tiny_model), load="fp32"), {"raw": other})


@given(st.text(max_size=40), st.integers(1, 3))
def test_pieces_join_to_the_text_and_no_half_character_is_shown(text: str, size: int) -> None:
    data = text.encode("utf-8", errors="replace")
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    detokenizer = Detokenizer(lambda ids: b"".join(parts[index] for index in ids).decode("utf-8", errors="replace"))
    pieces = [detokenizer.add(index) for index in range(len(parts))]
    assert "".join(pieces) + detokenizer.flush() == data.decode("utf-8")
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


# --- a server ---------------------------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """Answers like an OpenAI-compatible server, in `words`; the model's name decides how it behaves."""

    words: ClassVar[list[str]] = ["The ", "apple ", "is ", "rot: ", "größer."]
    received: ClassVar[list[dict[str, Any]]] = []
    gate: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
        if body["model"] == "missing":
            self.send_error(404, "no such model")
            return
        if body["model"] == "echo":
            self.send_error(401, "no", f"bad header:\n{self.headers.get('Authorization')}")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        while body["model"] == "endless":
            self._event({"choices": [{"delta": {"content": "again " * 100}, "finish_reason": None}]})
        while body["model"] == "pings":
            self._event({})
            time.sleep(0.02)
        if body["model"] == "odd":
            self._event({"choices": [1]})
        for word in self.words:
            self._event({"choices": [{"delta": {"content": body["model"][0] + word}, "finish_reason": None}]})
            if body["model"] == "slow" and word == "apple ":
                self.gate.wait(20)
        if body["model"] == "broken":
            return
        self._event({"choices": [{"delta": {}, "finish_reason": "length" if body["model"] == "long" else "stop"}]})
        self._event({"choices": [], "usage": {"completion_tokens": 9, "prompt_tokens": 4}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, document: dict[str, Any]) -> None:
        self.wfile.write(b": a comment\n" + b"data: " + json.dumps(document).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that hangs up is what some tests do
            pass

    with Quiet(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
        Server.gate.set()
        running.shutdown()


def test_an_endpoint_streams_two_models_together(server: str) -> None:
    engine = OpenAIEngine({"raw": ServedModel(server, "long"), "curated": ServedModel(server, "x")}, api_key="secret")
    requests = [Request(arm, PROMPT, Sampling(temperature=0.5, max_new_tokens=7)) for arm in engine.arms]
    texts, stats = collect(engine, requests)
    assert texts == ["".join("l" + word for word in Server.words), "".join("x" + word for word in Server.words)]
    assert [(cost.stopped, cost.tokens, cost.prompt_tokens) for cost in stats] == [("length", 9, 4), ("end", 9, 4)]
    sent = next(body for body in Server.received if body["model"] == "long")
    assert (sent["path"], sent["key"], sent["max_tokens"]) == ("/v1/chat/completions", "Bearer secret", 7)
    assert engine.fingerprint("raw") != engine.fingerprint("curated")


def test_a_silent_endpoint_can_be_cancelled_at_once(server: str) -> None:
    engine = OpenAIEngine({"raw": ServedModel(server, "slow")})
    stop, begun = threading.Event(), time.monotonic()
    chunks = []
    for chunk in engine.stream([Request("raw", PROMPT)], stop=stop):
        chunks.append(chunk)
        if chunk.tokens == 2:
            stop.set()
    assert chunks[-1].stats is not None
    assert (chunks[-1].stats.stopped, chunks[-1].tokens) == ("cancelled", 2)
    assert time.monotonic() - begun < 10, "it did not wait for the server"
    Server.gate.set()


@pytest.mark.parametrize(
    ("served", "says"),
    [
        (("{}", "missing"), "answered 404 for the model 'missing'"),
        (("{}", "broken"), "in the middle of an answer"),
        (("{}", "endless"), "does not end an answer of 8 tokens"),
        (("{}", "pings"), "no part of an answer for 0.2 seconds"),
        (("{}", "odd"), "no part of a chat completion"),
        (("{}", "echo"), "answered 401 .* Bearer \\(key\\)"),
        (("http://127.0.0.1:9/v1", "any"), "cannot be reached"),
        (("ftp://127.0.0.1/v1", "any"), "http\\(s\\) address"),
        (("file:///etc/passwd", "any"), "http\\(s\\) address"),
    ],
)
def test_what_an_endpoint_does_wrong_is_said(server: str, served: tuple[str, str], says: str) -> None:
    def ask() -> None:
        models = {"raw": ServedModel(served[0].format(server), served[1])}
        engine = OpenAIEngine(models, api_key="secret", timeout=0.1 if served[1] == "pings" else 120)
        collect(engine, [Request("raw", PROMPT, Sampling(max_new_tokens=8))])

    with pytest.raises(UserError, match=says) as fault:
        ask()
    assert "\n" not in str(fault.value)


def test_two_names_for_one_served_model_are_refused(server: str) -> None:
    with pytest.raises(UserError, match="the same weights"):
        OpenAIEngine({"raw": ServedModel(server, "x"), "curated": ServedModel(server, "x")})
