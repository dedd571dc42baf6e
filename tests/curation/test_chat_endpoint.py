"""Servers that redirect, stall, drip, send without end or lie about lengths: one sentence, without the key."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from siftune.curation.answer_cache import AnswerCache
from siftune.curation.chat_endpoint import ChatEndpoint
from siftune.curation.errors import UserError

KEY = "sk-secret-of-the-user"
GOOD = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()
Send = Callable[[socket.socket], object]


def whole_request(connection: socket.socket) -> bytes:
    """Head and body; a server that closes with unread bytes resets the connection."""
    request = b""
    while b"\r\n\r\n" not in request and (part := connection.recv(65536)):
        request += part
    head, _, body = request.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (part := connection.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


@contextmanager
def server(send: Send) -> Iterator[tuple[str, list[bytes]]]:
    """A server on this machine that does `send` with every connection; yields its address and what it was sent."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    requests.append(whole_request(connection))
                    try:
                        send(connection)
                    except OSError:  # the client left
                        continue

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n" + b" " * 100)


def reply(*, length: object, body: bytes = GOOD, status: str = "200 OK", head: str = "") -> Send:
    text = f"HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\n\r\n".encode()
    return lambda connection: connection.sendall(text + body)


FAULTS: dict[str, tuple[Send, str]] = {
    "drips": (drip, "did not answer within"),
    "drips headers": (drip_headers, "did not answer within"),
    "stalls": (lambda connection: time.sleep(1.5), "did not answer within"),
    "has no end": (flood, "holds no answer"),
    "lies about a chunk": (chunks, "did not answer within|disconnected"),
    "says too little": (reply(length=10), "holds no answer"),
    "sends too little": (reply(length=10_000, body=GOOD[:20]), "holds no answer|disconnected"),
    "redirects": (
        reply(length=0, body=b"", status="307 Moved", head="Location: http://127.0.0.1:9/\r\n"),
        "a redirect",
    ),
    "is no server": (lambda connection: connection.sendall(b"SSH-2.0-x\r\n"), "disconnected"),
    "hangs up": (lambda connection: None, "disconnected"),
    "packs a bomb": (reply(length=4, body=b"\x1f\x8b\x08\x00", head="Content-Encoding: gzip\r\n"), "holds no answer"),
    "repeats the key": (reply(length=60, body=KEY.encode() * 3, status="401 No"), r"\(key\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hostile_server_is_one_sentence(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    send, sentence = FAULTS[fault]
    with server(send) as (url, requests):
        endpoint = ChatEndpoint(
            url, "m", setting="the judge", key_variable="JUDGE_KEY", timeout=0.3, cache=AnswerCache(tmp_path)
        )
        with pytest.raises(UserError, match=sentence) as caught:
            endpoint.ask(["a question"], None, label="asking")
    assert KEY not in str(caught.value)
    assert len(requests) == 1
    assert len(str(caught.value)) < 600
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("length", [len(GOOD), "none"])
def test_an_honest_server_is_heard(length: object, tmp_path: Path) -> None:
    with server(reply(length=length)) as (url, _):
        endpoint = ChatEndpoint(url, "m", setting="s", key_variable=None, timeout=5, cache=AnswerCache(tmp_path))
        assert endpoint.ask(["q"], None, label="") == ["yes"]
        (stored,) = tmp_path.rglob("*.json")
        stored.write_text(stored.read_text().replace('"yes"', '"Yes"'))
        assert endpoint.ask(["q"], None, label="") == ["yes"]
