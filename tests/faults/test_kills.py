"""What a killed process leaves on disk is continued to the same bytes, wherever it was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from siftune.curation.child_process import module_command
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from tests.faults.world import write_world

Same = Callable[[Path], None]
#: One of so many states is continued here; `python -m tests.faults.long_run` continues all of them.
EVERY = 23


def states_of_a_run(recipe: Path, into: Path, *, every: int) -> list[Path]:
    """Curate, and keep copies of the run folder as a kill would leave it before and after a file takes its name."""
    run, rename, states, moments = recipe.parent / "run", os.replace, [], 0

    def keep() -> None:
        nonlocal moments
        moments += 1
        if moments % every == 1 % every:
            states.append(Path(shutil.copytree(run, into / f"{moments:03}")))

    def watched(source: str | Path, target: str | Path) -> None:
        of_run = Path(target).is_relative_to(run)
        if of_run:
            keep()
        rename(source, target)
        if of_run:
            keep()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", watched)
        curate(recipe)
    return states


def test_every_state_that_a_kill_can_leave_is_continued(cache: Path, tmp_path: Path, same: Same) -> None:
    recipe = write_world(tmp_path, encoder="bag")
    states = states_of_a_run(recipe, tmp_path / "states", every=EVERY)
    assert len(states) > 5
    assert any(list(state.rglob(".*.partial")) for state in states)
    for state in states:
        shutil.rmtree(tmp_path / "run")
        for leftover in state.rglob(".*.partial"):  # of a process that lives no more
            leftover.rename(leftover.with_name(leftover.name.replace(f".{os.getpid()}.", ".999999999.")))
        state.rename(tmp_path / "run")
        curate(recipe)
        same(tmp_path / "run")


def test_a_second_process_is_refused_and_the_first_goes_on(cache: Path, tmp_path: Path, same: Same) -> None:
    recipe = write_world(tmp_path, encoder="bag")
    reads, goes_on = threading.Event(), threading.Event()

    def wait(label: str, done: int, total: int) -> None:
        if label.startswith("reading"):
            reads.set()
            assert goes_on.wait(60)

    first = threading.Thread(target=curate, args=(recipe,), kwargs={"progress": wait})
    first.start()
    assert reads.wait(60)
    try:
        with pytest.raises(UserError, match="Another process is writing"):
            curate(recipe)
    finally:
        goes_on.set()
        first.join()
    same(tmp_path / "run")


def test_interrupted_twice_ends_in_one_sentence(tmp_path: Path) -> None:
    recipe = write_world(tmp_path, rows=1_000)
    command = module_command("siftune", "curate", str(recipe))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "manifest.json").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode in (130, -signal.SIGINT)  # to a shell both are 130
    assert said == "siftune: interrupted. Run the same command again to continue.\n"
