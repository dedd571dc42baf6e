"""A browser tab on the app, and what a user does in it."""

from __future__ import annotations

from typing import Any


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

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:", "about:", self.address.replace("http", "ws"))):
            self.outside.append(request.url)

    def open(self, name: str) -> None:
        self.page.goto(f"{self.address}/{'' if name == 'overview' else name}")
        self.page.wait_for_selector('[data-testid="stMainBlockContainer"] .sf', timeout=60_000)
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run to its end."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_selector('.stApp[data-test-script-state="notRunning"]', timeout=60_000)
        self.page.wait_for_timeout(150)

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
