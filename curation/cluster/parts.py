"""The rows of a run in parts, on the driver: tasks for each part, and what tasks of partitions return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siftune.curation.cluster.tasks import ClusterTask, Executor, Result, Shuffle
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.corpus import Corpus
from siftune.curation.progress import Progress


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a run.

    Attributes:
        examples: the file of their EXAMPLES.
        texts: the file of their TEXTS.
        start: the rows of the run before them.
        rows: how many they are.
    """

    examples: str
    texts: str
    start: int
    rows: int


@dataclass(frozen=True)
class Parts:
    """The parts of a run, and who does tasks over them.

    Attributes:
        parts: in the order of the rows.
        partitions: of every shuffle; no result depends on it.
        folder: the work folder.
        executor: does the tasks.
    """

    parts: Sequence[Part]
    partitions: int
    folder: WorkFolder
    executor: Executor

    def of_rows(
        self,
        kind: str,
        function: Callable[..., Result],
        rows: NDArray[np.integer],
        settings: dict[str, Any],
        *,
        by_part: Callable[[int], dict[str, Any]] | None = None,
    ) -> list[ClusterTask]:
        """A task for each part: `examples`, `texts` and `start` are of the part, and `rows` are positions in it.

        Args:
            kind: what they do.
            function: of the tasks.
            rows: ascending positions in the run.
            settings: further ones.
            by_part: gives further settings by the number of the part.
        """
        made = []
        for number, part in enumerate(self.parts):
            low, high = np.searchsorted(rows, (part.start, part.start + part.rows))
            own = {"examples": part.examples, "texts": part.texts, "start": part.start, **settings}
            own |= by_part(number) if by_part else {}
            made.append(ClusterTask(kind, function, own, {"rows": (rows[low:high] - part.start).astype(np.uint32)}))
        return made

    def of_partitions(
        self, kind: str, function: Callable[..., Result], shuffle: Shuffle, settings: dict[str, Any]
    ) -> list[ClusterTask]:
        """A task for each partition of a shuffle.

        Args:
            kind: what they do.
            function: of the tasks.
            shuffle: what was written by partition.
            settings: further ones.
        """
        made = []
        for partition in range(shuffle.partitions):
            names, arrays = shuffle.arguments(partition)
            made.append(ClusterTask(kind, function, {**names, **settings}, arrays))
        return made

    def done(self, tasks: Sequence[ClusterTask], *, title: str, progress: Progress | None) -> list[Result]:
        """The results of tasks.

        Args:
            tasks: the tasks.
            title: what they do, for the progress.
            progress: called as tasks end.
        """
        results = []
        for result in self.executor.run(tasks):
            results.append(result)
            if progress is not None:
                progress(title, len(results), len(tasks))
        return results

    def shuffled(self, tasks: Sequence[ClusterTask], suffix: str, *, title: str, progress: Progress | None) -> Shuffle:
        """Do tasks that end with `write_partitioned`.

        Args:
            tasks: the tasks; their results hold `bounds`.
            suffix: of the files that they write.
            title: as in `done`.
            progress: as there.
        """
        results = self.done(tasks, title=title, progress=progress)
        return Shuffle.of([f"{task.name}.{suffix}" for task in tasks], [result["bounds"] for result in results])

    def joined(
        self, tasks: Sequence[ClusterTask], results: Sequence[Result], suffix: str, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """The values of the array that each task wrote, one after another; `size` of a result says how many.

        Args:
            tasks: the tasks.
            results: of these.
            suffix: of the files.
            dtype: of the values.
        """
        start = np.zeros(1, np.int64)
        parts = [
            self.folder.take(f"{task.name}.{suffix}", dtype, start, np.array([result["size"]]))
            for task, result in zip(tasks, results, strict=True)
        ]
        return np.concatenate([np.empty(0, dtype), *parts])


@contextmanager
def part_corpus(folder: WorkFolder, examples: str, texts: str) -> Iterator[Corpus]:
    """A part as a corpus of its own."""
    with folder.reading(examples) as examples_path, folder.reading(texts) as texts_path:
        yield Corpus(examples_path, texts_path, key="")
