"""The commands that train arms, compare them and export them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from siftune.app.cli.arguments import AS_JSON, FOLDER
from siftune.app.cli.curation_commands import require_usable
from siftune.app.cli.output import print_file, print_json, print_report, progress_bar
from siftune.curation.errors import UserError
from siftune.curation.run.paths import RunPaths

_ARM = click.option("--arm", default="curated", show_default=True, help="The arm to export.")
_SEED = click.option("--seed", type=int, default=None, help="The training seed. Default: the recipe's first.")


@click.command()
@click.argument("recipe", type=FOLDER)
def run(recipe: Path) -> None:
    """Curate, train the arms and compare them.

    The same command continues where it stopped.
    """
    from siftune.app.cli import run_output
    from siftune.curation.data_recipe import is_data
    from siftune.curation.ingest.source_location import locate
    from siftune.curation.pipeline import curate as run_pipeline
    from siftune.curation.run.recipe_file import RecipeFile

    if is_data(str(recipe)):
        raise UserError(
            f"{recipe} is data, and `run` needs a recipe that says what to train. Write one with: siftune recipe new "
            f"{recipe} --out {recipe.name.split('.')[0]}.yaml. To curate without training: siftune curate {recipe}"
        )
    recipe_file = RecipeFile.read(recipe)
    # A file or a key that is missing is a fault before anything is curated.
    for task in recipe_file.recipe.compare.tasks:
        if task.kind != "lm-eval":
            locate(task.path, base=recipe_file.base, what="task")
    if (judge := recipe_file.recipe.compare.judge) is not None:
        from siftune.training.evaluation.judge_model import judge_endpoint

        judge_endpoint(judge)
    folder = run_pipeline(recipe, progress=progress_bar())
    print_report(run_output.curation_report(folder))
    require_usable(folder.manifest.inputs)
    if folder.recipe.training is None:
        click.echo("The recipe has no `training` section, so nothing is trained.")
        return
    _train(folder.path, arms=(), seeds=())
    _compare(folder.path)


@click.command()
@click.argument("run", type=FOLDER)
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
@AS_JSON
def train(run: Path, arms: tuple[str, ...], seeds: tuple[int, ...], *, dry_run: bool, as_json: bool) -> None:
    """Train a QLoRA adapter on each arm of RUN under one budget."""
    if not dry_run:
        _train(run, arms=arms, seeds=seeds, as_json=as_json)
        if not as_json:
            click.echo(f"\nNext  siftune compare {run}")
        return None
    from siftune.training.dry_run import dry_run as estimate_training

    estimate = estimate_training(run, arms=arms or None, seeds=seeds or None, progress=progress_bar(quiet=as_json))
    if as_json:
        return print_json({**asdict(estimate), "minutes": estimate.minutes})
    from siftune.app.cli import run_output

    return print_report(run_output.dry_run_report(estimate))


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--arm", default="curated", show_default=True, help="The arm whose rows are measured.")
@AS_JSON
def ifd(run: Path, *, arm: str, as_json: bool) -> None:
    """Measure how much prompts help the untrained base to answer (IFD)."""
    from siftune.curation.review.difficulty import ifd_summary
    from siftune.curation.run.folder import RunFolder
    from siftune.training.evaluation.ifd import measure_ifd

    folder = RunFolder.open(run)
    measure_ifd(folder, arm=arm, progress=progress_bar(quiet=as_json))
    summary = ifd_summary(folder)
    assert summary is not None
    if as_json:
        tables = {"by_source": summary.by_source.to_dicts(), "independent": summary.independent.to_dicts()}
        return print_json({"summary": summary.sentence, **tables, "file": str(folder.ifd_path)})
    from siftune.app.cli import run_output

    return print_report(run_output.difficulty_report(folder, summary))


@click.command()
@click.argument("run", type=FOLDER)
@AS_JSON
def compare(run: Path, *, as_json: bool) -> None:
    """Compare the arms of RUN: held-out loss, prompt suite, verdict."""
    _compare(run, as_json=as_json)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--prompt", "added", multiple=True, help="A prompt to add to the suite; may be repeated.")
@AS_JSON
def prompts(run: Path, added: tuple[str, ...], *, as_json: bool) -> None:
    """Answer the prompt suite with every arm of RUN, with times."""
    from siftune.training.evaluation.prompt_suite import answer_suite

    answers = answer_suite(run, added=added, progress=progress_bar(quiet=as_json))
    return print_json(answers.to_dicts()) if as_json else print_file(RunPaths(run).prompts_markdown)


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("plan", type=FOLDER)
@AS_JSON
def sweep(run: Path, plan: Path, *, as_json: bool) -> None:
    """Compare training settings or base models under one budget.

    PLAN is a YAML file that lists them; they are trained on one arm of RUN.
    """
    from siftune.training.evaluation.sweep import sweep as run_sweep

    table = run_sweep(run, plan, progress=progress_bar(quiet=as_json))
    return print_json(table.to_dicts()) if as_json else print_file(RunPaths(run).sweep_folder / "table.md")


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("row_id")
@AS_JSON
def mask(run: Path, row_id: str, *, as_json: bool) -> None:
    """Show which tokens of a row are trained (colour and brackets)."""
    from siftune.training.mask_viewer import row_tokens

    tokens = row_tokens(run, row_id)
    if as_json:
        return print_json([{"text": text, "trained": trained} for text, trained in tokens])
    from siftune.app.cli import run_output

    return print_report(run_output.mask_report(tokens))


@click.command()
@click.argument("run", type=FOLDER)
@_ARM
@_SEED
@click.option("--to", "form", type=click.Choice(["merged", "gguf"]), required=True, help="The format to write.")
@click.option("--quant", default=None, help="For gguf: a llama.cpp quantisation, such as Q4_K_M. Default: none.")
@click.option("--out", type=FOLDER, default=None, help="The folder to write. Default: RUN/exports/ARM-FORMAT.")
def export(
    run: Path, arm: str, seed: int | None, form: Literal["merged", "gguf"], quant: str | None, out: Path | None
) -> None:
    """Export an arm as a merged model or a GGUF file.

    The exported model is compared with the adapter before the command ends.
    """
    from siftune.training.export.export import export as export_arm

    click.echo(str(export_arm(run, arm, seed=seed, to=form, quant=quant, out=out, progress=progress_bar())))


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
        progress=progress_bar(quiet=as_json),
        warn=lambda sentence: click.echo(f"Note: {sentence}", err=True),
    )
    return (
        print_json([result.model_dump() for result in results])
        if as_json
        else print_report(run_output.training_report(results))
    )


def _compare(run: Path, *, as_json: bool = False) -> None:
    from siftune.training.evaluation.compare import compare as compare_arms

    verdict = compare_arms(run, prompts=True, progress=progress_bar(quiet=as_json))
    if as_json:
        return print_json(verdict.to_dict())
    print_file(RunPaths(run).prompts_markdown)
    return print_file(RunPaths(run).verdict_markdown)
