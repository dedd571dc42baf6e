"""llama.cpp: one quantised GGUF file an arm, each in a context of its own so that no prompt cache is ever shared."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import psutil
from jinja2.exceptions import TemplateError
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from siftune.curation.errors import UserError
from siftune.training.inference.detokenizer import Detokenizer
from siftune.training.inference.engine import (
    PROBE,
    Chunk,
    Fingerprint,
    Kind,
    Message,
    Request,
    Stats,
    Stopped,
    refuse_unknown_arms,
    refuse_equal_weights,
)
from siftune.training.library_output import silence_llamacpp
from siftune.training.masks import TEMPLATE_DATE


class LlamaCppEngine:
    """Answers for GGUF files (arm → file), as `siftune export RUN --arm ARM --to gguf` writes them.

    Arms decode in turns, one token each, in one thread: two decodes at once would compete for memory bandwidth.
    """

    kind: Kind = "llama.cpp"

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        context: int = 2048,
        threads: int | None = None,
        same_weights: bool = False,
    ) -> None:
        for arm, path in files.items():
            if not path.is_file():
                raise UserError(
                    f"There is no GGUF file of {arm} at {path}. Make it with: siftune export RUN --arm {arm} --to gguf"
                )
        self.arms = tuple(files)
        self._context = context
        self._turn = threading.Lock()
        self._models = {arm: _load(path, context, threads) for arm, path in files.items()}
        self._prints = {
            arm: Fingerprint(_hash(path), self._logit_hash(self._models[arm])) for arm, path in files.items()
        }
        if not same_weights:
            refuse_equal_weights(self._prints)

    def fingerprint(self, arm: str) -> Fingerprint:
        """Hash of the GGUF file and of the probe's logits."""
        return self._prints[arm]

    def close(self) -> None:
        """Free the models."""
        for model in self._models.values():
            model.close()
        self._models = {}

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """See `Engine.stream`. Raises `UserError` for unknown arms, an arm asked twice, or too long a prompt."""
        refuse_unknown_arms(requests, self.arms)
        if len({request.arm for request in requests}) < len(requests):
            raise UserError("llama.cpp answers one conversation of an arm at a time; ask them one after another.")
        stop = stop or threading.Event()
        with self._turn:
            start = time.perf_counter()
            turns = [self._answer(place, request, start, stop) for place, request in enumerate(requests)]
            while turns:
                waiting = []
                for turn in turns:
                    if (chunk := next(turn, None)) is not None:
                        yield chunk
                        waiting.append(turn)
                turns = waiting

    def _answer(self, place: int, request: Request, start: float, stop: threading.Event) -> Iterator[Chunk]:
        """Chunks of one request; every `next` computes one token."""
        model, sampling = self._models[request.arm], request.sampling
        prompt = _encode(model, request.messages)
        if len(prompt) + sampling.max_new_tokens > self._context:
            raise UserError(
                f"The conversation has {len(prompt)} tokens and {sampling.max_new_tokens} may be answered; the context "
                f"holds {self._context}. Shorten the conversation or ask for fewer tokens."
            )
        text = Detokenizer(lambda ids: model.detokenize(ids, special=False).decode("utf-8", errors="replace"))
        tokens, first, stopped, pending = 0, None, "cancelled", ""
        model.set_seed(sampling.seed)
        drawn = model.generate(
            prompt, top_k=0, top_p=sampling.top_p, min_p=0.0, temp=sampling.temperature, repeat_penalty=1.0
        )
        now = time.perf_counter() - start
        while not stop.is_set():
            token = next(drawn)
            now = time.perf_counter() - start
            first = now if first is None else first
            if llama_cpp.llama_vocab_is_eog(model._model.vocab, token):  # noqa: SLF001 - the binding has no public name
                stopped = "end"
                break
            tokens += 1
            pending = text.add(token)
            if tokens >= sampling.max_new_tokens:
                stopped = "length"
                break
            yield Chunk(place, pending, tokens, now)
            pending = ""
        drawn.close()
        stats = Stats(len(prompt), tokens, now, first, _stopped(stopped))
        yield Chunk(place, pending + text.flush(), tokens, now, stats)

    def _logit_hash(self, model: Any) -> str:
        model.reset()
        model.eval(_encode(model, (Message("user", PROBE),)))
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), shape=(model.n_vocab(),))
        digest = hashlib.sha256(np.ascontiguousarray(logits, dtype=np.float32).tobytes()).hexdigest()
        model.reset()
        return digest


def _load(path: Path, context: int, threads: int | None) -> Any:
    silence_llamacpp()
    # llama.cpp's own default is half the processors; one thread a core is what fills the memory bandwidth.
    threads = threads or psutil.cpu_count(logical=False) or 1
    try:
        return llama_cpp.Llama(str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
    except (ValueError, RuntimeError) as fault:
        raise UserError(f"{path} cannot be loaded by llama.cpp: {fault}") from None


def _encode(model: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids by the chat template inside the file."""
    template = model.metadata.get("tokenizer.chat_template")
    if template is None:
        raise UserError(f"{model.model_path} has no chat template in it. Export it again from a model that has one.")
    ends = {name: _piece(model, token) for name, token in (("eos", model.token_eos()), ("bos", model.token_bos()))}
    formatter = Jinja2ChatFormatter(template=template, eos_token=ends["eos"], bos_token=ends["bos"])
    turns: Any = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = formatter(messages=turns, date_string=TEMPLATE_DATE).prompt
    except (TemplateError, ValueError) as fault:
        raise UserError(f"The model's chat template does not take this conversation: {fault}") from None
    return list(model.tokenize(text.encode("utf-8"), add_bos=False, special=True))


def _piece(model: Any, token: int) -> str:
    return str(model.detokenize([token], special=True).decode("utf-8", errors="replace")) if token >= 0 else ""


def _stopped(word: str) -> Stopped:
    return "end" if word == "end" else "length" if word == "length" else "cancelled"


def _hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
