"""The app's server on a free port, and a browser to look at it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siftune.app.web.launch import server

#: Chromium in a container, asking nothing of the network by itself.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


def chromium() -> str | None:
    """A Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def serving(run: Path, *, started_in: Path | None = None) -> Iterator[tuple[str, int]]:
    """The app on a free port of this machine, started in a folder; yields its address and the server's process id."""
    port = free_port()
    command, environment = server(run, port=port, headless=True)
    with answering(command, port=port, environment=environment, started_in=started_in) as served:
        yield served


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def answering(
    command: list[str], *, port: int, environment: dict[str, str] | None = None, started_in: Path | None = None
) -> Iterator[tuple[str, int]]:
    """A server of Streamlit, from when it answers on; yields its address and process id."""
    process = subprocess.Popen(command, env=environment, cwd=started_in, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(480):
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.25)
        else:
            return
    raise TimeoutError(f"no server at {address}")
