"""How a worker is started, and what reaches the parent when it dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from siftune.curation.errors import UserError
from siftune.training import worker

#: A worker that computes with OpenMP's threads, whose library prints its settings when it is loaded.
COMPUTE = """
from siftune.training.worker import serve


def compute(job, progress):
    import torch

    return {"sum": float(torch.ones(8).sum())}


if __name__ == "__main__":
    raise SystemExit(serve(compute))
"""


@pytest.mark.parametrize(("policy", "spins"), [(None, "'0'"), ("ACTIVE", "'30000000000'")])
def test_waiting_threads_of_a_worker_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy: str | None, spins: str
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "compute_worker.py").write_text(COMPUTE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_DISPLAY_ENV", "VERBOSE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    log = tmp_path / "worker.log"
    assert worker.call("compute_worker", "{}", log=log) == {"sum": 8.0}
    settings = [line for line in log.read_text(encoding="utf-8").splitlines() if "GOMP_SPINCOUNT" in line]
    if not settings:
        pytest.skip("this build of torch does not use GNU's OpenMP")
    assert [spins in line for line in settings] == [True] * len(settings)


def test_a_worker_that_dies_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)siftune\.no_such_worker ended with code 1\..*No module named"):
        worker.call("siftune.no_such_worker", "{}", log=tmp_path / "worker.log")


#: A worker that says that it works, and then sleeps.
SLEEPING = """
import os, time
from siftune.training.worker import serve

def work(job, progress):
    progress(f"pid {os.getpid()}", 0, 1)
    time.sleep(600)

if __name__ == "__main__":
    raise SystemExit(serve(work))
"""
PARENT = """
import sys
import time
from pathlib import Path
from siftune.training import worker

say = lambda label, done, total: print(label, flush=True)
worker.call("sleeping_worker", "{}", log=Path(sys.argv[1]), progress=say)
"""


@pytest.fixture
def sleeping_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeping_worker.py").write_text(SLEEPING, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")


def test_a_worker_ends_with_its_parent(sleeping_worker: None, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "worker.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = psutil.Process(int(parent.stdout.readline().split()[1]))
        parent.kill()
    started.wait(timeout=30)


def test_a_worker_that_still_imports_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Libraries take seconds to import, and the parent can be killed in them."""
    note = tmp_path / "pid"
    imports = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    (tmp_path / "sleeping_worker.py").write_text(imports, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "worker.log")]) as parent:
        while not (note.is_file() and note.read_text(encoding="utf-8")):
            time.sleep(0.05)
        started = psutil.Process(int(note.read_text(encoding="utf-8")))
        parent.kill()
    started.wait(timeout=30)


def test_a_worker_that_the_system_killed_is_one_sentence(sleeping_worker: None, tmp_path: Path) -> None:
    def kill(label: str, done: int, total: int) -> None:
        psutil.Process(int(label.split()[1])).kill()

    with pytest.raises(UserError, match=r"killed sleeping_worker, most likely because memory ran out\."):
        worker.call("sleeping_worker", "{}", log=tmp_path / "worker.log", progress=kill)
