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
from siftune.curation.recipe.training_sections import Model
from siftune.training import models
from siftune.training.inference.detokenizer import Detokenizer
from siftune.training.inference.engine import (
    PROBE,
    Chunk,
    EngineKind,
    Fingerprint,
    Message,
    Request,
    Sampling,
    Stats,
    StopReason,
    refuse_equal_weights,
    refuse_unknown_arms,
)
from siftune.training.inference.lora_layers import Strategy, install_adapters, read_adapter
from siftune.training.masks import end_tokens, prompt_ids
from siftune.training.row_turns import SystemTurn


class TransformersEngine:
    """Answers for LoRA adapters of one base model, and for the base itself.

    Args:
        model: The base, as the recipe names and loads it.
        adapters: For each arm the folder that PEFT wrote; None is the untrained base.
        strategy: How the adapters are applied; auto measures whether batched or merged ones are faster here, and
            `choice` says which was taken.
        same_weights: Allow two arms with the same weights.

    Raises:
        UserError: an adapter is missing or of another base model, or two arms answer with the same weights.
    """

    kind: EngineKind = "transformers"

    def __init__(
        self,
        model: Model,
        adapters: Mapping[str, Path | None],
        *,
        strategy: Strategy = "auto",
        same_weights: bool = False,
    ) -> None:
        base, self._tokenizer, identity = models.load_dense(model)
        weights = {arm: read_adapter(folder) if folder else None for arm, folder in adapters.items()}
        self.arms = tuple(weights)
        self._model = base
        self.linears, self.choice = install_adapters(base, weights, strategy=strategy)
        # The last position of a batch is a strided view, for which PyTorch would copy the whole head at every prompt.
        base.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
        self._system: SystemTurn = model.system
        self._end_tokens = generation_ends(base, self._tokenizer)
        self._turn = threading.Lock()
        self._fingerprints = {
            arm: Fingerprint(adapter.digest if adapter else identity, self.logit_hash(arm))
            for arm, adapter in weights.items()
        }
        if not same_weights:
            refuse_equal_weights(self._fingerprints)

    def fingerprint(self, arm: str) -> Fingerprint:
        """Hash of the adapter file (of the base model for an arm without one) and of the probe's logits."""
        return self._fingerprints[arm]

    def close(self) -> None:
        """Give the model's memory back."""
        del self._model
        self.linears = []

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """See `Engine.stream`. Raises `UserError` for unknown arms, and for prompts that leave no room to answer."""
        refuse_unknown_arms(requests, self.arms)
        prompts = [self._encode(request) for request in requests]
        if not requests:
            return
        with self._turn:
            yield from self._decode(requests, prompts, stop or threading.Event())

    def _decode(self, requests: Sequence[Request], prompts: list[list[int]], stop: threading.Event) -> Iterator[Chunk]:
        """All requests in one batch; a request whose answer has ended leaves it."""
        start = time.perf_counter()
        answers = [
            _Answer(self._tokenizer, request.sampling, len(prompt))
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        unfinished = list(range(len(requests)))  # indices into `requests`, one for each row of the batch
        batch = DecodingBatch(self._model, prompts)
        self._assign([request.arm for request in requests])
        while not stop.is_set():
            # One token for each row, chosen by the request's own sampling.
            logits = batch.step()
            tokens = [answers[index].choose(row) for index, row in zip(unfinished, logits, strict=True)]
            seconds = time.perf_counter() - start
            for index, token in zip(unfinished, tokens, strict=True):
                yield answers[index].add(index, token, seconds, self._end_tokens)

            # Go on with the rows whose answer has not ended.
            rows = [row for row, index in enumerate(unfinished) if answers[index].stopped is None]
            if not rows:
                return
            if len(rows) < len(unfinished):
                unfinished = [unfinished[row] for row in rows]
                self._assign([requests[index].arm for index in unfinished])
            batch.advance([tokens[row] for row in rows], rows)
        for index in unfinished:
            yield answers[index].cancel(index, time.perf_counter() - start)

    def _assign(self, arms: Sequence[str]) -> None:
        """Tell the layers which arm answers in each row of the batch."""
        rows = [self.arms.index(arm) for arm in arms]
        for linear in self.linears:
            linear.assign(rows)

    def _encode(self, request: Request) -> list[int]:
        ids = encode_prompt(self._tokenizer, request.messages, system=self._system)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) + request.sampling.max_new_tokens > limit:
            raise UserError(
                f"The conversation has {len(ids)} tokens and its answer may have {request.sampling.max_new_tokens}; "
                f"the model takes {limit} in total. Shorten the conversation or ask for fewer tokens."
            )
        return ids

    @torch.inference_mode()
    def logit_hash(self, arm: str) -> str:
        """sha256 of the float32 logits that follow PROBE, computed now."""
        ids = encode_prompt(self._tokenizer, (Message("user", PROBE),))
        self._assign([arm])
        logits = self._model(input_ids=torch.tensor([ids], device=self._model.device), logits_to_keep=1).logits
        return hashlib.sha256(logits.float().cpu().numpy().tobytes()).hexdigest()


def encode_prompt(tokenizer: Any, messages: Sequence[Message], *, system: SystemTurn = "keep") -> list[int]:
    """Token ids of a conversation, up to where the assistant answers. Raises `UserError` like `masks.prompt_ids`."""
    return prompt_ids(tokenizer, [vars(message) for message in messages], system=system)


def generation_ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens at which an answer ends: those that the model and its tokenizer name, and those that the chat template
    puts behind answers, which is what training taught the model to stop with."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    tokens = [*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id]
    return frozenset(token for token in tokens if token is not None) | set(end_tokens(tokenizer))


class DecodingBatch:
    """The key–value cache of the rows that are still answering. Prompts are padded on the left.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        width = max(map(len, prompts))
        self._model = model
        self._cache = DynamicCache(config=model.config)
        device = model.device
        self._ids = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
        self._positions = (mask.cumsum(1) - 1).clamp(min=0)
        # Without padding no mask is needed, and attention takes its faster path.
        self._mask = None if bool(mask.all()) else mask

    @torch.inference_mode()
    def step(self) -> Tensor:
        """Logits of the next token of every row, float32 (rows, vocabulary)."""
        output = self._model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    @torch.inference_mode()
    def advance(self, tokens: Sequence[int], rows: Sequence[int]) -> None:
        """Go on with these `rows` of the batch, whose next tokens are `tokens`."""
        positions = self._positions[:, -1:] + 1
        if len(rows) < len(positions):
            keep = torch.tensor(rows, device=positions.device, dtype=torch.long)
            positions = positions[keep]
            self._cache.batch_select_indices(keep)
            self._mask = self._mask[keep] if self._mask is not None else None
        self._positions = positions
        self._ids = torch.tensor(tokens, device=positions.device, dtype=torch.long)[:, None]
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)


class _Answer:
    """One row's tokens, text and times while it is made."""

    def __init__(self, tokenizer: Any, sampling: Sampling, prompt_tokens: int) -> None:
        self._detokenizer = Detokenizer(lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)))
        self._sampling = sampling
        self._prompt_tokens = prompt_tokens
        self._random = torch.Generator().manual_seed(sampling.seed)
        self._tokens = 0
        self._first_token_seconds: float | None = None
        self.stopped: StopReason | None = None

    def choose(self, logits: Tensor) -> int:
        """The next token from its logits, float32 (vocabulary,)."""
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        # Less the largest logit: the greedy token stays the most likely one even where the temperature underflows.
        scaled = (logits - logits.max()).cpu() / self._sampling.temperature
        probabilities, order = torch.softmax(scaled, -1).sort(descending=True, stable=True)
        probabilities[probabilities.cumsum(-1) - probabilities >= self._sampling.top_p] = 0
        return int(order[torch.multinomial(probabilities, 1, generator=self._random)])

    def add(self, request: int, token: int, seconds: float, end_tokens: frozenset[int]) -> Chunk:
        """The chunk for the next token, the last one when the token ends the answer.

        Args:
            request: Index of the request that is answered.
            token: The chosen token.
            seconds: Since the start of the stream.
            end_tokens: Tokens that end an answer; they are not counted.
        """
        if self._first_token_seconds is None:
            self._first_token_seconds = seconds
        if token in end_tokens:
            return self._last(request, seconds, "end")
        self._tokens += 1
        text = self._detokenizer.add(token)
        if self._tokens >= self._sampling.max_new_tokens:
            return self._last(request, seconds, "length", text)
        return Chunk(request, text, self._tokens, seconds)

    def cancel(self, request: int, seconds: float) -> Chunk:
        """The last chunk of an answer that the caller stopped."""
        return self._last(request, seconds, "cancelled")

    def _last(self, request: int, seconds: float, reason: StopReason, text: str = "") -> Chunk:
        self.stopped = reason
        stats = Stats(self._prompt_tokens, self._tokens, seconds, self._first_token_seconds, reason)
        return Chunk(request, text + self._detokenizer.flush(), self._tokens, seconds, stats)
