"""The commands from a file to a curated set: inspect, recipe, curate."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from siftune.app.cli.arguments import AS_JSON, COLUMNS, FOLDER
from siftune.app.cli.output import print_json, print_report, progress_bar
from siftune.curation.errors import UserError

if TYPE_CHECKING:
    from siftune.curation.run.manifest import SourceRecord
    from siftune.curation.run.recipe_file import RecipeFile


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE")
@click.option("--format", "layout", default="auto", show_default=True, help="The format of the rows.")
@COLUMNS
@AS_JSON
def inspect(files: tuple[str, ...], layout: str, columns: tuple[tuple[str, str], ...], *, as_json: bool) -> None:
    """Summarise a data set: format, roles, lengths, duplicates.

    FILE is a data file, a folder, a glob or hf://owner/name.
    """
    from siftune.curation.recipe.loading import source_from_command_line
    from siftune.curation.review.inspect import inspect as inspect_source

    if len(files) > 1:
        several = shlex.join(files)
        raise UserError(
            f"{len(files)} data sets were named; `siftune inspect` summarises one (a file, a folder or a glob). "
            f"What they hold together: siftune curate {several}"
        )
    source = source_from_command_line(files[0], layout).model_copy(update={"columns": dict(columns)})
    inspection = inspect_source(source, base=Path.cwd(), progress=progress_bar(quiet=as_json))
    if as_json:
        print_json(inspection.to_dict())
    else:
        from siftune.app.cli import inspect_output

        print_report(inspect_output.inspection_report(inspection, dict(columns)))
    require_usable([inspection.source])


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="RECIPE | FILE...")
@click.option("--run", "run_folder", type=FOLDER, help="The run folder of data files. Default: runs/NAME.")
@AS_JSON
def curate(inputs: tuple[str, ...], run_folder: Path | None, *, as_json: bool) -> None:
    """Curate by a recipe, or data files with the defaults.

    RECIPE is a YAML file (see `siftune recipe new`). FILE is a data file, a folder, a glob or hf://owner/name; several
    become one set. The same command continues where it stopped.
    """
    from siftune.curation.data_recipe import is_data, recipe_of_data
    from siftune.curation.pipeline import curate as run_pipeline

    recipe: Path | RecipeFile
    is_new = False
    are_data = [is_data(path) for path in inputs]
    if all(are_data):
        recipe = recipe_of_data(inputs, base=Path(), run_folder=run_folder)
        is_new = not recipe.run_folder.exists()
        if not as_json:
            from siftune.app.cli import inspect_output

            print_report(inspect_output.defaults_report(recipe))
    elif len(inputs) > 1:
        recipes = ", ".join(path for path, data in zip(inputs, are_data, strict=True) if not data)
        raise UserError(f"curate takes one recipe or any number of data files; found {recipes} among several files.")
    elif run_folder is not None:
        raise UserError("--run is for data files; a recipe names its run folder itself: write `run:` in it.")
    else:
        recipe = Path(inputs[0])
    folder = run_pipeline(recipe, progress=progress_bar(quiet=as_json))
    read = folder.manifest.inputs
    if is_new and not any(source.rows for source in read):
        shutil.rmtree(folder.path)  # it would stand in the way of data of the same name
    require_usable(read)
    if as_json:
        print_json(folder.manifest.to_json())
    else:
        from siftune.app.cli import run_output

        print_report(run_output.curation_report(folder))


@click.group()
def recipe() -> None:
    """Write a recipe for data files, or print all settings."""


@recipe.command("new")
@click.argument("files", nargs=-1, metavar="[FILE...]")
@COLUMNS
@click.option("--full", is_flag=True, help="Every setting with its default and what it means.")
@click.option("--out", type=FOLDER, help="Write the recipe to this file, which must not exist. Default: print it.")
def recipe_new(files: tuple[str, ...], columns: tuple[tuple[str, str], ...], out: Path | None, *, full: bool) -> None:
    """Write a recipe for data files.

    The files are read as by `siftune inspect`; what is found decides what stands in the recipe, with the reason beside
    it. FILE is a data file, a folder, a glob or hf://owner/name. Without FILE: a short recipe to fill in.
    """
    from siftune.curation.recipe.starting_recipe import short_recipe, starting_recipe

    folder = out.parent if out is not None else Path()
    if out is not None and out.exists():
        raise UserError(f"{out} exists and is left as it is. Give another name to --out, or remove the file.")
    if out is not None and not folder.is_dir():
        raise UserError(f"There is no folder {folder} to write {out.name} into. Make it, or give another --out.")
    if full:
        from siftune.curation.review.suggested_recipe import path_in_recipe

        paths = [path_in_recipe(file, data_folder=Path(), recipe_folder=folder) for file in files]
        text = starting_recipe(paths or ("data.jsonl",))
    elif files:
        text = _recipe_for(files, dict(columns), folder=folder)
    else:
        text = short_recipe()
    if out is None:
        click.echo(text, nl=False)
        return
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    click.echo(f"Wrote {out}. Read it, change what you like, and then: siftune curate {out}")


@recipe.command("schema")
@click.option("--sweep", is_flag=True, help="The schema of the plans of `siftune sweep` instead.")
def recipe_schema(*, sweep: bool) -> None:
    """Print the JSON Schema of recipes, for editors."""
    if sweep:
        from siftune.training.evaluation.sweep_plan import plan_schema

        return print_json(plan_schema())
    from siftune.curation.recipe.starting_recipe import json_schema

    return print_json(json_schema())


@recipe.command("reference")
def recipe_reference() -> None:
    """Print every setting, with its default."""
    from siftune.curation.recipe.reference import recipe_reference as reference

    click.echo(reference(), nl=False)


def _recipe_for(files: Sequence[str], columns: dict[str, str], *, folder: Path) -> str:
    """The recipe for data files, whose `columns` have these roles; `folder` is where it will be."""
    from siftune.curation.data_recipe import splits_of_files
    from siftune.curation.recipe.loading import source_from_command_line
    from siftune.curation.review.inspect import inspect as inspect_source
    from siftune.curation.review.suggested_recipe import suggested_recipe

    inspections, splits = [], splits_of_files(files)
    for file, split in zip(files, splits, strict=True):
        source = source_from_command_line(file, "auto").model_copy(update={"columns": columns, "split": split})
        inspections.append(inspect_source(source, base=Path(), progress=progress_bar()))
        require_usable([inspections[-1].source])
    return suggested_recipe(inspections, data_folder=Path(), recipe_folder=folder, columns=columns, splits=splits)


def require_usable(sources: Sequence[SourceRecord]) -> None:
    """Raise `UserError` when no row of the sources can be used."""
    if any(source.examples for source in sources):
        return
    paths = ", ".join(source.path for source in sources)
    rows = sum(source.rows for source in sources)
    if not rows:
        raise UserError(f"{paths}: there are no rows.")
    reasons = Counter[str]()
    for source in sources:
        reasons.update(source.quarantined)
    counted = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    raise UserError(
        f"{paths}: none of the {rows:,} rows can be used ({counted}). `siftune inspect` shows the first row of each "
        "reason and what to do."
    )
