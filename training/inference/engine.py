"""Inference: one small interface that streams tokens for several arms at the same time.

`local` runs transformers, `gguf` llama.cpp, `endpoint` any OpenAI-compatible server. An engine knows its arms by name,
and says by fingerprint which weights answered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from siftune.curation.errors import UserError, did_you_mean

Kind = Literal["transformers", "llama.cpp", "openai"]
Stopped = Literal["end", "length", "cancelled"]

#: What every engine asks to tell weights apart. Long enough that two adapters of one base give other logits.
PROBE = "In one sentence, what is the difference between a list and a tuple?"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_p` keeps the most likely tokens up to that probability."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise UserError(
                f"Sampling takes temperature ≥ 0, 0 < top-p ≤ 1 and at least one token; found temperature "
                f"{self.temperature}, top-p {self.top_p}, {self.max_new_tokens} tokens."
            )


@dataclass(frozen=True)
class Request:
    """One arm is asked to continue a conversation."""

    arm: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Stats:
    """What an answer cost. Times count from the start of the stream, in seconds; arms asked together share the machine.

    `first_token_seconds` is None when nothing was answered.
    """

    prompt_tokens: int
    tokens: int
    seconds: float
    first_token_seconds: float | None
    stopped: Stopped

    @property
    def tokens_per_second(self) -> float:
        """Tokens over all seconds, the prompt's reading included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Chunk:
    """A piece of the answer to `requests[request]`; `tokens` and `seconds` so far; the last one carries `stats`."""

    request: int
    text: str
    tokens: int
    seconds: float
    stats: Stats | None = None


@dataclass(frozen=True)
class Fingerprint:
    """Which weights answer: a hash of the adapter (or model file), and one of the logits on a fixed probe.

    The logits are those of this machine, these versions and this number of threads.
    """

    weights: str
    logits: str

    def __str__(self) -> str:
        return f"{self.weights[:12]}/{self.logits[:12]}"


class Engine(Protocol):
    """Streams answers of its arms. Requests of one call run at the same time; calls take turns."""

    @property
    def kind(self) -> Kind:
        """What computes."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The names it answers to."""

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """Chunks of all requests as they come; every request ends with a chunk that carries `stats`.

        After `stop` is set at most one more token of each request is computed.
        """

    def fingerprint(self, arm: str) -> Fingerprint:
        """Proof of the weights that answer for `arm`."""

    def close(self) -> None:
        """Give the memory back."""


def refuse_unknown_arms(requests: Sequence[Request], arms: Sequence[str]) -> None:
    """Raise `UserError` for a request to an arm the engine does not hold."""
    for request in requests:
        if request.arm not in arms:
            raise UserError(
                f"There is no arm {request.arm!r} here.{did_you_mean(request.arm, arms)} Arms: {', '.join(arms)}."
            )


def refuse_equal_weights(fingerprints: dict[str, Fingerprint]) -> None:
    """Raise `UserError` when two arms would answer with the same weights: then a comparison compares nothing."""
    seen: dict[str, str] = {}
    for arm, print_ in fingerprints.items():
        for mark, what in ((print_.weights, "the same weights"), (print_.logits, "weights with the same logits")):
            if mark in seen and seen[mark] != arm:
                raise UserError(
                    f"The arms {seen[mark]} and {arm} answer with {what}, so comparing them shows nothing. Train them "
                    "on different rows, or leave one out; if this is meant, say so with same_weights=True."
                )
            seen[mark] = arm
