from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.atomic_files import replacing, write_json, write_parquet
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import FORMAT

#: Above the greatest id that Linux gives a process.
NO_PROCESS = 4194305


def begin(path: Path, name: str = "mine") -> RunFolder:
    run = RunFolder.create(path, recipe_name=name)
    write_json({"siftune": {"format": FORMAT}, "recipe_name": name, "files": {}}, path / "manifest.json")
    return run


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty.*thesis\.txt"):
        RunFolder.create(tmp_path, recipe_name="r")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_recipes_run_is_left_alone_and_the_own_one_continues(tmp_path: Path) -> None:
    begin(tmp_path / "run")
    with pytest.raises(UserError, match="'mine'"):
        RunFolder.create(tmp_path / "run", recipe_name="other")
    assert RunFolder.create(tmp_path / "run", recipe_name="mine").path == tmp_path / "run"


def test_a_file_in_the_place_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "run", recipe_name="r")


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"siftune": {"format": 99}}'])
def test_a_damaged_or_foreign_manifest_is_one_message(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError):
        RunFolder.open(tmp_path)


def test_a_block_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(pl.DataFrame({"a": [1]}), path)
    with pytest.raises(RuntimeError, match="in the middle"):  # noqa: PT012, SIM117 - the block is what fails
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")
    assert pl.read_parquet(path)["a"].to_list() == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.parquet"]


def test_a_measure_is_taken_once_and_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    taken: list[int] = []

    def make(out: Path) -> None:
        taken.append(1)
        out.write_text("measured")

    first, reused_first = run.measure("near", "k" * 64, make)
    second, reused_second = run.measure("near", "k" * 64, make)
    assert (first, reused_first, second, reused_second) == (first, False, first, True)
    assert len(taken) == 1
    leftover = first.with_name(f".near-x.parquet.{NO_PROCESS}.partial")
    leftover.write_text("half")
    with RunFolder.create(tmp_path / "run", recipe_name="mine").locked():
        assert not leftover.exists()


def test_two_writers_exclude_one_another(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    with run.locked():
        with run.locked():  # inside of it, it is held already
            pass

        def write() -> None:
            with RunFolder(tmp_path / "run").locked():
                pass

        with ThreadPoolExecutor() as other, pytest.raises(UserError, match="Another process"):
            other.submit(write).result()
    with run.locked():
        pass


def test_what_a_run_does_not_have_yet_is_one_message(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    for ask in (run.ledger, run.rows, lambda: run.examples):
        with pytest.raises(UserError, match="siftune curate"):
            ask()
    assert run.matches().height == 0
    assert run.pairs("near").height == 0
    assert json.loads((run.path / "manifest.json").read_text())["recipe_name"] == "mine"


def test_a_run_that_was_killed_while_it_wrote_its_first_file_is_continued(tmp_path: Path) -> None:
    for name in (".lock", f".manifest.json.{NO_PROCESS}.partial"):
        (tmp_path / name).write_text("{")
    run = RunFolder.create(tmp_path, recipe_name="mine")
    with run.locked():
        assert [path.name for path in run.path.iterdir()] == [".lock"]
