"""Tasks on a Ray cluster: plain remote functions, no actors; a task whose node dies is done again elsewhere."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from siftune.curation.cluster.tasks import ClusterTask, Result, perform, require, versions
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.errors import UserError, missing_extra
from siftune.curation.recipe.sections import RayCluster

#: Tasks that wait on the cluster for each of its CPUs: enough that none idles, few enough that the driver holds little.
_WAITING_PER_CPU = 4
_CONNECT_SECONDS = 20
#: How often a task is done again whose process or node died.
_RETRIES = 10
#: One task works on one CPU: the libraries below it start no threads of their own.
_ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@dataclass
class RayExecutor:
    """Does tasks on the cluster that this process is connected to.

    Attributes:
        folder: the work folder.
        done: how many tasks were done; others were found finished.
    """

    folder: WorkFolder
    done: int = 0

    def run(self, tasks: Iterable[ClusterTask]) -> Iterator[Result]:
        """As `siftune.curation.cluster.tasks.Executor.run`."""
        import ray

        # Deaths of nodes are no fault of a task, which is done again; its own exceptions end the run.
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(perform)
        running: dict[Any, int] = {}
        finished: dict[int, Result] = {}
        expected = versions()
        following, next_number = 0, 0
        for number, task in enumerate(tasks):
            following = number + 1
            stored = task.stored(self.folder)
            if stored is not None:
                finished[number] = stored
            else:
                self.done += 1
                running[remote.remote(task, self.folder.url, expected)] = number
            most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _WAITING_PER_CPU
            while len(running) >= most:
                self._collect(running, finished)
            while next_number in finished:
                yield require(finished.pop(next_number))
                next_number += 1
        while next_number < following:
            while next_number not in finished:
                self._collect(running, finished)
            yield require(finished.pop(next_number))
            next_number += 1

    @staticmethod
    def _collect(running: dict[Any, int], finished: dict[int, Result]) -> None:
        """Wait for one task or more."""
        import ray

        ready, _ = ray.wait(list(running), num_returns=1)
        for reference in ready:
            number = running.pop(reference)
            try:
                finished[number] = ray.get(reference)
            except ray.exceptions.RayTaskError:
                raise  # of the task's own: a fault of siftune
            except ray.exceptions.RayError as fault:
                reason = " ".join(str(fault).split())[:300]
                raise UserError(
                    f"A task ended {_RETRIES + 1} times with its process ({type(fault).__name__}: {reason}). Where "
                    "memory is short, lower engine.ray.part_rows or raise engine.ray.partitions; what is finished is "
                    "kept. Run the same command again."
                ) from None


def require_ray() -> None:
    """Raise `UserError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray")


@contextmanager
def connected(settings: RayCluster) -> Iterator[None]:
    """Connect this process to the cluster of a recipe, or to one that lives on this machine as long as the block.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    if settings.address is None:
        # Ray binds all interfaces of a machine, and only the loopback one where it may not form clusters.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    require_ray()
    import ray

    host, separator, port = (settings.address or "").rpartition(":")
    if separator and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as fault:  # Ray itself would try for minutes
            raise _no_cluster(settings, fault) from None
    try:
        ray.init(
            address=settings.address or "local",
            include_dashboard=None if settings.address else False,
            log_to_driver=False,
            logging_level="warning",
            runtime_env={"env_vars": _ONE_THREAD},
        )
    except (ConnectionError, ValueError, RuntimeError) as fault:
        raise _no_cluster(settings, fault) from None
    try:
        yield
    finally:
        ray.shutdown()


def _no_cluster(settings: RayCluster, fault: Exception) -> UserError:
    reason = " ".join(str(fault).split())[:300]
    return UserError(
        f"There is no Ray cluster at {settings.address or 'this machine'} ({reason}). Start one with `ray start "
        "--head`, or leave `address` out."
    )
