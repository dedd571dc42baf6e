"""The command line. The only module that prints; everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from curation.errors import UserError

_FOLDER = click.Path(path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


class _Commands(click.Group):
    """Commands in the order of the main path; a `UserError` becomes one message and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as fault:
            click.echo(f"siftune: {fault}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("siftune: interrupted; the same command continues where it stopped", err=True)
            sys.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="siftune")
def main() -> None:
    """Curate instruction data, fine-tune on raw and curated, and show whether it helped."""


def _progress(*, quiet: bool = False) -> Callable[[str, int, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None
    from app.progress import Bar

    return Bar()


def _emit(document: object) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


@main.command()
@click.argument("file", type=str)
@click.option("--format", "layout", default="auto", help="Read the rows as this format.")
@_AS_JSON
def inspect(file: str, layout: str, *, as_json: bool) -> None:
    """Say what a data set is: format, roles, lengths, duplicates at a glance."""
    from app import telling
    from curation.inspect import inspect as look

    found = look(telling.source(file, layout), base=Path.cwd())
    _emit(found.to_dict()) if as_json else telling.inspection(found)


@main.command()
@click.argument("recipe", type=_FOLDER)
@_AS_JSON
def run(recipe: Path, *, as_json: bool) -> None:
    """The whole job: curate, train the arms, compare, report. Continues where it stopped."""
    from app import job

    job.whole(recipe, progress=_progress(quiet=as_json), as_json=as_json)


@main.command()
@click.argument("recipe", type=_FOLDER)
@_AS_JSON
def curate(recipe: Path, *, as_json: bool) -> None:
    """Only the first part: a curated set, explained row by row."""
    from app import telling
    from curation.pipeline import curate as work

    made = work(recipe, progress=_progress(quiet=as_json))
    _emit(made.manifest) if as_json else telling.curated(made)


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--arm", "arms", multiple=True, help="An arm to train; may be repeated. Default: those of the recipe.")
@click.option("--seed", "seeds", multiple=True, type=int, help="A seed; may be repeated. Default: those of the recipe.")
@click.option("--dry-run", is_flag=True, help="Only rows, tokens, steps, minutes and memory, from a three-step probe.")
@_AS_JSON
def train(run: Path, arms: tuple[str, ...], seeds: tuple[int, ...], *, dry_run: bool, as_json: bool) -> None:
    """Train a QLoRA adapter on each arm of RUN, under one budget."""
    from app import job

    job.train(run, arms=arms, seeds=seeds, dry_run=dry_run, progress=_progress(quiet=as_json), as_json=as_json)


@main.command()
@click.argument("run", type=_FOLDER)
@_AS_JSON
def compare(run: Path, *, as_json: bool) -> None:
    """Held-out loss of the arms of RUN, the prompt suite, and the verdict."""
    from app import job

    job.compare(run, progress=_progress(quiet=as_json), as_json=as_json)
