"""How a worker is started, and what reaches the parent when it dies."""

from __future__ import annotations

from pathlib import Path

import pytest

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
