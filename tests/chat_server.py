"""A real OpenAI-compatible server on this machine. It answers by a rule: whether two texts share most words, or which
of two answers to a prompt has more of the words "good"."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def same(first: str, second: str, share: float) -> bool:
    """A share of the words of the first text is in the second: not the same the other way round."""
    one, other = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(one & other) >= share * len(one)


def better(first: str, second: str) -> str:
    """More of the words "good" win. An answer with "biased" shows the bias of judges: the first is preferred."""
    if "biased" in first + second:
        return "first"
    counts = first.count("good"), second.count("good")
    return "tie" if counts[0] == counts[1] else "First." if counts[0] > counts[1] else "second"


class ChatServer(ThreadingHTTPServer):
    """Keeps what it was sent. `faults` are the statuses of the next replies; `stall` makes them wait, and
    `share` is that of the words that makes two texts the same."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.faults: list[int] = []
        self.own_faults: list[BaseException | None] = []
        self.stall = 0.0
        self.share = 0.6
        self.phrase = "{}"
        self.reply: bytes | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left before the reply is no news; anything else is a fault of this server."""
        fault = sys.exc_info()[1]
        if not isinstance(fault, ConnectionError):
            self.own_faults.append(fault)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **body})
        self.server.authorizations.append(self.headers["Authorization"])
        time.sleep(self.server.stall)
        if self.server.faults:
            status = self.server.faults.pop(0)
            self.answer(status, f"no luck with {self.headers['Authorization']}".encode())
            return
        question = body["messages"][0]["content"]
        first, second = re.search(r"<<<first\n(.*)\nfirst>>>.*<<<second\n(.*)\nsecond>>>", question, re.DOTALL).groups()
        is_same = same(first, second, self.server.share)
        content = self.server.phrase.format(better(first, second) if "<<<prompt" in question else is_same)
        reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        self.answer(200, self.server.reply or reply)

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        assert not server.own_faults
