"""Engine ray on real raylets of this machine: one node and several, a node that dies, a driver that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from siftune.curation import pipeline
from siftune.curation.cluster.ray_executor import RayExecutor, connected
from siftune.curation.cluster.tasks import ClusterTask
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import RayCluster
from siftune.curation.run.folder import RunFolder
from tests.curation.cluster.cluster_world import mixed_rows, require_same_run, write_files, write_recipe

pytest.importorskip("ray")
ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {"splits": None, "balance": None}
#: The machine may be busy: no node is given up early.
PATIENCE = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_health_check_failure_threshold": "60",
}
NODE: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node that this process is connected to."""
    scratch = tempfile.mkdtemp(prefix="ray")  # the names of sockets below it must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", scratch)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in PATIENCE.items():
            patch.setenv(name, value)
        patch.setattr(pipeline.report, "write", lambda run: None)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            with connected(RayCluster(address=started.address)):
                yield started
        finally:
            started.shutdown()
            shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cluster: Any) -> Path:
    """A folder of files, and the run of one machine."""
    folder = tmp_path_factory.mktemp("ray")
    write_files(mixed_rows(120), folder / "data")
    curate(write_recipe(folder, "local", **SMALL))
    return folder


def on_ray(world: Path, name: str) -> RayExecutor:
    """Curate the files on the cluster, and compare the run with that of one machine."""
    executor = RayExecutor(WorkFolder(str(world / f"{name}-work")))
    engine = {"ray": {"partitions": 2, "part_rows": 40}}
    run = curate(write_recipe(world, name, engine=engine, **SMALL), executor=executor)
    require_same_run(RunFolder.open(world / "local"), run)
    assert executor.done == len(markers(world / f"{name}-work"))
    return executor


def markers(work: Path) -> dict[Path, int]:
    """The markers of finished tasks and when each was written."""
    return {path: path.stat().st_mtime_ns for path in work.glob("*/*.json")}


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_one_two_and_four_nodes_give_the_bytes_of_one_machine(cluster: Any, world: Path) -> None:
    for nodes, name in ((1, "one"), (2, "two"), (4, "four")):
        while len(cluster.list_all_nodes()) < nodes:
            cluster.add_node(**NODE)
        cluster.wait_for_nodes(timeout=300)
        on_ray(world, name)


def test_a_node_that_dies_midway_changes_nothing(cluster: Any, world: Path) -> None:
    work = world / "death-work"
    node = cluster.list_all_nodes()[-1]

    def remove() -> None:
        wait_until(lambda: len(markers(work)) >= 10)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=remove)
    killer.start()
    on_ray(world, "death")
    killer.join()


def test_faults_of_a_task(cluster: Any, tmp_path: Path) -> None:
    executor = RayExecutor(WorkFolder(str(tmp_path)))
    good, bad = ClusterTask("good", _write, {"text": "river"}), ClusterTask("bad", _refuse, {"text": "stone"})
    with pytest.raises(UserError, match="stone cannot be read"):
        list(executor.run([good, bad]))
    assert (tmp_path / f"{good.name}.txt").read_text() == "river"
    assert not (tmp_path / f"{bad.name}.json").exists()


def _write(folder: WorkFolder, name: str, *, text: str) -> dict[str, Any]:
    with folder.writing(f"{name}.txt") as path:
        path.write_text(text)
    return {}


def _refuse(folder: WorkFolder, name: str, *, text: str) -> dict[str, Any]:
    raise UserError(f"{text} cannot be read")


def test_a_driver_that_is_killed_goes_on_where_it_stopped(cluster: Any, world: Path) -> None:
    # The first driver starts Ray by itself.
    work = world / "killed-work"
    engine = {"ray": {"partitions": 2, "part_rows": 40, "work": str(work)}}
    recipe = write_recipe(world, "killed", engine=engine, **SMALL)
    driver = subprocess.Popen(
        [sys.executable, "-m", "siftune", "curate", str(recipe)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in PATIENCE} | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(markers(work)) >= 12 or driver.poll() is not None)
    children = psutil.Process(driver.pid).children(recursive=True)
    children = [child for child in children if not child.name().endswith("Agent")]  # Ray's own, which end in a minute
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not any(map(is_running, children)))  # nobody works any more
    finished = markers(work)
    assert not (world / "killed" / "ledger.parquet").exists()

    executor = RayExecutor(WorkFolder(str(work)))
    run = curate(recipe, executor=executor)
    require_same_run(RunFolder.open(world / "local"), run)
    after = markers(work)
    assert len(finished) + executor.done == len(after)
    assert all(after[path] == written for path, written in finished.items())
    # Started once more, it finds everything.
    assert curate(recipe, executor=executor).ledger_path.read_bytes() == run.ledger_path.read_bytes()
    assert len(finished) + executor.done == len(after)


def test_no_cluster_at_an_address_is_one_sentence() -> None:
    import ray

    ray.shutdown()
    with (
        pytest.raises(UserError, match=r"There is no Ray cluster at 127\.0\.0\.1:1"),
        connected(RayCluster(address="127.0.0.1:1")),
    ):
        pass
