"""llama.cpp: one GGUF file per arm, each in a context of its own so that no prompt cache is ever shared."""

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
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from siftune.curation.errors import UserError
from siftune.curation.file_hash import file_sha256
from siftune.training.chat_template import ChatTemplate
from siftune.training.inference.detokenizer import Detokenizer
from siftune.training.inference.engine import (
    PROBE,
    Chunk,
    EngineKind,
    Fingerprint,
    Message,
    Request,
    Stats,
    StopReason,
    refuse_equal_weights,
    refuse_unknown_arms,
)
from siftune.training.library_output import silence_llamacpp
from siftune.training.row_turns import SystemTurn


class LlamaCppEngine:
    """Answers for GGUF files (arm → file), as `siftune export RUN --arm ARM --to gguf` writes them.

    Arms decode in turns, one token each, in one thread: two decodes at once would compete for memory bandwidth.

    Args:
        files: The GGUF file of each arm.
        context: Most tokens of a prompt and its answer together.
        threads: Threads that compute; one per processor core by default.
        system: What becomes of system turns; see `siftune.curation.recipe.training_sections.Model`.
        same_weights: Allow two arms with the same weights.

    Raises:
        UserError: a file is missing or cannot be loaded, or two arms answer with the same weights.
    """

    kind: EngineKind = "llama.cpp"

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        context: int = 2048,
        threads: int | None = None,
        system: SystemTurn = "keep",
        same_weights: bool = False,
    ) -> None:
        for arm, path in files.items():
            if not path.is_file():
                raise UserError(
                    f"There is no GGUF file of {arm} at {path}. Run: siftune export RUN --arm {arm} --to gguf"
                )
        self.arms = tuple(files)
        self._context = context
        self._turn = threading.Lock()
        self._models = {arm: _load(path, context, threads) for arm, path in files.items()}
        self._templates = {
            arm: ChatTemplate(_GgufTemplate(model), system=system) for arm, model in self._models.items()
        }
        self._end_tokens = {arm: _end_tokens(self._models[arm], template) for arm, template in self._templates.items()}
        self._fingerprints = {arm: Fingerprint(file_sha256(path), self._logit_hash(arm)) for arm, path in files.items()}
        if not same_weights:
            refuse_equal_weights(self._fingerprints)

    def fingerprint(self, arm: str) -> Fingerprint:
        """Hash of the GGUF file and of the probe's logits."""
        return self._fingerprints[arm]

    def close(self) -> None:
        """Free the models."""
        for model in self._models.values():
            model.close()
        self._models = {}

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """See `Engine.stream`. Raises `UserError` for unknown arms, two requests to one arm, or too long a prompt."""
        refuse_unknown_arms(requests, self.arms)
        if len({request.arm for request in requests}) < len(requests):
            raise UserError("llama.cpp answers one conversation of an arm at a time; send them one after another.")
        stop = stop or threading.Event()
        with self._turn:
            start = time.perf_counter()
            unfinished = [self._answer(index, request, start, stop) for index, request in enumerate(requests)]
            while unfinished:
                for answer in list(unfinished):
                    if (chunk := next(answer, None)) is None:
                        unfinished.remove(answer)
                    else:
                        yield chunk

    def _answer(self, index: int, request: Request, start: float, stop: threading.Event) -> Iterator[Chunk]:
        """Chunks of one request; every `next` computes one token."""
        model, sampling = self._models[request.arm], request.sampling
        prompt = self._encode(request.arm, request.messages)
        if len(prompt) + sampling.max_new_tokens > self._context:
            raise UserError(
                f"The conversation has {len(prompt)} tokens and its answer may have {sampling.max_new_tokens}; the "
                f"context holds {self._context}. Shorten the conversation or ask for fewer tokens."
            )
        detokenizer = Detokenizer(lambda ids: model.detokenize(ids, special=False).decode("utf-8", errors="replace"))
        model.set_seed(sampling.seed)
        # Plain temperature and top-p: llama.cpp's other samplers are off, so that engines can be compared.
        generated = model.generate(
            prompt, top_k=0, top_p=sampling.top_p, min_p=0.0, temp=sampling.temperature, repeat_penalty=1.0
        )
        tokens, text, first_token_seconds = 0, "", None
        reason: StopReason = "cancelled"
        seconds = time.perf_counter() - start
        while not stop.is_set():
            token = next(generated)
            seconds = time.perf_counter() - start
            first_token_seconds = seconds if first_token_seconds is None else first_token_seconds
            if token in self._end_tokens[request.arm] or _is_end(model, token):
                reason = "end"
                break
            tokens += 1
            text = detokenizer.add(token)
            if tokens >= sampling.max_new_tokens:
                reason = "length"
                break
            yield Chunk(index, text, tokens, seconds)
            text = ""
        generated.close()
        stats = Stats(len(prompt), tokens, seconds, first_token_seconds, reason)
        yield Chunk(index, text + detokenizer.flush(), tokens, seconds, stats)

    def _encode(self, arm: str, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation by the chat template inside the file, up to where the assistant answers."""
        text = self._templates[arm].prompt([vars(message) for message in messages])
        return list(self._models[arm].tokenize(text.encode("utf-8"), add_bos=False, special=True))

    def _logit_hash(self, arm: str) -> str:
        model = self._models[arm]
        model.reset()
        model.eval(self._encode(arm, (Message("user", PROBE),)))
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


def _is_end(model: Any, token: int) -> bool:
    """Whether llama.cpp takes a token for an end of generation."""
    return bool(llama_cpp.llama_vocab_is_eog(model._model.vocab, token))  # noqa: SLF001 - no public name


def _end_tokens(model: Any, template: ChatTemplate) -> tuple[int, ...]:
    """The control tokens that end answers in the file's chat template."""
    vocabulary = model._model.vocab  # noqa: SLF001 - no public name
    return template.end_tokens(
        lambda text: model.tokenize(text.encode("utf-8"), add_bos=False, special=True),
        lambda token: bool(llama_cpp.llama_vocab_is_control(vocabulary, token)),
    )


class _GgufTemplate:
    """The chat template inside a GGUF file, with the methods of a tokenizer that `ChatTemplate` calls."""

    def __init__(self, model: Any) -> None:
        template = model.metadata.get("tokenizer.chat_template")
        if template is None:
            raise UserError(
                f"{model.model_path} has no chat template in it. Export it again from a model that has one."
            )
        self._template = template
        self._eos, self._bos = (
            model.detokenize([token], special=True).decode("utf-8", errors="replace") if token >= 0 else ""
            for token in (model.token_eos(), model.token_bos())
        )

    def get_chat_template(self, *, tools: Any = None) -> str:  # noqa: ARG002 - a file has one template
        """The template's source."""
        return str(self._template)

    def apply_chat_template(
        self, messages: Any, *, chat_template: str, tokenize: bool, add_generation_prompt: bool, **fields: Any
    ) -> str:
        """The text of a dialogue, as `transformers.PreTrainedTokenizerBase.apply_chat_template` makes it.

        Args:
            messages: The turns, as documents.
            chat_template: The template's source.
            tokenize: Must be false.
            add_generation_prompt: Whether the header of the assistant's turn is added.
            **fields: What else the template may use, such as `tools`.
        """
        assert not tokenize
        formatter = Jinja2ChatFormatter(
            template=chat_template,
            eos_token=self._eos,
            bos_token=self._bos,
            add_generation_prompt=add_generation_prompt,
        )
        return str(formatter(messages=messages, **fields).prompt)
