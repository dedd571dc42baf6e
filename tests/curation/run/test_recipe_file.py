"""The recipe that a run holds can be curated again, and continues exactly that run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from siftune.curation import pipeline
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, write_override
from siftune.curation.run.recipe_file import RecipeFile
from tests.worlds import many, write_source

RECIPE = """\
# Two sources beside the recipe.
sources:
  - path: data/first.jsonl
  - {path: data/second.jsonl, name: second}
encoder: null  # no embeddings
duplicates: {near: {threshold: 0.7, floor: 0.5, shingle: 2}}
contamination: {references: [{path: exams/exam.jsonl}]}
splits: {test: 6}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)  # slow, and it decides nothing
    folder = tmp_path / "project"
    write_source(many(60), folder / "data" / "first.jsonl")
    write_source(many(60, seed=8), folder / "data" / "second.jsonl")
    write_source(many(9, seed=9), folder / "exams" / "exam.jsonl")
    (folder / "law.yaml").write_text(RECIPE, encoding="utf-8")
    return curate(folder / "law.yaml")


def contents(run: RunFolder) -> dict[str, bytes]:
    """Every file but those that tell how long things took."""
    changing = ("manifest.json", "report.md", "report.html", ".lock")
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in run.path.rglob("*")
        if path.is_file() and path.name not in changing
    }


def test_the_recipe_of_a_run_continues_that_run(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.recipe_path.read_text(encoding="utf-8") == RECIPE
    before, first = contents(run), run.manifest
    monkeypatch.chdir(tmp_path)
    again = curate(run.recipe_path)
    assert again.path == run.path
    assert contents(again) == before
    second = again.manifest
    measured = [record.stage for record in second.stages if record.stage not in ("splits", "write")]
    assert [record.stage for record in second.stages if record.reused] == measured
    assert second.model_copy(update={"stages": first.stages}) == first


def test_an_override_is_obeyed_when_the_recipe_of_the_run_is_curated(run: RunFolder) -> None:
    kept = run.rows().filter(fate="kept", split="train")["id"][0]
    write_override(run, Override(kept, "drop", "a bad row"))
    curate(run.recipe_path)
    assert run.rows().filter(id=kept)["stage"].to_list() == ["overrides"]
    through_the_run = contents(run)
    curate(run.path.parents[1] / "law.yaml")
    assert contents(run) == through_the_run


def test_an_edited_recipe_of_a_run_changes_that_run(run: RunFolder) -> None:
    run.recipe_path.write_text(RECIPE.replace("0.7", "1.0"), encoding="utf-8")
    again = curate(run.recipe_path)
    assert again.recipe.duplicates.near is not None
    assert again.recipe.duplicates.near.threshold == 1.0
    assert again.manifest.recipe_name == "law"


def test_a_run_without_its_sources_says_where_they_were(run: RunFolder, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.move(run.path, moved)
    shutil.rmtree(tmp_path / "project")
    with pytest.raises(UserError, match=r"data/first\.jsonl.*relative to .*project, which is gone"):
        curate(moved / "recipe.yaml")


def test_models_are_looked_for_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of models start from the recipe's folder, like those of sources, wherever the command is called."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project / "models" / "tiny", project / "auto", elsewhere / "owner" / "name"):
        folder.mkdir(parents=True)
    write_source(many(12), project / "rows.jsonl")
    monkeypatch.chdir(elsewhere)

    def names(model: str, encoder: str) -> tuple[str, str | None]:
        models = f"model: {{name: {model}}}\nencoder: {encoder}\n"
        (project / "recipe.yaml").write_text(
            f"sources: [{{path: rows.jsonl}}]\nduplicates: {{semantic: null}}\n{models}"
        )
        recipe = RecipeFile.read(project / "recipe.yaml").recipe
        return recipe.model.name, recipe.encoder

    tiny = str(project / "models" / "tiny")
    assert names("models/tiny", "./models/tiny") == (tiny, tiny)
    assert names("../project/models/tiny", tiny) == (tiny, tiny)
    assert names("weights/model.gguf", "owner/name") == (str(project / "weights" / "model.gguf"), "owner/name")
    assert names("smollm2", "auto") == ("smollm2", "auto")

    names("models/tiny", "null")
    run = curate(project / "recipe.yaml")
    assert RunFolder.open(run.path).recipe.model.name == tiny
    assert RecipeFile.read(run.recipe_path).recipe.model.name == tiny
    assert "name: models/tiny" in run.recipe_path.read_text(encoding="utf-8")
