"""How long something takes, for the benchmarks; no test looks at a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """A result, and the seconds it took: by the clock, and of all threads of this process (steadier on a busy
    machine).
    """

    result: Result
    wall: float
    cpu: float


def timed(work: Callable[[], Result]) -> Timed[Result]:
    """Do `work` once and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Timed(result, time.perf_counter() - wall, time.process_time() - cpu)
