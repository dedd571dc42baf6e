"""The long version of these tests: `python -m tests.faults.long_run [PART...] [--moments N] [--seed N]`.

The parts, all by default:
kills   SIGKILL of `siftune curate` at random moments (50);
states  every state that a kill can leave at the boundary of a file is continued;
damage  a byte is flipped in every stored file by itself;
whole   SIGKILL of `siftune run` (curation, training, evaluation, tasks, prompts, verdict) at random moments;
lines   files with one line of 1 GB among ordinary rows, through `siftune inspect` and `siftune curate`.

Prints how often each was done and what came of it. The first three take 20 minutes on two cores, a moment of the last
one half a minute.
"""

from __future__ import annotations

import argparse
import json
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

PARTS = ("kills", "states", "damage", "whole", "lines")
_ROWS = 1_500
#: An environment variable by which all processes of one run are found.
_MARK = "SIFTUNE_LONG_RUN"
#: Trained arms of a whole run.
_TRAININGS = 4
#: Of a whole run: the latest moment at which it, or what is left of it, is killed.
_LATEST_MOMENT = 0.6
#: Bytes of the cell of a long line.
_CELL = 1 << 30
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
        if "lines" in parts:
            read_long_lines(folder / "lines", counts)
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
    """SIGKILL of `siftune run` at random moments: each run is killed and continued until it ends by itself.

    A moment is a number of CPU seconds, so it does not depend on what else the machine does. No worker may live on.
    """
    recipe = write_whole_world(folder)
    command = module_command("siftune", "run", str(recipe))
    mark = uuid.uuid4().hex
    environment = module_environment(**{_MARK: mark})
    begun = _cpu_of_ended_children()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds = _cpu_of_ended_children() - begun
    expected = whole_result(folder / "run")
    sys.stderr.write(f"one run: {seconds:.1f} s of CPU, {len(expected)} files are compared\n")
    draw = random.Random(seed)
    shutil.rmtree(folder / "run")
    kills = 0
    while moments:
        moment = draw.uniform(0, _LATEST_MOMENT) * seconds
        with (
            (folder / "errors.txt").open("wb") as errors,
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment) as process,
        ):
            while process.poll() is None and (kills == moments or _cpu_of(process.pid) < moment):
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL:
                kills += 1
                phase = phase_of(folder / "run")
                counts[f"killed at a random moment of the whole run, in {phase}"] += 1
                sys.stderr.write(f"killed after {moment:.1f} s of CPU, in {phase}\n")
                if not have_ended(mark):
                    counts["FAILED: a worker lives on"] += 1
                continue
        # The run has ended by itself; it counts for all moments at which it was killed before.
        actual = whole_result(folder / "run")
        different = sorted(name for name in expected.keys() | actual if expected.get(name) != actual.get(name))
        is_same = process.returncode == 0 and not different
        counts["continued: the same" if is_same else "FAILED: continued, and not the same"] += kills
        message = (folder / "errors.txt").read_text(errors="replace")[-500:]
        where = {name: _difference(str(expected.get(name)), str(actual.get(name))) for name in different}
        end = "the same" if is_same else f"code {process.returncode}, {message}; differs: {where}"
        sys.stderr.write(f"continued after {kills} kills: {end}\n")
        shutil.rmtree(folder / "run")
        moments, kills = moments - kills, 0


def _difference(expected: str, actual: str) -> str:
    """What stands around the first character that differs."""
    at = next((at for at, (one, other) in enumerate(zip(expected, actual, strict=False)) if one != other), 0)
    around = slice(max(0, at - 80), at + 80)
    return f"{expected[around]!r} is {actual[around]!r}"


def _cpu_of_ended_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and of all that it started."""
    seconds = 0.0
    try:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    except psutil.Error:
        return seconds
    return seconds


def read_long_lines(folder: Path, counts: Counter[str]) -> None:
    """Files with a cell of 1 GB: ordinary rows are read, the long one is quarantined, in bounded memory."""
    row, long = b'{"instruction": "q%d", "output": "an answer to it"}', b'{"instruction": "q", "output": "'
    first, last = b"".join(row % n + b"\n" for n in range(3)), b"".join(row % n + b"\n" for n in range(3, 6))
    # Name, what is before the cell, what is behind it, rows that are read, rows that are quarantined.
    files = [
        ("first.jsonl", long, b'"}\n' + first, 3, 1),
        ("amid.jsonl", first + long, b'"}\n' + last, 6, 1),
        ("cut.jsonl", first + long, b"", 3, 1),
        ("cut.json", b"[" + row % 1 + b"," + long, b"", 1, 1),
        ("list.json", b"[" + row % 1 + b"," + long, b'"},' + row % 2 + b"]", 2, 1),
        ("cell.csv", b"instruction,output\nq0,a0\nq,", b"\nq1,a1\n", 2, 1),
    ]
    folder.mkdir()
    for name, before, behind, read, quarantined in files:
        with (folder / name).open("wb") as file:
            file.write(before)
            for _ in range(_CELL >> 20):
                file.write(b"abcdefg " * (1 << 17))
            file.write(behind)
        for command in ("inspect", "curate"):
            run = folder / "run"
            more = ["--run", str(run)] if command == "curate" else []
            code, text, seconds, mib = _measured([command, str(folder / name), *more])
            sys.stderr.write(f"{command} {name}: code {code}, {seconds:.0f} s, at most {mib:,} MiB\n")
            fine = code == 0 and "Traceback" not in text
            if command == "curate" and fine:
                counted = json.loads((run / "manifest.json").read_bytes())["inputs"][0]
                fine = counted["examples"] == read and sum(counted["quarantined"].values()) == quarantined
                shutil.rmtree(run)
            counts["a line of 1 GB among rows" if fine else f"FAILED: {command} {name}"] += 1
            if not fine:
                sys.stderr.write(text)
        (folder / name).unlink()


def _measured(arguments: list[str]) -> tuple[int, str, float, int]:
    """Exit code, output, seconds and the most memory (MiB) of a command."""
    with tempfile.TemporaryFile() as output:
        begun = time.monotonic()
        process = subprocess.Popen(module_command("siftune", *arguments), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        output.seek(0)
        return process.returncode, output.read().decode(errors="replace"), seconds, usage.ru_maxrss >> 10


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
