"""A browser tab on the app, and what a user does in it."""

from __future__ import annotations

import time
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


class Tab:
    """A browser tab on the app that notes every request, dialog and script error."""

    def __init__(self, browser: Any, address: str) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        self.page = self.context.new_page()
        self.address = address
        self.outside: list[str] = []
        self.trouble: list[str] = []
        self.context.on("request", self._request)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.trouble.append(dialog.message), dialog.dismiss()))
        self.asked = self.runs = False
        self.page.on("websocket", self._connected)

    def _connected(self, socket: Any) -> None:
        if "/stream" in socket.url:
            # A new page asks for a run by itself; the run of the page before it ends unheard.
            self.asked, self.runs = True, False
            socket.on("framesent", self._sent)
            socket.on("framereceived", self._received)

    def _sent(self, frame: Any) -> None:
        if isinstance(frame, bytes) and BackMsg.FromString(frame).WhichOneof("type") == "rerun_script":
            self.asked = True

    def _received(self, frame: Any) -> None:
        told = ForwardMsg.FromString(frame).WhichOneof("type") if isinstance(frame, bytes) else None
        if told == "new_session":
            self.asked, self.runs = False, True
        elif told == "script_finished":
            self.runs = False

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:", "about:", self.address.replace("http", "ws"))):
            self.outside.append(request.url)

    def open(self, name: str) -> None:
        self.page.goto(f"{self.address}/{'' if name == 'overview' else name}")
        self.page.wait_for_selector('[data-testid="stMainBlockContainer"] .sf', timeout=60_000)
        self.settle()

    def settle(self) -> None:
        """Wait until every run of the script that was asked for has ended, and the page shows it.

        Twice: some widgets send what they were told a moment later.
        """
        latest = time.monotonic() + 60
        for pause in (100, 150):
            self.page.wait_for_timeout(pause)
            while self.asked or self.runs:
                assert time.monotonic() < latest, "the script runs on and on"
                self.page.wait_for_timeout(20)
            self.page.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=60_000)

    def reload(self) -> None:
        """Streamlit mounts the page anew when its first run ends: what was opened before is closed again."""
        self.page.reload()
        self.settle()

    def text(self) -> str:
        return str(self.page.inner_text('[data-testid="stMainBlockContainer"]'))

    def holds(self, text: str) -> None:
        """Wait until the page shows `text`."""
        wanted = "wanted => document.querySelector('[data-testid=stMainBlockContainer]')?.innerText.includes(wanted)"
        self.page.wait_for_function(wanted, arg=text, timeout=30_000)

    def type(self, label: str, text: str) -> None:
        box = self.page.get_by_role("textbox", name=label, exact=True)
        box.fill(text)
        box.press("Enter")
        self.settle()

    def click(self, name: str, *, place: int = 0) -> None:
        self.page.get_by_role("button", name=name, exact=True).nth(place).click()
        self.settle()

    def clean(self) -> None:
        """Nothing ran, nothing was asked of another host, nothing broke."""
        assert self.page.evaluate("window.pwned") is None
        assert self.outside == []
        assert self.trouble == []
        assert self.page.locator('[data-testid="stException"]').count() == 0

    def say(self, text: str) -> None:
        """Send a prompt in Chat."""
        box = self.page.get_by_test_id("stChatInputTextArea")
        box.fill(text)
        box.press("Enter")
