"""A browser tab on the app, and what a user does in it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


class Tab:
    """A browser tab on the app that records requests to other hosts, dialogs and script errors."""

    def __init__(self, browser: Any, address: str) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        self.page = self.context.new_page()
        self.address = address
        self.foreign_requests: list[str] = []
        self.faults: list[str] = []
        self.context.on("request", self._request)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        self.requested = self.running = False
        self.requests = 0
        self.page.on("websocket", self._connected)

    def _connected(self, socket: Any) -> None:
        if "/stream" in socket.url:
            # A new page requests a script run by itself; the end of the last page's run is not received.
            self.requested, self.running = True, False
            socket.on("framesent", self._sent)
            socket.on("framereceived", self._received)

    def _sent(self, frame: Any) -> None:
        if isinstance(frame, bytes) and BackMsg.FromString(frame).WhichOneof("type") == "rerun_script":
            self.requested = True
            self.requests += 1

    def _received(self, frame: Any) -> None:
        kind = ForwardMsg.FromString(frame).WhichOneof("type") if isinstance(frame, bytes) else None
        if kind == "new_session":
            self.requested, self.running = False, True
        elif kind == "script_finished":
            self.running = False

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:", "about:", self.address.replace("http", "ws"))):
            self.foreign_requests.append(request.url)

    def open(self, name: str) -> None:
        """Open a page by its address, which may have query parameters."""
        self.page.goto(f"{self.address}/{'' if name == 'overview' else name}", timeout=120_000)
        self.page.wait_for_selector('[data-testid="stMainBlockContainer"] .sf', timeout=120_000)
        self.settle()

    def settle(self) -> None:
        """Wait until every requested run of the script has finished and the page shows it.

        Twice, because some widgets send their values a moment later.
        """
        deadline = time.monotonic() + 120
        for pause in (100, 150):
            self.page.wait_for_timeout(pause)
            while self.requested or self.running:
                assert time.monotonic() < deadline, "the script does not finish"
                self.page.wait_for_timeout(20)
            self.page.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=60_000)

    def reload(self) -> None:
        """Reload the page. Streamlit mounts it anew when its first run finishes, and popovers close."""
        self.page.reload()
        self.settle()

    def text(self) -> str:
        return str(self.page.inner_text('[data-testid="stMainBlockContainer"]'))

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows `text`."""
        shows = "text => document.querySelector('[data-testid=stMainBlockContainer]')?.innerText.includes(text)"
        self.page.wait_for_function(shows, arg=text, timeout=30_000)

    def type(self, label: str, text: str) -> None:
        box = self.page.get_by_role("textbox", name=label, exact=True)
        box.fill(text)
        box.press("Enter")
        self.settle()

    def click(self, name: str, *, index: int = 0) -> None:
        self.page.get_by_role("button", name=name, exact=True).nth(index).click()
        self.settle()

    def press(self, key: str) -> None:
        """Press a key of a shortcut, with no box in focus, until the page has requested a run of the script.

        The button may be drawn after the text around it, and it hears its key a moment after it is drawn.
        """
        name = {"ArrowLeft": "←"}.get(key, key.upper())
        self.page.locator(f'button:enabled [aria-label="Shortcut {name}"]').first.wait_for()
        self.page.evaluate("document.activeElement?.blur()")
        before = self.requests
        for _ in range(10):
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(500)
            if self.requests > before:
                break
        self.settle()

    def conversation(self) -> str:
        """The id of the conversation that the page shows, from its address."""
        return parse_qs(urlsplit(self.page.url).query)["chat"][0]

    def assert_clean(self) -> None:
        """Check that no foreign script ran, no other host was contacted, and no error occurred."""
        assert self.page.evaluate("window.pwned") is None
        assert self.foreign_requests == []
        assert self.faults == []
        assert self.page.locator('[data-testid="stException"]').count() == 0

    def send_prompt(self, text: str) -> None:
        """Send a prompt in Chat."""
        box = self.page.get_by_test_id("stChatInputTextArea")
        box.fill(text)
        box.press("Enter")
