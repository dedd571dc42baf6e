"""The commands that look at a finished run: check, explain, what-if, diff, app."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from siftune.app.cli.arguments import AS_JSON, FOLDER
from siftune.app.cli.curation_commands import require_usable
from siftune.app.cli.output import print_json, print_report, progress_bar
from siftune.curation.errors import UserError


@click.command()
@click.argument("path", type=FOLDER, metavar="RECIPE | RUN")
@AS_JSON
def check(path: Path, *, as_json: bool) -> None:
    """Pass or fail data by the rules in a recipe (fail_if).

    A recipe is curated first; a run is taken as it is. Exit code 0: every rule passes; 1: a rule fails; 2: something
    is missing or wrong, such as an unknown rule. The rules: docs/data_checks.md.
    """
    from siftune.curation.data_recipe import is_data
    from siftune.curation.review.data_rules import check_rules, require_rules
    from siftune.curation.run.folder import RunFolder

    if path.is_dir():
        run = RunFolder.open(path)
    elif is_data(str(path)):
        raise UserError(
            f"{path} is data, and `check` needs a recipe with rules (fail_if). Write a recipe with: siftune recipe new "
            f"{path} --out {path.name.split('.')[0]}.yaml"
        )
    else:
        from siftune.curation.pipeline import curate
        from siftune.curation.run.recipe_file import RecipeFile

        recipe_file = RecipeFile.read(path)
        require_rules(recipe_file.recipe.fail_if, where=path)
        run = curate(recipe_file, progress=progress_bar(quiet=as_json))
        require_usable(run.manifest.inputs)
    results = check_rules(run)
    passed = all(result.passed for result in results)
    if as_json:
        print_json({"passed": passed, "run": str(run.path), "rules": [asdict(result) for result in results]})
    else:
        from siftune.app.cli import run_output

        print_report(run_output.check_report(run, results))
    sys.exit(0 if passed else 1)


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("row_id")
@AS_JSON
def explain(run: Path, row_id: str, *, as_json: bool) -> None:
    """Show the history of one row: decisions, scores, witnesses."""
    from siftune.curation.review.explain import explain as explain_row
    from siftune.curation.run.folder import RunFolder

    story = explain_row(RunFolder.open(run), row_id)
    if as_json:
        return print_json(asdict(story))
    from siftune.app.cli import run_output

    return print_report(run_output.story_report(story))


@click.command("what-if")
@click.argument("run", type=FOLDER)
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE...")
@AS_JSON
def what_if(run: Path, settings: tuple[str, ...], *, as_json: bool) -> None:
    """Show which rows other thresholds would drop.

    Examples: near=0.7, semantic=0.93, answers=0.85, max_per_answer=3, contamination=0.8.
    """
    from siftune.curation.review.what_if import replay
    from siftune.curation.run.folder import RunFolder

    folder = RunFolder.open(run)
    replayed = replay(folder, dict(_name_and_number(setting) for setting in settings))
    if as_json:
        dropped = replayed.dropped().to_dicts()
        return print_json({"left": replayed.left.height, "unmeasured": replayed.unmeasured, "dropped": dropped})
    from siftune.app.cli import run_output

    return print_report(run_output.replay_report(folder, replayed))


@click.command()
@click.argument("before", type=FOLDER)
@click.argument("after", type=FOLDER)
@AS_JSON
def diff(before: Path, after: Path, *, as_json: bool) -> None:
    """Show which rows have another fate in a second run."""
    from siftune.curation.review.diff import diff as compare_fates
    from siftune.curation.run.folder import RunFolder

    changed = compare_fates(RunFolder.open(before), RunFolder.open(after))
    if as_json:
        return print_json(changed.to_dicts())
    from siftune.app.cli import run_output

    return print_report(run_output.diff_report(changed))


@click.command("map")
@click.argument("run", type=FOLDER)
@click.argument("file", type=FOLDER)
def map_rows(run: Path, file: Path) -> None:
    """Write the map of RUN to FILE.parquet, for other viewers.

    Columns: id, x, y, topic, fate, source, text (the prompt). Embedding Atlas opens it with:
    embedding-atlas FILE.parquet --x x --y y --text text
    """
    from siftune.curation.review.row_map import export_map
    from siftune.curation.run.folder import RunFolder

    rows = export_map(RunFolder.open(run), file)
    click.echo(f"{file}: {rows:,} rows with their places on the map")


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--port", type=int, default=None, help="The port. Default: the first free one from 8501 on.")
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. With any other address, other machines can reach the app.",
)
@click.option(
    "--headless/--browser", default=None, help="Whether to open a browser. Default: only where there is a display."
)
def app(run: Path, port: int | None, address: str, *, headless: bool | None) -> None:
    """Open RUN in a browser: rows, decisions, training, chat."""
    from siftune.app.web.launch import launch

    sys.exit(launch(run, address=address, port=port, headless=headless))


def _name_and_number(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"what-if takes NAME=NUMBER, for example near=0.7; found {text!r}.") from None
