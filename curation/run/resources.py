"""What a stage cost: seconds and the most memory the process held meanwhile."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil

_INTERVAL = 0.05  # seconds; a peak shorter than this may be missed


class ResourceMonitor:
    """Measure a `with` block: `seconds` of wall clock and `peak_mb`, resident memory in MiB, sampled."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_mb = 0
        self._done = threading.Event()
        self._process = psutil.Process()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> ResourceMonitor:
        self._start = time.perf_counter()
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = round(time.perf_counter() - self._start, 3)
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, self._process.memory_info().rss >> 20)
            if self._done.wait(_INTERVAL):
                return
