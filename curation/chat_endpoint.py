"""A model behind an OpenAI-compatible server that is asked single questions.

Nothing is followed or guessed: a redirect, an unexpected status and a damaged reply are errors, so that neither the
texts nor the key go anywhere but to the address in the recipe.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from siftune.curation.answer_cache import AnswerCache
from siftune.curation.errors import UserError
from siftune.curation.progress import Progress

_REQUESTS = 4
#: Seconds before the second and the third attempt, where the server says that it is busy or fails for a moment.
_PAUSES = (0.5, 2.0)
_BUSY = {408, 429, 500, 502, 503, 504}
_LONGEST_REPLY = 1 << 20
#: Room for the thoughts of models that think before they answer.
_ANSWER_TOKENS = 1024


class ChatEndpoint:
    """Asks a server's model; answers come from the cache where they are there.

    Args:
        url: The address that ends where `/chat/completions` begins.
        model: The model's name on the server.
        setting: The section of the recipe that names the server, for messages.
        key_variable: The environment variable that holds the key; None sends none.
        timeout: Seconds to wait for a connection and for each part of a reply; a whole reply may take twice as long.
        cache: Where answers are kept.

    Raises:
        UserError: the environment variable is not set.
    """

    def __init__(
        self, url: str, model: str, *, setting: str, key_variable: str | None, timeout: float, cache: AnswerCache
    ) -> None:
        self._url, self._model, self._setting = url.rstrip("/"), model, setting
        self._timeout, self._cache = timeout, cache
        self._key = os.environ.get(key_variable, "") if key_variable else ""
        if key_variable and not self._key:
            raise UserError(
                f"{setting} reads its key from the environment variable {key_variable}, which is not set. "
                "Set it, or leave out `key_variable` where the server needs no key."
            )

    def ask(self, prompts: Sequence[str], progress: Progress | None, *, label: str) -> list[str]:
        """The answer to each prompt; equal prompts are asked once. What was answered before a fault is kept.

        Args:
            prompts: each is a conversation of its own.
            progress: called with `label` after each answer.
            label: what the questions are for.

        Raises:
            UserError: the server cannot be used.
        """
        distinct = list(dict.fromkeys(prompts))
        answers: dict[str, str] = {}
        with ThreadPoolExecutor(_REQUESTS) as pool:
            waiting = {pool.submit(self._answer, prompt): prompt for prompt in distinct}
            try:
                for done, future in enumerate(as_completed(waiting), start=1):
                    answers[waiting[future]] = future.result()
                    if progress is not None:
                        progress(label, done, len(distinct))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return [answers[prompt] for prompt in prompts]

    def _answer(self, prompt: str) -> str:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": _ANSWER_TOKENS,
        }
        question = {"url": self._url, **body}
        answer = self._cache.get(question)
        if answer is None:
            answer = self._ask(body)
            self._cache.put(question, answer)
        return answer

    def _ask(self, body: dict[str, Any]) -> str:
        for pause in (*_PAUSES, None):
            status, reply = self._post(body)
            if status == http.client.OK:
                return self._content(reply)
            if status not in _BUSY or pause is None:
                break
            time.sleep(pause)
        if 300 <= status < 400:
            raise self._fault(f"answered {status}, a redirect: give the address that it leads to", mend="")
        raise self._fault(f"answered {status} for the model {self._model!r}: {reply[:200].strip()}")

    def _post(self, body: dict[str, Any]) -> tuple[int, str]:
        address = urlsplit(self._url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection = kind(address.hostname or "", address.port, timeout=self._timeout)
        expired = threading.Event()
        try:
            connection.connect()
            # A server that sends a byte now and then never reaches the timeout of the socket.
            with _deadline(connection.sock, 2 * self._timeout, expired):
                connection.request("POST", f"{address.path}/chat/completions", json.dumps(body), headers)
                response = connection.getresponse()
                reply = response.read(_LONGEST_REPLY).decode("utf-8", errors="replace")
            if not expired.is_set():
                return response.status, reply
        except TimeoutError:
            expired.set()
        except (OSError, http.client.HTTPException) as fault:
            if not expired.is_set():
                raise self._fault(f"cannot be reached or disconnected ({fault or type(fault).__name__})") from None
        finally:
            connection.close()
        raise self._fault(f"did not answer within {self._timeout:g} seconds")

    def _content(self, reply: str) -> str:
        try:
            content = json.loads(reply)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            raise self._fault(f"gave a reply that holds no answer: {reply[:200].strip()!r}")
        return content

    def _fault(self, what: str, mend: str = " Is the server running, and is the address right?") -> UserError:
        message = f"The server of {self._setting}, {self._url}, {what}.{mend} Answers so far are kept: run again."
        return UserError(message.replace(self._key, "(key)") if self._key else message)


@contextmanager
def _deadline(connection: socket.socket, seconds: float, expired: threading.Event) -> Iterator[None]:
    """Cut a connection that is still in use after so many seconds, and set `expired`."""

    def cut() -> None:
        expired.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
