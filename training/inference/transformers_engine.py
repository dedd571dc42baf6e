"""transformers in this process: one base in memory, every arm an adapter over it, all arms decoded in one batch."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Model
from siftune.training.inference.detokenizer import Detokenizer
from siftune.training.inference.engine import (
    PROBE,
    Chunk,
    Fingerprint,
    Kind,
    Message,
    Request,
    Sampling,
    Stats,
    Stopped,
    refuse_unknown_arms,
    refuse_equal_weights,
)
from siftune.training.inference.lora_layers import Strategy, install, read_adapter
from siftune.training.masks import prompt_ids


class TransformersEngine:
    """Answers for adapters in `adapters` (arm → folder that PEFT wrote; None is the untrained base).

    `strategy` auto measures whether batched or merged adapters are faster here; `choice` says what came out.
    """

    kind: Kind = "transformers"

    def __init__(
        self,
        model: Model,
        adapters: Mapping[str, Path | None],
        *,
        strategy: Strategy = "auto",
        same_weights: bool = False,
    ) -> None:
        base, self._tokenizer, identity = load_dense(model)
        read = {arm: read_adapter(folder) if folder else None for arm, folder in adapters.items()}
        self.arms = tuple(read)
        self._model = base
        self._linears, self.choice = install(base, read, strategy=strategy)
        # The last position of a batch is a strided view, for which PyTorch would copy the whole head at every prompt.
        base.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
        self._ends = _end_tokens(base, self._tokenizer)
        self._turn = threading.Lock()
        digests = {arm: adapter.digest if adapter else identity for arm, adapter in read.items()}
        self._prints = {arm: Fingerprint(digests[arm], self._logit_hash(arm)) for arm in self.arms}
        if not same_weights:
            refuse_equal_weights(self._prints)

    def fingerprint(self, arm: str) -> Fingerprint:
        """Hash of the adapter file (of the base model for an arm without one) and of the probe's logits."""
        return self._prints[arm]

    def close(self) -> None:
        """Drop the model."""
        del self._model
        self._linears = []

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """See `Engine.stream`. Raises `UserError` for unknown arms, and for prompts that leave no room to answer."""
        refuse_unknown_arms(requests, self.arms)
        prompts = [self._encode(request) for request in requests]
        if not requests:
            return
        with self._turn:
            yield from self._decode(requests, prompts, stop or threading.Event())

    def _decode(self, requests: Sequence[Request], prompts: list[list[int]], stop: threading.Event) -> Iterator[Chunk]:
        start = time.perf_counter()
        answers = [
            _Answer(self._tokenizer, request.sampling, len(prompt))
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        alive = list(range(len(requests)))
        batch = _Batch(self._model, prompts)
        self._assign(requests, alive)
        while not stop.is_set():
            logits = batch.step()
            chosen = [answers[request].choose(row) for request, row in zip(alive, logits, strict=True)]
            now = time.perf_counter() - start
            for request, token in zip(alive, chosen, strict=True):
                yield answers[request].take(request, token, now, self._ends)
            staying = [row for row, request in enumerate(alive) if answers[request].stopped is None]
            if not staying:
                return
            if len(staying) < len(alive):
                alive = [alive[row] for row in staying]
                self._assign(requests, alive)
            batch.advance([chosen[row] for row in staying], staying)
        for request in alive:
            yield answers[request].cancelled(request, time.perf_counter() - start)

    def _assign(self, requests: Sequence[Request], alive: Sequence[int]) -> None:
        rows = [self.arms.index(requests[request].arm) for request in alive]
        for linear in self._linears:
            linear.assign(rows)

    def _encode(self, request: Request) -> list[int]:
        ids = encode(self._tokenizer, request.messages)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) + request.sampling.max_new_tokens > limit:
            raise UserError(
                f"The conversation has {len(ids)} tokens and {request.sampling.max_new_tokens} may be answered; the "
                f"model takes {limit} together. Shorten the conversation or ask for fewer tokens."
            )
        return ids

    @torch.inference_mode()
    def _logit_hash(self, arm: str) -> str:
        ids = encode(self._tokenizer, (Message("user", PROBE),))
        for linear in self._linears:
            linear.assign([self.arms.index(arm)])
        logits = self._model(input_ids=torch.tensor([ids], device=self._model.device), logits_to_keep=1).logits
        return hashlib.sha256(logits.float().cpu().numpy().tobytes()).hexdigest()


def load_dense(model: Model) -> tuple[Any, Any, str]:
    """The base that the arms were trained over, dense; its tokenizer; and a hash that identifies it.

    Where adapters were trained over NF4 weights, these are NF4's values unpacked to 16 bits and not the original ones:
    the adapter has learnt to work with them, and arms are judged with them.
    """
    from siftune.training import models

    resolved = models.resolve(model.name, revision=model.revision)
    loading = models.choose_loading(model.load, resolved)
    base = models.load_base(resolved, loading)
    # Unpacked before the first forward pass, which may reorder 4-bit weights in place.
    base = (base.dequantize() if loading.load == "nf4" else base).eval()
    base.config.use_cache = True
    return base, models.load_tokenizer(resolved), resolved.identity


def encode(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation, up to where the assistant speaks. Raises `UserError` like `masks.render`."""
    return prompt_ids(tokenizer, [vars(message) for message in messages])


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    given = getattr(model.generation_config, "eos_token_id", None)
    ends = given if isinstance(given, list) else [given]
    return frozenset(token for token in [*ends, tokenizer.eos_token_id] if token is not None)


class _Batch:
    """The key–value cache of the rows that are still answering."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        width = max(map(len, prompts))
        self._model = model
        self._cache = DynamicCache(config=model.config)
        device = model.device
        self._ids = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
        self._place = (mask.cumsum(1) - 1).clamp(min=0)
        # Without padding no mask is needed, and attention takes its faster path.
        self._mask = None if bool(mask.all()) else mask

    @torch.inference_mode()
    def step(self) -> Tensor:
        """Logits (rows, vocabulary) in float32 of the next token of every row."""
        out = self._model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._place,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits

    @torch.inference_mode()
    def advance(self, tokens: Sequence[int], staying: Sequence[int]) -> None:
        """Go on with the rows in `staying`, whose next tokens are `tokens`."""
        place = self._place[:, -1:] + 1
        if len(staying) < len(place):
            keep = torch.tensor(staying, device=place.device, dtype=torch.long)
            place = place[keep]
            self._cache.batch_select_indices(keep)
            self._mask = self._mask[keep] if self._mask is not None else None
        self._place = place
        self._ids = torch.tensor(tokens, device=place.device, dtype=torch.long)[:, None]
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)


class _Answer:
    """One row's tokens, text and times while it is made."""

    def __init__(self, tokenizer: Any, sampling: Sampling, prompt_tokens: int) -> None:
        self._text = Detokenizer(lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)))
        self._sampling = sampling
        self._prompt_tokens = prompt_tokens
        self._random = torch.Generator().manual_seed(sampling.seed)
        self._tokens = 0
        self._first: float | None = None
        self.stopped: Stopped | None = None

    def choose(self, logits: Tensor) -> int:
        """The next token from float32 logits (vocabulary)."""
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        # The greedy token keeps its place even where the temperature underflows.
        scaled = (logits - logits.max()).cpu() / self._sampling.temperature
        odds, order = torch.softmax(scaled, -1).sort(descending=True, stable=True)
        odds[odds.cumsum(-1) - odds >= self._sampling.top_p] = 0
        return int(order[torch.multinomial(odds, 1, generator=self._random)])

    def take(self, request: int, token: int, now: float, ends: frozenset[int]) -> Chunk:
        """The chunk for `token`; the last one when it ends the answer or fills it. End tokens are not counted."""
        self._first = now if self._first is None else self._first
        if token in ends:
            self.stopped = "end"
            return self._last(request, now, self._text.flush())
        self._tokens += 1
        piece = self._text.add(token)
        if self._tokens >= self._sampling.max_new_tokens:
            self.stopped = "length"
            return self._last(request, now, piece + self._text.flush())
        return Chunk(request, piece, self._tokens, now)

    def cancelled(self, request: int, now: float) -> Chunk:
        """The last chunk of an answer that was stopped."""
        self.stopped = "cancelled"
        return self._last(request, now, self._text.flush())

    def _last(self, request: int, now: float, text: str) -> Chunk:
        assert self.stopped is not None
        stats = Stats(self._prompt_tokens, self._tokens, now, self._first, self.stopped)
        return Chunk(request, text, self._tokens, now, stats)
