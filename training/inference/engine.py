"""Inference: one small interface that streams tokens for several arms at the same time.

An engine has arms by name; a fingerprint identifies the weights that answer. Three implement the interface:
`transformers_engine`, `llamacpp_engine` and `openai_engine` (any OpenAI-compatible server); `factory` opens them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from siftune.curation.errors import UserError, did_you_mean

#: The engines by name; `factory.ENGINES` opens each.
EngineKind = Literal["transformers", "llama.cpp", "openai"]
#: Why an answer ended: an end token, its greatest length, or the caller's stop event.
StopReason = Literal["end", "length", "cancelled"]

#: The fixed question of fingerprints. Long enough that two adapters of one base give other logits.
PROBE = "In one sentence, what is the difference between a list and a tuple?"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the model's probabilities.

    Raises:
        UserError: a value is out of range.
    """

    #: Logits are divided by it; 0 takes the most likely token (greedy decoding).
    temperature: float = 0.0
    #: Only the most likely tokens are sampled, up to this sum of probabilities (nucleus sampling, arXiv 1904.09751).
    top_p: float = 1.0
    #: An answer ends after this many tokens.
    max_new_tokens: int = 200
    #: Seed of this request's random numbers.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise UserError(
                f"Sampling takes temperature ≥ 0, 0 < top-p ≤ 1 and at least one token; found temperature "
                f"{self.temperature}, top-p {self.top_p}, {self.max_new_tokens} tokens."
            )


@dataclass(frozen=True)
class Request:
    """A conversation that an arm is to continue."""

    arm: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Stats:
    """What an answer cost. Times count from the start of the stream; requests of one stream share the machine."""

    prompt_tokens: int
    #: Tokens of the answer, without its end token.
    tokens: int
    seconds: float
    #: None when nothing was answered.
    first_token_seconds: float | None
    stopped: StopReason

    @property
    def tokens_per_second(self) -> float:
        """Tokens over all seconds, those that the prompt took included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Chunk:
    """A part of the answer to one request of a stream."""

    #: Index of the request in the call of `stream`.
    request: int
    text: str
    #: Tokens and seconds of the answer so far.
    tokens: int
    seconds: float
    #: Carried by the last chunk of a request.
    stats: Stats | None = None


@dataclass(frozen=True)
class Fingerprint:
    """Which weights answer: the sha256 of the adapter or model file, and the sha256 of the logits after PROBE.

    The logits are those of this machine, these versions and this number of threads.
    """

    weights: str
    logits: str

    def __str__(self) -> str:
        return f"{self.weights[:12]}/{self.logits[:12]}"


class Engine(Protocol):
    """Streams answers of its arms. Requests of one call are answered at the same time; calls wait for one another."""

    @property
    def kind(self) -> EngineKind:
        """The engine's name."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms it answers for."""

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """Chunks of all requests as they come; every request ends with a chunk that carries `stats`.

        Args:
            requests: Conversations to continue, each by an arm.
            stop: After it is set at most one more token of each request is computed.

        Raises:
            UserError: an arm is unknown, or the engine cannot answer a request.
        """

    def fingerprint(self, arm: str) -> Fingerprint:
        """The fingerprint of the weights that answer for `arm`."""

    def close(self) -> None:
        """Give the memory back."""


def refuse_unknown_arms(requests: Sequence[Request], arms: Sequence[str]) -> None:
    """Raise `UserError` for a request to an arm that the engine does not answer for."""
    for request in requests:
        if request.arm not in arms:
            raise UserError(
                f"This engine has no arm {request.arm!r}.{did_you_mean(request.arm, arms)} Arms: {', '.join(arms)}."
            )


def refuse_equal_weights(fingerprints: dict[str, Fingerprint]) -> None:
    """Raise `UserError` when two arms would answer with the same weights: then a comparison shows nothing."""
    arm_by_hash: dict[str, str] = {}
    for arm, fingerprint in fingerprints.items():
        hashes = {"the same weights": fingerprint.weights, "weights with the same logits": fingerprint.logits}
        for what, hash_ in hashes.items():
            other = arm_by_hash.setdefault(hash_, arm)
            if other != arm:
                raise UserError(
                    f"The arms {other} and {arm} answer with {what}, so comparing them is meaningless. They were "
                    "trained on the same rows, as a budget of a few steps can buy: raise training.budget, or leave one "
                    "of them out."
                )
