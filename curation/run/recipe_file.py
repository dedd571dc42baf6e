"""A recipe file, and the run that it makes: a recipe of the user, or the one that a run keeps in its own folder.

A run keeps the text of its recipe as RUN/recipe.yaml. Curating that file continues the run: the name, the run folder
and the folder that relative paths start from are those that the manifest beside it records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import load_recipe, recipe_text, with_installed_encoder, with_model_paths
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that was read from a file.

    Attributes:
        path: the file.
        text: what stands in it.
        recipe: the same, checked, with the paths of its models in full, and the encoder that there is for `auto`.
        name: the recipe's name.
        base: the folder that relative paths in it start from.
        run_folder: the folder of the run that it makes.
    """

    path: Path
    text: str
    recipe: Recipe
    name: str
    base: Path
    run_folder: Path

    @classmethod
    def read(cls, path: Path) -> RecipeFile:
        """Read and check a recipe file.

        Raises:
            UserError: see `load_recipe`; or the file is the recipe of a run whose sources are gone.
        """
        recipe = load_recipe(path)
        text = recipe_text(path)
        beside = RunPaths(path.parent)
        if path.name == beside.recipe_path.name and beside.manifest_path.is_file():
            manifest = RunFolder.open(path.parent).manifest
            base = Path(manifest.recipe_folder)
            _require_base(path, recipe, base)
            recipe = with_installed_encoder(with_model_paths(recipe, base))
            return cls(path, text, recipe, recipe.name or manifest.recipe_name, base, path.parent)
        name = recipe.name or path.stem
        run_folder = Path(os.path.normpath(path.parent / (recipe.run or f"runs/{name}")))  # without `data/../`
        recipe = with_installed_encoder(with_model_paths(recipe, path.parent))
        return cls(path, text, recipe, name, path.parent, run_folder)


def _require_base(path: Path, recipe: Recipe, base: Path) -> None:
    """Raise `UserError` when the recipe names files relative to a folder that is gone."""
    relative = next((name for name in _input_paths(recipe) if not Path(name).is_absolute() and "://" not in name), None)
    if relative is not None and not base.is_dir():
        raise UserError(
            f"{path} names {relative}, a path relative to {base}, which is gone. Put that folder back, or write the "
            "paths of the recipe in full."
        )


def _input_paths(recipe: Recipe) -> Iterator[str]:
    yield from (source.path for source in (*recipe.sources, *recipe.against))
    if recipe.contamination is not None:
        yield from (reference.path for reference in recipe.contamination.references)
    if recipe.balance is not None and recipe.balance.reference is not None:
        yield recipe.balance.reference
