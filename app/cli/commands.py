"""The commands. Only this module prints; each command imports the heavy packages that it needs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from siftune.app.cli.system_faults import replace_unencodable_output, system_message
from siftune.curation.errors import UserError
from siftune.curation.run.paths import RunPaths

if TYPE_CHECKING:
    from rich.console import RenderableType

    from siftune.curation.run.manifest import SourceRecord

_FOLDER = click.Path(path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ARM = click.option("--arm", default="curated", show_default=True, help="The arm to export.")
_SEED = click.option("--seed", type=int, default=None, help="The training seed. Default: the recipe's first.")


class _CommandGroup(click.Group):
    """Lists commands in the order of their use. A `UserError` becomes one message and exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        replace_unencodable_output()
        try:
            return super().main(*args, **options)
        except OSError as fault:  # of `--help` and `--version`, too, which click prints before it invokes a command
            if (message := system_message(fault)) is None:
                raise
            click.echo(f"siftune: {message}", err=True)
            sys.exit(2)

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
            click.echo("siftune: interrupted. Run the same command again to continue.", err=True)
            sys.exit(130)


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="siftune")
def main() -> None:
    """Curate instruction data, fine-tune on the raw and the curated data, and measure whether it helped."""


@main.command()
@click.argument("file", type=str)
@click.option("--format", "layout", default="auto", show_default=True, help="The format of the rows.")
@_AS_JSON
def inspect(file: str, layout: str, *, as_json: bool) -> None:
    """Summarise a data set: format, roles, lengths, duplicates."""
    from siftune.curation.recipe.loading import source_from_command_line
    from siftune.curation.review.inspect import inspect as inspect_source

    source = source_from_command_line(file, layout)
    inspection = inspect_source(source, base=Path.cwd(), progress=_progress(quiet=as_json))
    if as_json:
        _print_json(inspection.to_dict())
    else:
        from siftune.app.cli import inspect_output

        _print(inspect_output.inspection_report(inspection))
    _require_usable([inspection.source])


@main.command()
@click.argument("recipe", type=_FOLDER)
def run(recipe: Path) -> None:
    """Curate, train the arms and compare them.

    The same command continues where it stopped.
    """
    from siftune.app.cli import run_output
    from siftune.curation.ingest.source_location import locate
    from siftune.curation.pipeline import curate as run_pipeline
    from siftune.curation.run.recipe_file import RecipeFile

    recipe_file = RecipeFile.read(recipe)
    # A file or a key that is missing is a fault before anything is curated.
    for task in recipe_file.recipe.compare.tasks:
        if task.kind != "lm-eval":
            locate(task.path, base=recipe_file.base, what="task")
    if (judge := recipe_file.recipe.compare.judge) is not None:
        from siftune.training.evaluation.judge_model import judge_endpoint

        judge_endpoint(judge)
    folder = run_pipeline(recipe, progress=_progress())
    _print(run_output.curation_report(folder))
    _require_usable(folder.manifest.inputs)
    if folder.recipe.training is None:
        click.echo("The recipe has no `training` section, so nothing is trained.")
        return
    _train(folder.path, arms=(), seeds=())
    _compare(folder.path)


@main.command()
@click.argument("recipe", type=_FOLDER)
@_AS_JSON
def curate(recipe: Path, *, as_json: bool) -> None:
    """Curate only, without training."""
    from siftune.curation.pipeline import curate as run_pipeline

    folder = run_pipeline(recipe, progress=_progress(quiet=as_json))
    if as_json:
        _print_json(folder.manifest.to_json())
    else:
        from siftune.app.cli import run_output

        _print(run_output.curation_report(folder))
    _require_usable(folder.manifest.inputs)


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--arm", "arms", multiple=True, help="An arm to train; may be repeated. Default: all arms of the recipe.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=int,
    help="A training seed; may be repeated. Default: all seeds of the recipe.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Estimate rows, tokens, steps, minutes and memory from three steps, and train nothing.",
)
@_AS_JSON
def train(run: Path, arms: tuple[str, ...], seeds: tuple[int, ...], *, dry_run: bool, as_json: bool) -> None:
    """Train a QLoRA adapter on each arm of RUN under one budget."""
    if not dry_run:
        return _train(run, arms=arms, seeds=seeds, as_json=as_json)
    from siftune.training.dry_run import dry_run as estimate_training

    estimate = estimate_training(run, arms=arms or None, seeds=seeds or None, progress=_progress(quiet=as_json))
    if as_json:
        return _print_json({**asdict(estimate), "minutes": estimate.minutes})
    from siftune.app.cli import run_output

    return _print(run_output.dry_run_report(estimate))


@main.command()
@click.argument("run", type=_FOLDER)
@_AS_JSON
def compare(run: Path, *, as_json: bool) -> None:
    """Compare the arms of RUN: held-out loss, prompt suite, verdict."""
    _compare(run, as_json=as_json)


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--prompt", "added", multiple=True, help="A prompt to add to the suite; may be repeated.")
@_AS_JSON
def prompts(run: Path, added: tuple[str, ...], *, as_json: bool) -> None:
    """Answer the prompt suite with every arm of RUN, with times."""
    from siftune.training.evaluation.prompt_suite import answer_suite

    answers = answer_suite(run, added=added, progress=_progress(quiet=as_json))
    return _print_json(answers.to_dicts()) if as_json else _print_file(RunPaths(run).prompts_markdown)


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("plan", type=_FOLDER)
@_AS_JSON
def sweep(run: Path, plan: Path, *, as_json: bool) -> None:
    """Compare training settings or base models under one budget.

    PLAN is a YAML file that lists them; they are trained on one arm of RUN.
    """
    from siftune.training.evaluation.sweep import sweep as run_sweep

    table = run_sweep(run, plan, progress=_progress(quiet=as_json))
    return _print_json(table.to_dicts()) if as_json else _print_file(RunPaths(run).sweep_folder / "table.md")


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("row_id")
@_AS_JSON
def mask(run: Path, row_id: str, *, as_json: bool) -> None:
    """Show which tokens of a row are trained (colour and brackets)."""
    from siftune.training.mask_viewer import row_tokens

    tokens = row_tokens(run, row_id)
    if as_json:
        return _print_json([{"text": text, "trained": trained} for text, trained in tokens])
    from siftune.app.cli import run_output

    return _print(run_output.mask_report(tokens))


@main.command()
@click.argument("run", type=_FOLDER)
@_ARM
@_SEED
@click.option("--to", "form", type=click.Choice(["merged", "gguf"]), required=True, help="The format to write.")
@click.option("--quant", default=None, help="For gguf: a llama.cpp quantisation, such as Q4_K_M. Default: none.")
@click.option("--out", type=_FOLDER, default=None, help="The folder to write. Default: RUN/exports/ARM-FORMAT.")
def export(
    run: Path, arm: str, seed: int | None, form: Literal["merged", "gguf"], quant: str | None, out: Path | None
) -> None:
    """Export an arm as a merged model or a GGUF file.

    The exported model is compared with the adapter before the command ends.
    """
    from siftune.training.export.export import export as export_arm

    click.echo(str(export_arm(run, arm, seed=seed, to=form, quant=quant, out=out, progress=_progress())))


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("row_id")
@_AS_JSON
def explain(run: Path, row_id: str, *, as_json: bool) -> None:
    """Show the history of one row: decisions, scores, witnesses."""
    from siftune.curation.review.explain import explain as explain_row
    from siftune.curation.run.folder import RunFolder

    story = explain_row(RunFolder.open(run), row_id)
    if as_json:
        return _print_json(asdict(story))
    from siftune.app.cli import run_output

    return _print(run_output.story_report(story))


@main.command("what-if")
@click.argument("run", type=_FOLDER)
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE...")
@_AS_JSON
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
        return _print_json({"left": replayed.left.height, "unmeasured": replayed.unmeasured, "dropped": dropped})
    from siftune.app.cli import run_output

    return _print(run_output.replay_report(folder, replayed))


@main.command()
@click.argument("before", type=_FOLDER)
@click.argument("after", type=_FOLDER)
@_AS_JSON
def diff(before: Path, after: Path, *, as_json: bool) -> None:
    """Show which rows have another fate in a second run."""
    from siftune.curation.review.diff import diff as compare_fates
    from siftune.curation.run.folder import RunFolder

    changed = compare_fates(RunFolder.open(before), RunFolder.open(after))
    if as_json:
        return _print_json(changed.to_dicts())
    from siftune.app.cli import run_output

    return _print(run_output.diff_report(changed))


@main.group()
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

        return _print_json(plan_schema())
    from siftune.curation.recipe.starting_recipe import json_schema

    return _print_json(json_schema())


@main.command()
@click.argument("run", type=_FOLDER)
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


def _train(run: Path, *, arms: tuple[str, ...], seeds: tuple[int, ...], as_json: bool = False) -> None:
    from siftune.app.cli import run_output
    from siftune.curation.run.folder import RunFolder
    from siftune.training.arms import train as train_arms
    from siftune.training.evaluation.tasks.score_tasks import check_tasks

    check_tasks(RunFolder.open(run))  # a task that cannot be read is a fault before the training, and not after it
    results = train_arms(
        run,
        arms=arms or None,
        seeds=seeds or None,
        progress=_progress(quiet=as_json),
        warn=lambda sentence: click.echo(f"Note: {sentence}", err=True),
    )
    return (
        _print_json([result.model_dump() for result in results])
        if as_json
        else _print(run_output.training_report(results))
    )


def _compare(run: Path, *, as_json: bool = False) -> None:
    from siftune.training.evaluation.compare import compare as compare_arms

    verdict = compare_arms(run, prompts=True, progress=_progress(quiet=as_json))
    if as_json:
        return _print_json(verdict.to_dict())
    _print_file(RunPaths(run).prompts_markdown)
    return _print_file(RunPaths(run).verdict_markdown)


def _require_usable(sources: Sequence[SourceRecord]) -> None:
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


def _name_and_number(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"what-if takes NAME=NUMBER, for example near=0.7; found {text!r}.") from None


def _progress(*, quiet: bool = False) -> Callable[[str, int, int], None] | None:
    if quiet or not sys.stderr.isatty():
        return None
    from siftune.app.cli.progress_bar import ProgressBar

    return ProgressBar()


def _print_file(path: Path) -> None:
    click.echo(path.read_text(encoding="utf-8"))


def _print(output: RenderableType) -> None:
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(output)


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))
