"""Any OpenAI-compatible server: vLLM with LoRA modules, llama-server, Ollama. Streams by server-sent events."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from siftune.curation.errors import UserError
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

_TICK = 0.05  # seconds between two looks at the stop event while a server is silent
_MOST_LINE = 1 << 20


@dataclass(frozen=True)
class ServedModel:
    """A model behind a server: `url` ends where `/chat/completions` begins, e.g. `http://127.0.0.1:8000/v1`."""

    url: str
    model: str


@dataclass(frozen=True)
class _Piece:
    """What a reader thread found: text, the end, or what went wrong."""

    request: int
    text: str = ""
    end: Stopped | None = None
    fault: UserError | None = None
    counted: int | None = None
    prompt_tokens: int = 0


class OpenAIEngine:
    """Answers for served models (arm → `ServedModel`). Requests go to their servers at the same time, a thread each.

    A server does not show its weights: a fingerprint holds the name of the model and a hash of its greedy answer to a
    fixed probe. Tokens are what the server counts, else the number of pieces.
    """

    kind: Kind = "openai"

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        same_weights: bool = False,
    ) -> None:
        for served in models.values():
            parts = urlsplit(served.url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise UserError(
                    f"An endpoint is an http(s) address such as http://127.0.0.1:8000/v1; got {served.url!r}."
                )
        self.arms = tuple(models)
        self._models = dict(models)
        self._key = api_key
        self._timeout = timeout
        self._prints: dict[str, Fingerprint] = {}
        if not same_weights:
            names = {arm: f"{served.url} {served.model}" for arm, served in models.items()}
            refuse_equal_weights({arm: Fingerprint(name, f"not asked: {name}") for arm, name in names.items()})

    def fingerprint(self, arm: str) -> Fingerprint:
        """Address and model name hashed, and the hash of the greedy answer to a probe. Asks the server once."""
        if arm not in self._prints:
            asked = Request(arm, (Message("user", PROBE),), Sampling(max_new_tokens=24))
            text = "".join(chunk.text for chunk in self.stream([asked]))
            served = self._models[arm]
            weights = hashlib.sha256(f"{served.url} {served.model}".encode()).hexdigest()
            self._prints[arm] = Fingerprint(weights, hashlib.sha256(text.encode()).hexdigest())
        return self._prints[arm]

    def close(self) -> None:
        """Nothing is held open between calls."""

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """See `Engine.stream`. Raises `UserError` when a server cannot be reached, refuses, or breaks off."""
        refuse_unknown_arms(requests, self.arms)
        stop = stop or threading.Event()
        found: queue.Queue[_Piece] = queue.Queue()
        start = time.perf_counter()
        calls = [_Call(self._models[request.arm], self._key, self._timeout) for request in requests]
        for place, (call, request) in enumerate(zip(calls, requests, strict=True)):
            threading.Thread(target=call.read, args=(place, request, found), daemon=True).start()
        try:
            yield from _merge(found, len(requests), start, stop)
        finally:
            for call in calls:
                call.close()


def _merge(found: queue.Queue[_Piece], count: int, start: float, stop: threading.Event) -> Iterator[Chunk]:
    tokens, first = [0] * count, [None] * count  # type: tuple[list[int], list[float | None]]
    open_ = set(range(count))
    while open_ and not stop.is_set():
        try:
            piece = found.get(timeout=_TICK)
        except queue.Empty:
            continue
        now, place = time.perf_counter() - start, piece.request
        if piece.fault is not None:
            raise piece.fault
        if piece.end is not None:
            open_.discard(place)
            total = tokens[place] if piece.counted is None else piece.counted
            yield Chunk(place, "", total, now, Stats(piece.prompt_tokens, total, now, first[place], piece.end))
        elif piece.text:
            tokens[place] += 1
            first[place] = now if first[place] is None else first[place]
            yield Chunk(place, piece.text, tokens[place], now)
    for place in sorted(open_):
        now = time.perf_counter() - start
        yield Chunk(place, "", tokens[place], now, Stats(0, tokens[place], now, first[place], "cancelled"))


class _Call:
    """One request to a server, read in a thread of its own until it ends or is closed."""

    def __init__(self, served: ServedModel, key: str | None, timeout: float) -> None:
        parts = urlsplit(served.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        assert parts.hostname is not None
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._path = parts.path.rstrip("/") + "/chat/completions"
        self._served, self._key = served, key
        self._socket: socket.socket | None = None
        self._closed = False

    def close(self) -> None:
        """Break the connection: a reader that waits for the next piece wakes up and ends."""
        self._closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def read(self, place: int, request: Request, found: queue.Queue[_Piece]) -> None:
        """Put pieces on `found`; the last one is an end or a fault."""
        try:
            for piece in self._pieces(place, request):
                found.put(piece)
        except UserError as fault:
            found.put(_Piece(place, fault=fault))
        except (OSError, http.client.HTTPException, ValueError) as fault:
            if not self._closed:
                said = f"{self._served.url} broke off or cannot be reached: {fault}. Is the server running?"
                found.put(_Piece(place, fault=UserError(said)))
        finally:
            self._connection.close()

    def _pieces(self, place: int, request: Request) -> Iterator[_Piece]:
        response = self._ask(request)
        end: Stopped | None = None
        counted: int | None = None
        prompt_tokens = 0
        for event in _events(response):
            if "error" in event:
                raise UserError(f"{self._served.url} answered with an error: {str(event['error'])[:300]}")
            usage = event.get("usage") or {}
            counted = usage.get("completion_tokens", counted)
            prompt_tokens = usage.get("prompt_tokens", prompt_tokens)
            for choice in event.get("choices", [])[:1]:
                if text := (choice.get("delta") or {}).get("content"):
                    yield _Piece(place, text=str(text))
                if reason := choice.get("finish_reason"):
                    end = "length" if reason == "length" else "end"
        if end is None:
            raise UserError(f"{self._served.url} closed the stream in the middle of an answer.")
        yield _Piece(place, end=end, counted=counted, prompt_tokens=prompt_tokens)

    def _ask(self, request: Request) -> http.client.HTTPResponse:
        sampling = request.sampling
        body = {
            "model": self._served.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": sampling.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._connection.request("POST", self._path, json.dumps(body), headers)
        # Kept here: the connection lets go of its socket once the response streams.
        self._socket = self._connection.sock
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            said = response.read(2000).decode("utf-8", errors="replace")
            raise UserError(
                f"{self._served.url} answered {response.status} for the model {self._served.model!r}: {said[:300]}"
            )
        return response


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """JSON documents of a stream of server-sent events, up to `[DONE]` or the end."""
    while line := response.readline(_MOST_LINE):
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or not data:
            continue
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if not isinstance(event, dict):
            raise ValueError("an event is not a JSON object")  # noqa: TRY004 - told to the user like broken JSON
        yield event
