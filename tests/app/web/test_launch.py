"""How the server is started."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

from siftune.app.web import launch
from siftune.curation.errors import UserError


def flags(command: list[str]) -> dict[str, str]:
    return dict(word[2:].split("=", 1) for word in command if word.startswith("--"))


def test_the_server_is_for_this_machine_and_sends_no_statistics(plain_world: Path) -> None:
    command, environment = launch.server(plain_world)
    options = flags(command)
    assert options["server.address"] == "127.0.0.1"
    assert options["server.enableXsrfProtection"] == "true"
    assert options["browser.gatherUsageStats"] == "false"
    assert environment["SIFTUNE_RUN"] == str(plain_world.resolve())


def test_files_of_the_users_folder_are_not_imported(hostile_server) -> None:
    """The server imports every page before it listens; the folder that it was started in holds files of those names."""
    assert urllib.request.urlopen(f"{hostile_server.address}/_stcore/health").read() == b"ok"


def test_it_is_headless_where_there_is_no_display(plain_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert flags(launch.server(plain_world)[0])["server.headless"] == "true"
    monkeypatch.setenv("DISPLAY", ":0")
    assert flags(launch.server(plain_world)[0])["server.headless"] == "false"
    assert flags(launch.server(plain_world, headless=True)[0])["server.headless"] == "true"


def test_another_address_is_warned_about(plain_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 3))
    with pytest.warns(UserWarning, match=r"0\.0\.0\.0.*no password"):
        assert launch.launch(plain_world, address="0.0.0.0") == 3


def test_this_address_is_not_warned_about(
    plain_world: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *process: started.append(process))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    launch.launch(plain_world)
    ((program, command, environment),) = started  # the server takes the place of the command: both end together
    assert program == command[0]
    assert "siftune.app.web.serve" in command
    assert environment["SIFTUNE_RUN"] == str(plain_world)
    assert not recwarn.list


def test_a_foreign_folder_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
        launch.launch(tmp_path)
