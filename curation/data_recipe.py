"""The recipe of data that are curated without one: it names them, and leaves everything else to the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from siftune.curation.errors import UserError
from siftune.curation.ingest.file_kinds import COMPRESSED_ENDINGS, ENDINGS, file_kind, split_in_name
from siftune.curation.ingest.source_location import HUB, is_run_folder, locate
from siftune.curation.recipe.loading import parse_recipe, with_installed_encoder
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths
from siftune.curation.run.recipe_file import RecipeFile
from siftune.curation.split_names import HELD_OUT

RECIPE_ENDINGS = (".yaml", ".yml")
_HEAD = """\
# Made by `siftune curate` for data without a recipe: every setting that is not here has its default.
# After a change, continue with `siftune curate` and this file. All settings: siftune recipe new --full
"""


def is_data(path: str) -> bool:
    """Whether a word of the command line names data and not a recipe: by its ending, or since it is no file at all.

    A file without an ending is a recipe, and so is what does not exist, unless it ends as data does.

    Raises:
        UserError: it is a file that is neither, or the folder of a run.
    """
    file = Path(path).expanduser()
    if path.startswith(HUB):
        return True
    if file.suffix.lower() in RECIPE_ENDINGS:
        return False
    if file.is_dir():
        if is_run_folder(file):
            raise UserError(
                f"{path} is the folder of a run. Continue it with: siftune curate {RunPaths(file).recipe_path}"
            )
        return True
    try:
        file_kind(file)
    except UserError:
        if file.suffix and file.is_file():
            raise UserError(
                f"{path} is neither a recipe nor data that can be read. A recipe ends in {RECIPE_ENDINGS[0]}, "
                f"data in {', '.join(ENDINGS)}, each also with {' or '.join(COMPRESSED_ENDINGS)}."
            ) from None
        return not file.is_file() and any(sign in path for sign in "*?[")
    return True


def splits_of_files(paths: Sequence[str]) -> list[str | None]:
    """The split that each of several files or folders is by its name; None where it is given for no split of its own.

    Names count only beside one another: `train.jsonl` and `test.jsonl` together are two splits of one set, and
    `test.jsonl` alone is data to curate.
    """
    files = [Path(path).expanduser().absolute().resolve().name for path in paths]  # "." has the name of its folder
    names = [
        split_in_name(Path(file)) if file and not path.startswith(HUB) else None
        for path, file in zip(paths, files, strict=True)
    ]
    held_out = [name in HELD_OUT for name in names]
    return list(names) if any(held_out) and not all(held_out) else [None] * len(names)


def recipe_of_data(paths: Sequence[str], *, base: Path, run_folder: Path | None = None) -> RecipeFile:
    """The recipe of data that are curated with the defaults, and the run that it makes.

    Args:
        paths: each as `path` of a source.
        base: the folder that they are relative to.
        run_folder: the folder of the run. Default: runs/NAME in `base`, NAME being that of the first source.

    Raises:
        UserError: a path names no source, or the folder holds a run of other data or with other settings.
    """
    first, *others = [locate(path, base=base).name for path in paths]
    name = f"{first}-and-{len(others)}-more" if others else first
    run_folder = run_folder or base / "runs" / name
    sources = zip(paths, splits_of_files(paths), strict=True)
    document = {"sources": [{"path": path} | ({"split": split} if split else {}) for path, split in sources]}
    text = _HEAD + yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    if RunPaths(run_folder).manifest_path.is_file():
        earlier = RunFolder.open(run_folder).manifest
        if yaml.safe_load(earlier.recipe) != document or earlier.recipe_folder != str(base.resolve()):
            raise UserError(
                f"{run_folder} holds a run of other data or with other settings. Give this one another folder with "
                f"--run, or continue that run with: siftune curate {RunPaths(run_folder).recipe_path}"
            )
        name = earlier.recipe_name
    recipe = with_installed_encoder(parse_recipe(text))
    return RecipeFile(RunPaths(run_folder).recipe_path, text, recipe, name, base, run_folder)
