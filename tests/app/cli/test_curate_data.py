"""`siftune curate` with data in place of a recipe: what is done with them, where it goes, how it continues."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from siftune.app.cli.commands import main
from siftune.curation.data_recipe import is_data
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from tests.worlds import many, write_source


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder in which `siftune curate notes.jsonl` ran, and what it printed."""
    folder = tmp_path_factory.mktemp("data")
    write_source(many(24), folder / "notes.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, call("curate", "notes.jsonl")


@pytest.fixture
def folder(curated: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(curated[0])
    return curated[0]


def test_data_are_curated_with_the_defaults_which_are_named(curated: tuple[Path, Result]) -> None:
    folder, done = curated
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for words in (
        "no recipe, so the defaults decide",
        "near duplicates (similarity 0.6 or more)",
        "left out duplicates in other words, benchmark items, held-out rows, balance of lengths",
        "run folder runs/notes",
        "siftune recipe new notes.jsonl --out notes.yaml",
        "siftune explain runs/notes notes:",  # a row of this run: the line can be copied
    ):
        assert words in text, words
    run = RunFolder.open(folder / "runs" / "notes")
    assert run.recipe == Recipe.model_validate({"sources": [{"path": "notes.jsonl"}]})
    assert run.rows().height == 24


def test_the_same_command_and_the_recipe_of_the_run_continue_it(folder: Path) -> None:
    before = (folder / "runs" / "notes" / "ledger.parquet").read_bytes()
    for words in (["notes.jsonl"], ["runs/notes/recipe.yaml"]):
        done = call("curate", *words)
        assert done.exit_code == 0, done.output
        assert "cached" in done.stdout
        assert (folder / "runs" / "notes" / "ledger.parquet").read_bytes() == before
    assert [path.name for path in (folder / "runs").iterdir()] == ["notes"]


def test_a_run_of_other_data_is_left_alone(folder: Path, tmp_path: Path) -> None:
    other = write_source(many(6, seed=1), tmp_path / "notes.jsonl")
    before = (folder / "runs" / "notes" / "manifest.json").read_bytes()
    done = call("curate", other)
    assert done.exit_code == 2
    assert "runs/notes holds a run of other data or with other settings" in done.stderr
    assert (folder / "runs" / "notes" / "manifest.json").read_bytes() == before
    assert call("curate", other, "--run", tmp_path / "mine").exit_code == 0
    assert RunFolder.open(tmp_path / "mine").rows().height == 6


def test_several_files_become_one_set(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        write_source(many(4, seed=len(name)), tmp_path / name)
    assert call("curate", "a.jsonl", "b.jsonl").exit_code == 0
    assert RunFolder.open(tmp_path / "runs" / "a-and-1-more").rows()["source"].unique().sort().to_list() == ["a", "b"]


REFUSED = {
    "curate runs/notes": "is the folder of a run. Continue it with: siftune curate runs/notes/recipe.yaml",
    "curate words.txt": "words.txt is neither a recipe nor data",
    "curate notes.jsonl mine.yaml": "found mine.yaml among several files",
    "curate mine.yaml --run x": "write `run:` in it",
    "curate nots.jsonl": "Did you mean 'notes.jsonl'",
    "curate nots": "There is no recipe at nots",
    "run notes.jsonl": "siftune recipe new notes.jsonl --out notes.yaml",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_neither_recipe_nor_data_is_refused_in_words(folder: Path, line: str) -> None:
    (folder / "words.txt").write_text("words")
    done = call(*line.split())
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert REFUSED[line] in done.stderr


def test_what_counts_as_data(folder: Path) -> None:
    (folder / "plain").write_text("sources: [{path: notes.jsonl}]")
    expected = {
        "hf://owner/name": True,
        "*.jsonl": True,
        ".": True,
        "gone.csv.gz": True,
        "r.yaml": False,
        "r.YML": False,
        "plain": False,
        "gone": False,
    }
    assert {path: is_data(path) for path in expected} == expected
