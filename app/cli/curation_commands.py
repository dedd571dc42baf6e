"""The commands from a file to a curated set: inspect, recipe, curate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from siftune.app.cli.arguments import AS_JSON, FOLDER
from siftune.app.cli.output import print_json, print_report, progress_bar
from siftune.curation.errors import UserError

if TYPE_CHECKING:
    from siftune.curation.run.manifest import SourceRecord
    from siftune.curation.run.recipe_file import RecipeFile


@click.command()
@click.argument("file", type=str)
@click.option("--format", "layout", default="auto", show_default=True, help="The format of the rows.")
@AS_JSON
def inspect(file: str, layout: str, *, as_json: bool) -> None:
    """Summarise a data set: format, roles, lengths, duplicates."""
    from siftune.curation.recipe.loading import source_from_command_line
    from siftune.curation.review.inspect import inspect as inspect_source

    source = source_from_command_line(file, layout)
    inspection = inspect_source(source, base=Path.cwd(), progress=progress_bar(quiet=as_json))
    if as_json:
        print_json(inspection.to_dict())
    else:
        from siftune.app.cli import inspect_output

        print_report(inspect_output.inspection_report(inspection))
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
    are_data = [is_data(path) for path in inputs]
    if all(are_data):
        recipe = recipe_of_data(inputs, base=Path(), run_folder=run_folder)
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
    if as_json:
        print_json(folder.manifest.to_json())
    else:
        from siftune.app.cli import run_output

        print_report(run_output.curation_report(folder))
    require_usable(folder.manifest.inputs)


@click.group()
def recipe() -> None:
    """Print a commented recipe, or the JSON Schema of recipes."""


@recipe.command("new")
def recipe_new() -> None:
    """Print a commented recipe with all defaults."""
    from siftune.curation.recipe.starting_recipe import starting_recipe

    click.echo(starting_recipe(), nl=False)


@recipe.command("schema")
@click.option("--sweep", is_flag=True, help="The schema of the plans of `siftune sweep` instead.")
def recipe_schema(*, sweep: bool) -> None:
    """Print the JSON Schema of recipes, for editors."""
    if sweep:
        from siftune.training.evaluation.sweep_plan import plan_schema

        return print_json(plan_schema())
    from siftune.curation.recipe.starting_recipe import json_schema

    return print_json(json_schema())


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
