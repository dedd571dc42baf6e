"""How a worker is started, and what reaches the parent when it dies."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from siftune.training import worker


def test_waiting_threads_of_a_worker_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environments: list[dict[str, str]] = []

    def popen(_: list[str], *, env: dict[str, str], **__: Any) -> None:
        environments.append(env)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with (tmp_path / "log").open("w") as log:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        worker.start("siftune.training.sft", log=log)
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        worker.start("siftune.training.sft", log=log)
    assert [environment["OMP_WAIT_POLICY"] for environment in environments] == ["PASSIVE", "ACTIVE"]


def test_a_worker_that_dies_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)siftune\.no_such_worker ended with code 1\..*No module named"):
        worker.call("siftune.no_such_worker", "{}", log=tmp_path / "worker.log")
