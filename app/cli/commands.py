"""The command line. The only module that prints; everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from siftune.curation.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

_FOLDER = click.Path(path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
_ARM = click.option("--arm", default="curated", show_default=True, help="The arm.")
_SEED = click.option("--seed", type=int, default=None, help="The training seed. Default: the recipe's first.")


class _Commands(click.Group):
    """Commands in the order of the main path; a `UserError` becomes one message and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as fault:
            click.echo(f"siftune: {fault}", err=True)
            sys.exit(2)
        except BrokenPipeError:
            sys.exit(0)
        except KeyboardInterrupt:
            click.echo("siftune: interrupted; the same command continues where it stopped", err=True)
            sys.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="siftune")
def main() -> None:
    """Curate instruction data, fine-tune on raw and curated, and show whether it helped."""


@main.command()
@click.argument("file", type=str)
@click.option("--format", "layout", default="auto", help="Read the rows as this format.")
@_AS_JSON
def inspect(file: str, layout: str, *, as_json: bool) -> None:
    """Say what a data set is: format, roles, lengths, duplicates at a glance."""
    from siftune.curation.recipe.loading import source_from_command_line
    from siftune.curation.review.inspect import inspect as look

    found = look(source_from_command_line(file, layout), base=Path.cwd(), progress=_progress(quiet=as_json))
    if as_json:
        return _emit(found.to_dict())
    from siftune.app.cli import inspect_output

    return _show(inspect_output.inspection(found))


@main.command()
@click.argument("recipe", type=_FOLDER)
def run(recipe: Path) -> None:
    """The whole job: curate, train the arms, compare, report. Continues where it stopped."""
    from siftune.app.cli import run_output
    from siftune.curation.pipeline import curate as work

    made = work(recipe, progress=_progress())
    _show(run_output.curated(made))
    if made.recipe.training is None:
        click.echo("The recipe has no `training:`, so the job ends here.")
        return
    _train(made.path, arms=(), seeds=())
    _compare(made.path)


@main.command()
@click.argument("recipe", type=_FOLDER)
@_AS_JSON
def curate(recipe: Path, *, as_json: bool) -> None:
    """Only the first part: a curated set, explained row by row."""
    from siftune.curation.pipeline import curate as work

    made = work(recipe, progress=_progress(quiet=as_json))
    if as_json:
        return _emit(made.manifest)
    from siftune.app.cli import run_output

    return _show(run_output.curated(made))


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--arm", "arms", multiple=True, help="An arm to train; may be repeated. Default: those of the recipe.")
@click.option("--seed", "seeds", multiple=True, type=int, help="A seed; may be repeated. Default: the recipe's.")
@click.option("--dry-run", is_flag=True, help="Only say rows, tokens, steps, minutes and memory, from three steps.")
@_AS_JSON
def train(run: Path, arms: tuple[str, ...], seeds: tuple[int, ...], *, dry_run: bool, as_json: bool) -> None:
    """Train a QLoRA adapter on each arm of RUN, under one budget."""
    if not dry_run:
        return _train(run, arms=arms, seeds=seeds, as_json=as_json)
    from siftune.training.dry_run import dry_run as probe

    found = probe(run, arms=arms or None, seeds=seeds or None, progress=_progress(quiet=as_json))
    if as_json:
        return _emit({**asdict(found), "minutes": found.minutes})
    from siftune.app.cli import run_output

    return _show(run_output.planned(found))


@main.command()
@click.argument("run", type=_FOLDER)
@_AS_JSON
def compare(run: Path, *, as_json: bool) -> None:
    """Held-out loss of the arms of RUN, the prompt suite, and the verdict."""
    _compare(run, as_json=as_json)


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--prompt", "added", multiple=True, help="A prompt besides the suite; may be repeated.")
@_AS_JSON
def prompts(run: Path, added: tuple[str, ...], *, as_json: bool) -> None:
    """Answer the prompt suite with every arm of RUN: answers, seconds, tokens, averages."""
    from siftune.training.evaluation.prompt_suite import answer

    found = answer(run, added=added, progress=_progress(quiet=as_json))
    return _emit(found.to_dicts()) if as_json else _read(run / "prompts" / "prompts.md")


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("plan", type=_FOLDER)
@_AS_JSON
def sweep(run: Path, plan: Path, *, as_json: bool) -> None:
    """Compare settings or base models on one arm of RUN under one budget, as PLAN (YAML) lists them."""
    from siftune.training.evaluation.sweep import sweep as work

    found = work(run, plan, progress=_progress(quiet=as_json))
    return _emit(found.to_dicts()) if as_json else _read(run / "sweep" / "table.md")


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("row_id")
@_AS_JSON
def mask(run: Path, row_id: str, *, as_json: bool) -> None:
    """Show token by token what is trained of a row: trained tokens are in colour and brackets."""
    from siftune.training.dry_run import mask as tokens

    found = tokens(run, row_id)
    if as_json:
        return _emit([{"text": text, "trained": trained} for text, trained in found])
    return _show(_masked(found))


@main.command()
@click.argument("run", type=_FOLDER)
@_ARM
@_SEED
@click.option("--to", "form", type=click.Choice(["merged", "gguf"]), required=True, help="What to write.")
@click.option("--quant", default=None, help="For gguf: a llama.cpp quantisation such as Q4_K_M. Default: none.")
@click.option("--out", type=_FOLDER, default=None, help="Where to. Default: RUN/exports/ARM-FORM.")
def export(
    run: Path, arm: str, seed: int | None, form: Literal["merged", "gguf"], quant: str | None, out: Path | None
) -> None:
    """Write an arm's model for others to load, and check that it still answers as the adapter does."""
    from siftune.training.export.export import export as work

    click.echo(str(work(run, arm, seed=seed, to=form, quant=quant, out=out, progress=_progress())))


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("row_id")
@_AS_JSON
def explain(run: Path, row_id: str, *, as_json: bool) -> None:
    """The story of one row: texts, scores, witness, and what became of the witness."""
    from siftune.curation.review.explain import explain as tell
    from siftune.curation.run.folder import RunFolder

    told = tell(RunFolder.open(run), row_id)
    if as_json:
        return _emit(asdict(told))
    from siftune.app.cli import run_output

    return _show(run_output.story(told))


@main.command("what-if")
@click.argument("run", type=_FOLDER)
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE...")
@_AS_JSON
def what_if(run: Path, settings: tuple[str, ...], *, as_json: bool) -> None:
    """How many rows, and which, at another threshold.

    Such as near=0.7, semantic=0.93, answers=0.85, max_per_answer=3 or contamination=0.8.
    """
    from siftune.curation.review.what_if import replay
    from siftune.curation.run.folder import RunFolder

    opened = RunFolder.open(run)
    found = replay(opened, dict(_setting(each) for each in settings))
    if as_json:
        return _emit({"left": found.left.height, "unmeasured": found.unmeasured, "dropped": found.dropped().to_dicts()})
    from siftune.app.cli import run_output

    return _show(run_output.replayed(opened, found))


@main.command()
@click.argument("before", type=_FOLDER)
@click.argument("after", type=_FOLDER)
@_AS_JSON
def diff(before: Path, after: Path, *, as_json: bool) -> None:
    """Which rows changed fate between two runs."""
    from siftune.curation.review.diff import diff as rows_that_changed
    from siftune.curation.run.folder import RunFolder

    changed = rows_that_changed(RunFolder.open(before), RunFolder.open(after))
    if as_json:
        return _emit(changed.to_dicts())
    from siftune.app.cli import run_output

    return _show(run_output.changes(changed))


@main.group()
def recipe() -> None:
    """Recipes: a commented one to start from, and the JSON Schema for editors."""


@recipe.command("new")
def recipe_new() -> None:
    """Print a commented recipe with every default."""
    from siftune.curation.recipe.starting_recipe import starting_recipe

    click.echo(starting_recipe(), nl=False)


@recipe.command("schema")
def recipe_schema() -> None:
    """Print the JSON Schema of a recipe."""
    from siftune.curation.recipe.starting_recipe import json_schema

    _emit(json_schema())


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--port", type=int, default=None, help="Default: the first free one from 8501 on.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Another address shows the data to others.")
@click.option(
    "--headless/--browser", default=None, help="Whether to open no browser. Default: when there is no display."
)
def app(run: Path, port: int | None, address: str, *, headless: bool | None) -> None:
    """Open RUN in a browser: the data, every decision, the training, and a chat with the arms."""
    from siftune.app.web.launch import launch

    sys.exit(launch(run, address=address, port=port, headless=headless))


def _train(run: Path, *, arms: tuple[str, ...], seeds: tuple[int, ...], as_json: bool = False) -> None:
    from siftune.app.cli import run_output
    from siftune.training.arms import train as work

    found = work(run, arms=arms or None, seeds=seeds or None, progress=_progress(quiet=as_json))
    return _emit(found) if as_json else _show(run_output.trained(found))


def _compare(run: Path, *, as_json: bool = False) -> None:
    from siftune.training.evaluation.evaluate import evaluate
    from siftune.training.evaluation.prompt_suite import answer
    from siftune.training.evaluation.verdict import judge

    progress = _progress(quiet=as_json)
    evaluate(run, progress=progress)
    answer(run, progress=progress)
    found = judge(run, progress=progress)
    if as_json:
        return _emit(found.to_dict())
    _read(run / "prompts" / "prompts.md")
    return _read(run / "verdict.md")


def _masked(tokens: list[tuple[str, bool]]) -> RenderableType:
    from rich.text import Text

    from siftune.app.cli.terminal import plain

    shown = Text()
    for text, trained in tokens:
        shown.append(f"[{plain(text)}]" if trained else plain(text), style="bold green" if trained else "dim")
    return shown


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"what-if takes NAME=NUMBER, for example near=0.7; found {text!r}.") from None


def _progress(*, quiet: bool = False) -> Callable[[str, int, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None
    from siftune.app.cli.progress_bar import Bar

    return Bar()


def _read(path: Path) -> None:
    click.echo(path.read_text(encoding="utf-8"))


def _show(told: RenderableType) -> None:
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(told)


def _emit(document: object) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))
