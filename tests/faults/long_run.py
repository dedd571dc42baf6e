"""The long version of these tests: `python -m tests.faults.long_run [PART...] [--moments N] [--seed N]`.

The parts, all by default:
kills   SIGKILL of `siftune curate` at random moments (50);
states  every state that a kill can leave at the boundary of a file is continued;
damage  a byte is flipped in every stored file by itself;
whole   SIGKILL of `siftune run` (curation, training, evaluation, tasks, prompts, verdict) at random moments.

Prints how often each was done and what came of it. The first three take 20 minutes on two cores, a moment of the last
one a minute.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import psutil

from siftune.curation import pipeline
from siftune.curation.child_process import module_command, module_environment
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from tests.faults.test_kills import states_of_a_run
from tests.faults.world import damage, result, whole_result, write_whole_world, write_world

PARTS = ("kills", "states", "damage", "whole")
_ROWS = 1_500
#: An environment variable by which all processes of one run are found.
_MARK = "SIFTUNE_LONG_RUN"
#: Trained arms of a whole run.
_TRAININGS = 4
#: Seconds in which the workers of a killed run have to end.
_GRACE = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--moments", type=int, default=50, help="random moments of `kills` and of `whole`")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    pipeline.report.write = lambda run: None  # decides nothing, and takes most of the time of a small run
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "kills" in parts:
            kill_at_random(folder / "kills", options.moments, counts, seed=options.seed)
        if "states" in parts:
            continue_every_state(folder / "states", counts)
        if "damage" in parts:
            damage_every_file(folder / "damage", counts)
        if "whole" in parts:
            kill_whole_runs(folder / "whole", options.moments, counts, seed=options.seed)
    for what, count in counts.items():
        sys.stdout.write(f"{count:5}  {what}\n")
    raise SystemExit(any(what.startswith("FAILED") for what in counts))


def kill_at_random(folder: Path, moments: int, counts: Counter[str], *, seed: int) -> None:
    """SIGKILL after a random time, then the same command again."""
    recipe = write_world(folder, rows=_ROWS)
    command = module_command("siftune", "curate", str(recipe))
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(folder / "run")
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - begun
    expected = result(folder / "run")
    draw = random.Random(seed)
    for _ in range(moments):
        shutil.rmtree(folder / "run")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(draw.uniform(0.3, 1) * seconds)
            process.send_signal(signal.SIGKILL)
        counts["killed at a random moment"] += process.returncode == -signal.SIGKILL
        done = subprocess.run(command, capture_output=True, text=True)
        note(counts, "continued", done.returncode == 0 and result(folder / "run") == expected)


def continue_every_state(folder: Path, counts: Counter[str]) -> None:
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


def damage_every_file(folder: Path, counts: Counter[str]) -> None:
    recipe = write_world(folder)
    curate(recipe)
    run = folder / "run"
    expected = result(run)
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


def kill_whole_runs(folder: Path, moments: int, counts: Counter[str], *, seed: int) -> None:
    """SIGKILL of `siftune run` after a random time, then the same command again; no worker may live on."""
    recipe = write_whole_world(folder)
    command = module_command("siftune", "run", str(recipe))
    mark = uuid.uuid4().hex
    environment = module_environment(**{_MARK: mark})
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds = time.monotonic() - begun
    expected = whole_result(folder / "run")
    sys.stderr.write(f"one run: {seconds:.1f} s, {len(expected)} files are compared\n")
    draw = random.Random(seed)
    for _ in range(moments):
        shutil.rmtree(folder / "run")
        moment = draw.uniform(0, 1) * seconds
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=environment, **quiet) as process:
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
        if process.returncode != -signal.SIGKILL:
            counts["ended before its random moment"] += 1
            continue
        phase = phase_of(folder / "run")
        counts[f"killed at a random moment of the whole run, in {phase}"] += 1
        if not have_ended(mark):
            counts["FAILED: a worker lives on"] += 1
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        actual = whole_result(folder / "run")
        different = sorted(name for name in expected.keys() | actual if expected.get(name) != actual.get(name))
        is_same = done.returncode == 0 and not different
        counts["continued: the same" if is_same else "FAILED: continued, and not the same"] += 1
        end = "the same" if is_same else f"code {done.returncode}, {done.stderr[-500:]}; differs: {different}"
        sys.stderr.write(f"killed after {moment:.1f} s, in {phase}; then {end}\n")


def phase_of(run: Path) -> str:
    """What a stopped run had not finished, by the files that are there."""
    if not (run / "manifest.json").is_file() or not list(run.glob("arms/*.parquet")):
        return "curation"
    if len(list(run.glob("training/*/*/done.json"))) < _TRAININGS:
        return "training"
    if len(list(run.glob("evaluation/*.parquet"))) <= _TRAININGS:
        return "evaluation"
    return "the verdict" if (run / "prompts" / "answers.parquet").is_file() else "tasks or prompts"


def have_ended(mark: str) -> bool:
    """Whether all processes of a killed run end within a few seconds."""
    for _ in range(_GRACE * 10):
        if not any(_is_of(process, mark) for process in psutil.process_iter()):
            return True
        time.sleep(0.1)
    return False


def _is_of(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


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
