"""A disk that is full, files that may not grow, and folders that cannot be written: one sentence, and then the same."""

from __future__ import annotations

import gc
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from siftune.app.cli.commands import main
from tests.faults.world import write_world

Same = Callable[[Path], None]


def curate(recipe: Path) -> tuple[int, str]:
    """Exit code and last line of `siftune curate`. What an exception holds open is let go, so that a disk is free."""
    done = CliRunner().invoke(main, ["curate", str(recipe)])
    code, lines = done.exit_code, done.output.strip().split("\n")
    del done
    gc.collect()
    return code, lines[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system in memory at `tmp_path/run`, and a function that mounts it anew with other options."""
    disk = tmp_path / "run"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here; only root can")
    try:
        yield lambda options: subprocess.run([mount, "-o", f"remount,{options}", disk], check=True) and None
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_sentence_and_then_the_run_goes_on(
    cache: Path, small_disk: Callable[[str], None], tmp_path: Path, same: Same
) -> None:
    recipe = write_world(tmp_path, encoder="bag")
    for size in (16, 48, 120, 240):  # KiB: from the first measure to the last outputs
        small_disk(f"size={size}k")
        code, said = curate(recipe)
        assert (code, said[:27]) == (2, "siftune: the disk is full. "), said
        assert not list((tmp_path / "run").rglob("*.partial"))
    small_disk("ro,size=8m")
    code, said = curate(recipe)
    assert code == 2
    assert said.endswith("lies on a disk that cannot be written. Give another path, or mount it for writing.")
    small_disk("rw,size=8m")
    assert curate(recipe)[0] == 0
    same(tmp_path / "run")


def test_files_that_may_not_grow_are_one_sentence(cache: Path, tmp_path: Path, same: Same) -> None:
    recipe = write_world(tmp_path, encoder="bag")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (3_000, 8_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            code, said = curate(recipe)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (code, said[:31]) == (2, "siftune: a file would be larger"), said
    assert curate(recipe)[0] == 0
    same(tmp_path / "run")
