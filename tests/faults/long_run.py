"""The long version of these tests: `python -m tests.faults.long_run [MOMENTS]` (20 minutes on two cores).

Kills a process of `siftune curate` at random moments (50), continues every state that a kill can leave at the boundary
of a file, and flips a byte in every stored file by itself; prints how often each was done and what came of it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from siftune.curation import pipeline
from siftune.curation.child_process import module_command
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from tests.faults.test_kills import states_of_a_run
from tests.faults.world import damage, result, write_world

_ROWS = 1_500


def main() -> None:
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    pipeline.report.write = lambda run: None  # decides nothing, and takes most of the time of a small run
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kill_at_random(folder / "kills", moments, counts)
        expected = continue_every_state(folder / "states", counts)
        damage_every_file(folder / "damage", expected, counts)
    for what, count in counts.items():
        sys.stdout.write(f"{count:5}  {what}\n")
    raise SystemExit(any(what.startswith("FAILED") for what in counts))


def kill_at_random(folder: Path, moments: int, counts: Counter[str]) -> None:
    """SIGKILL after a random time, then the same command again."""
    recipe = write_world(folder, rows=_ROWS)
    command = module_command("siftune", "curate", str(recipe))
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(folder / "run")
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - begun
    expected = result(folder / "run")
    draw = random.Random(0)
    for _ in range(moments):
        shutil.rmtree(folder / "run")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(draw.uniform(0.3, 1) * seconds)
            process.send_signal(signal.SIGKILL)
        counts["killed at a random moment"] += process.returncode == -signal.SIGKILL
        done = subprocess.run(command, capture_output=True, text=True)
        note(counts, "continued", done.returncode == 0 and result(folder / "run") == expected)


def continue_every_state(folder: Path, counts: Counter[str]) -> dict[str, bytes]:
    recipe = write_world(folder)
    states = states_of_a_run(recipe, folder / "states", every=1)
    expected = result(folder / "run")
    for state in states:
        shutil.rmtree(folder / "run")
        for leftover in state.rglob(".*.partial"):
            leftover.rename(leftover.with_name(leftover.name.replace(f".{os.getpid()}.", ".999999999.")))
        state.rename(folder / "run")
        counts["killed at the boundary of a file"] += 1
        note(counts, "continued", curated(recipe) is None and result(folder / "run") == expected)
    return expected


def damage_every_file(folder: Path, expected: dict[str, bytes], counts: Counter[str]) -> None:
    recipe = write_world(folder)
    curate(recipe)
    run = folder / "run"
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size):
        for seed in range(3):
            intact = path.read_bytes()
            damage(path, seed=seed)
            counts["a byte flipped in a stored file"] += 1
            if (sentence := curated(recipe)) is not None:
                counts["ended in one sentence"] += 1
                if "\n" in sentence:
                    counts["FAILED: more than a sentence"] += 1
                path.write_bytes(intact)
            else:
                note(counts, "made anew", result(run) == expected)


def curated(recipe: Path) -> str | None:
    """The sentence where curation is refused."""
    try:
        curate(recipe)
    except UserError as fault:
        return str(fault)
    return None


def note(counts: Counter[str], what: str, is_same: bool) -> None:
    counts[f"{what}: byte-identical" if is_same else f"FAILED: {what}, and not the same"] += 1


if __name__ == "__main__":
    main()
