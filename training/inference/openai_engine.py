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

#: Seconds between two looks at the stop event while a server is silent.
_POLL_SECONDS = 0.05
#: Longest line of a stream, in bytes.
_LONGEST_LINE = 1 << 20
#: Characters that an answer may have for each of its tokens, which have four on average, and beside them.
_CHARACTERS, _MORE_CHARACTERS = 100, 10_000


@dataclass(frozen=True)
class ServedModel:
    """A model behind a server: `url` ends where `/chat/completions` begins, e.g. `http://127.0.0.1:8000/v1`."""

    url: str
    model: str


@dataclass(frozen=True)
class _StreamEvent:
    """What a reader thread received: text, the end of an answer with the server's counts, or an error."""

    request: int
    text: str = ""
    end: StopReason | None = None
    fault: UserError | None = None
    answer_tokens: int | None = None
    prompt_tokens: int = 0


class OpenAIEngine:
    """Answers for served models (arm → `ServedModel`). Requests go to their servers at the same time, a thread each.

    A server does not show its weights: a fingerprint holds the hash of the model's address and name, and the hash of
    its greedy answer to PROBE. Tokens are what the server counts, else the number of text events.

    Args:
        models: The served model of each arm.
        api_key: Sent as a bearer token when given.
        timeout: Seconds to wait for a connection, and for each next part of an answer.
        same_weights: Allow two arms with the same served model.

    Raises:
        UserError: an address is not an http(s) address, or two arms are the same served model.
    """

    kind: EngineKind = "openai"

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        same_weights: bool = False,
    ) -> None:
        for served in models.values():
            address = urlsplit(served.url)
            if address.scheme not in {"http", "https"} or not address.hostname:
                raise UserError(
                    f"A server is given by an http(s) address such as http://127.0.0.1:8000/v1; found {served.url!r}."
                )
        self.arms = tuple(models)
        self._models = dict(models)
        self._key = api_key
        self._timeout = timeout
        self._fingerprints: dict[str, Fingerprint] = {}
        if not same_weights:
            names = {arm: f"{served.url} {served.model}" for arm, served in models.items()}
            refuse_equal_weights({arm: Fingerprint(name, f"not asked: {name}") for arm, name in names.items()})

    def fingerprint(self, arm: str) -> Fingerprint:
        """The hash of address and model name, and the hash of the greedy answer to PROBE. Asks the server once."""
        if arm not in self._fingerprints:
            request = Request(arm, (Message("user", PROBE),), Sampling(max_new_tokens=24))
            text = "".join(chunk.text for chunk in self.stream([request]))
            served = self._models[arm]
            weights = hashlib.sha256(f"{served.url} {served.model}".encode()).hexdigest()
            self._fingerprints[arm] = Fingerprint(weights, hashlib.sha256(text.encode()).hexdigest())
        return self._fingerprints[arm]

    def close(self) -> None:
        """Nothing is held open between calls."""

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """See `Engine.stream`. Raises `UserError` when a server cannot be reached, refuses, or disconnects."""
        refuse_unknown_arms(requests, self.arms)
        stop = stop or threading.Event()
        events: queue.Queue[_StreamEvent] = queue.Queue()
        start = time.perf_counter()
        calls = [_Call(self._models[request.arm], self._key, self._timeout) for request in requests]
        for index, (call, request) in enumerate(zip(calls, requests, strict=True)):
            threading.Thread(target=call.read, args=(index, request, events), daemon=True).start()
        try:
            yield from _merge(events, len(requests), start, stop, patience=2 * self._timeout)
        finally:
            for call in calls:
                call.close()


def _merge(
    events: queue.Queue[_StreamEvent], request_count: int, start: float, stop: threading.Event, *, patience: float
) -> Iterator[Chunk]:
    """Chunks of all requests in the order in which their servers answer.

    Args:
        events: What the servers say.
        request_count: How many requests there are.
        start: When they were sent.
        stop: Ends the answers.
        patience: Seconds without a part of an answer: a server that sends something else now and then is not silent.

    Raises:
        UserError: a server did something wrong, or patience is over.
    """
    tokens = [0] * request_count
    first_seconds: list[float | None] = [None] * request_count
    unfinished = set(range(request_count))
    waited = 0.0  # for the next event
    while unfinished and not stop.is_set():
        try:
            event = events.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            waited += _POLL_SECONDS
            if waited > patience:
                raise UserError(
                    f"A server sent no part of an answer for {patience:g} seconds. Look at its log, or use another one."
                ) from None
            continue
        waited = 0.0
        seconds, index = time.perf_counter() - start, event.request
        if event.fault is not None:
            raise event.fault
        if event.end is not None:
            unfinished.discard(index)
            total = tokens[index] if event.answer_tokens is None else event.answer_tokens
            stats = Stats(event.prompt_tokens, total, seconds, first_seconds[index], event.end)
            yield Chunk(index, "", total, seconds, stats)
        elif event.text:
            tokens[index] += 1
            first_seconds[index] = seconds if first_seconds[index] is None else first_seconds[index]
            yield Chunk(index, event.text, tokens[index], seconds)
    for index in sorted(unfinished):
        seconds = time.perf_counter() - start
        stats = Stats(0, tokens[index], seconds, first_seconds[index], "cancelled")
        yield Chunk(index, "", tokens[index], seconds, stats)


class _Call:
    """One request to a server, read in a thread of its own until it ends or is closed."""

    def __init__(self, served: ServedModel, key: str | None, timeout: float) -> None:
        address = urlsplit(served.url)
        connection = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        assert address.hostname is not None
        self._connection = connection(address.hostname, address.port, timeout=timeout)
        self._path = address.path.rstrip("/") + "/chat/completions"
        self._served, self._key = served, key
        self._socket: socket.socket | None = None
        self._closed = False

    def close(self) -> None:
        """Break the connection: a reader that waits for the next event wakes up and ends."""
        self._closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def read(self, index: int, request: Request, events: queue.Queue[_StreamEvent]) -> None:
        """Put the events of request number `index` on `events`; the last one is an end or a fault."""
        try:
            for event in self._answer(index, request):
                events.put(event)
        except UserError as fault:
            events.put(_StreamEvent(index, fault=fault))
        except (AttributeError, TypeError):
            message = f"{self._served.url} sent an event that is no part of a chat completion. Is the address right?"
            events.put(_StreamEvent(index, fault=UserError(message)))
        except (OSError, http.client.HTTPException, ValueError) as fault:
            if not self._closed:
                message = f"{self._served.url} cannot be reached or disconnected: {fault}. Is the server running?"
                events.put(_StreamEvent(index, fault=UserError(message)))
        finally:
            self._connection.close()

    def _answer(self, index: int, request: Request) -> Iterator[_StreamEvent]:
        response = self._post(request)
        end: StopReason | None = None
        answer_tokens: int | None = None
        prompt_tokens = characters = 0
        most = _MORE_CHARACTERS + _CHARACTERS * request.sampling.max_new_tokens
        for document in _documents(response):
            if "error" in document:
                raise UserError(f"{self._served.url} answered with an error: {self._quoted(str(document['error']))}")
            usage = document.get("usage") or {}
            answer_tokens = usage.get("completion_tokens", answer_tokens)
            prompt_tokens = usage.get("prompt_tokens", prompt_tokens)
            for choice in document.get("choices", [])[:1]:
                if text := (choice.get("delta") or {}).get("content"):
                    characters += len(str(text))
                    if characters > most:
                        raise UserError(
                            f"{self._served.url} does not end an answer of {request.sampling.max_new_tokens} tokens: "
                            f"it has sent {characters:,} characters. Use a server that keeps to max_tokens."
                        )
                    yield _StreamEvent(index, text=str(text))
                if reason := choice.get("finish_reason"):
                    end = "length" if reason == "length" else "end"
        if end is None:
            raise UserError(f"{self._served.url} closed the stream in the middle of an answer.")
        yield _StreamEvent(index, end=end, answer_tokens=answer_tokens, prompt_tokens=prompt_tokens)

    def _post(self, request: Request) -> http.client.HTTPResponse:
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
            reply = response.read(2000).decode("utf-8", errors="replace")
            raise UserError(
                f"{self._served.url} answered {response.status} for the model {self._served.model!r}: "
                f"{self._quoted(reply)}"
            )
        return response

    def _quoted(self, reply: str) -> str:
        """What a server says, in one line and without the key, which a server may repeat."""
        line = " ".join(reply.split())
        return (line.replace(self._key, "(key)") if self._key else line)[:300]


def _documents(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """JSON documents of a stream of server-sent events, up to `[DONE]` or the end."""
    while line := response.readline(_LONGEST_LINE):
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or not data:
            continue
        if data == b"[DONE]":
            return
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("an event is not a JSON object")  # noqa: TRY004 - reported to the user like broken JSON
        yield document
