# ruff: noqa: E402 - the path comes first
"""What the tasks of `engine: ray` cost: rows and bytes a second for each kind, bytes written for each row, the driver.

    python tests/benchmarks/cluster.py [--rows 100000] [--files 4] [--terabytes 1] [--cores 512] [--folder FOLDER]

The rows are those of million.py, in several files; curated without an encoder, with contamination by words and by
published rules, and without splits. Tasks are done one after the other in this process, so that the seconds are those
of one core. Printed: a row for each kind of task, what the driver does and holds, and what that makes for a cluster:
hours = bytes / (bytes a second and core × cores), plus what the driver does alone. Ray's own overhead and the network
are not in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import polars as pl
import psutil
import yaml

from siftune.curation.cluster.tasks import ClusterTask, Result, perform, require, versions
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.pipeline import curate
from tests.benchmarks.million import BENCHMARKS, RULES, write_rows
from tests.real_data import DATA

_SMALL_ROWS = 2_000


@dataclass
class TimedExecutor:
    """Does tasks in this process and notes the seconds of each kind."""

    folder: WorkFolder
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tasks: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def run(self, tasks: Iterable[ClusterTask]) -> Iterator[Result]:
        """As `siftune.curation.cluster.tasks.Executor.run`."""
        for task in tasks:
            started = time.perf_counter()
            result = require(perform(task, self.folder.url, versions()))
            self.seconds[task.kind] += time.perf_counter() - started
            self.tasks[task.kind] += 1
            yield result


def write_files(folder: Path, rows: int, files: int) -> None:
    """The rows of million.py in files of equal size."""
    all_rows = folder / "rows.jsonl"
    write_rows(rows, all_rows)
    (folder / "data").mkdir()
    lines = all_rows.read_bytes().splitlines(keepends=True)
    for number in range(files):
        (folder / "data" / f"{number}.jsonl").write_bytes(b"".join(lines[number::files]))
    all_rows.unlink()


def recipe_of(folder: Path, name: str, part_rows: int) -> Path:
    """The recipe of the run with that name."""
    recipe = {
        "name": name,
        "run": name,
        "sources": [{"path": "data", "name": "s"}],
        "encoder": None,
        "contamination": {
            "references": [{"path": str(DATA / "benchmarks" / file)} for file in BENCHMARKS],
            "rules": ["layered", *RULES],
        },
        "engine": {"ray": {"part_rows": part_rows}},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--part-rows", type=int, default=200_000)
    parser.add_argument("--terabytes", type=float, default=1.0)
    parser.add_argument("--cores", type=int, default=512)
    parser.add_argument("--folder", type=Path, default=None, help="default: a temporary one")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="siftune-cluster"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)

    # Two small runs: the first compiles the kernels, the second says what the driver does whatever the rows.
    small = folder / "small"
    small.mkdir()
    write_files(small, _SMALL_ROWS, 1)
    for name in ("compile", "fixed"):
        executor = TimedExecutor(WorkFolder(str(small / f"{name}-work")))
        started = time.perf_counter()
        curate(recipe_of(small, name, options.part_rows), executor=executor)
        fixed = time.perf_counter() - started - sum(executor.seconds.values())

    write_files(folder, options.rows, options.files)
    size = sum(path.stat().st_size for path in (folder / "data").iterdir())
    executor = TimedExecutor(WorkFolder(str(folder / "work")))
    started = time.perf_counter()
    run = curate(recipe_of(folder, "run", options.part_rows), executor=executor)
    total = time.perf_counter() - started

    print(f"\n{options.rows:,} rows, {size / 1e6:,.0f} MB, {options.files} files; all on one core\n")
    print("| task | tasks | seconds | rows/s | MB/s of source | bytes written a row |\n|---|---:|---:|---:|---:|---:|")
    written = {}
    for kind, seconds in executor.seconds.items():
        files = (folder / "work" / kind).glob("*")
        written[kind] = sum(path.stat().st_size for path in files) / options.rows
        rate = f"{options.rows / seconds:,.0f} | {size / seconds / 1e6:,.1f}"
        print(f"| {kind} | {executor.tasks[kind]} | {seconds:.1f} | {rate} | {written[kind]:,.0f} |")
    in_tasks = sum(executor.seconds.values())
    print(
        f"| all tasks | {sum(executor.tasks.values())} | {in_tasks:.1f} | {options.rows / in_tasks:,.0f} "
        f"| {size / in_tasks / 1e6:,.2f} | {sum(written.values()):,.0f} |"
    )

    # What the driver does besides: decisions, the files of the run, the report, the index of the app.
    stages = {stage.stage: stage.seconds for stage in run.manifest.stages}
    alone = (total - in_tasks - fixed) / (1 - _SMALL_ROWS / options.rows)
    index = pl.read_parquet(run.path / run.manifest.files["index"], glob=False).estimated_size()
    pairs = sum(
        pl.read_parquet(run.path / run.manifest.files[name], glob=False).estimated_size()
        for name in ("exact", "prefixes", "near", "answers", "conflicts")
    )
    peak = psutil.Process().memory_info().rss / 2**20
    print(f"\ndriver alone: {fixed:.1f} s, and {alone:.1f} s that grow with the rows: {size / alone / 1e6:,.1f} MB/s")
    print(f"stage `write`: {stages['write']:.1f} s; memory of this process at the end: {peak:,.0f} MiB")
    print(f"ids: {index / options.rows:,.0f} bytes a row of INDEX, {pairs / options.rows:,.0f} bytes a row of pairs")
    source = options.terabytes * 1e12
    hours = source / (size / in_tasks) / options.cores / 3600
    driver_hours = source / (size / alone) / 3600
    rows = source / (size / options.rows)
    print(
        f"{options.terabytes:g} TB like these are {rows / 1e9:.2f} billion rows: {hours:.1f} h of tasks on "
        f"{options.cores} cores, {driver_hours:.1f} h of the driver alone, "
        f"{rows * sum(written.values()) / 1e12:.1f} TB in the work folder, "
        f"{rows * (index + pairs) / options.rows / 1e9:.0f} GB for ids and pairs in the driver"
    )
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
