"""The command that fills an index of curated rows which a team shares."""

from __future__ import annotations

from pathlib import Path

import click

from siftune.app.cli.arguments import AS_JSON, FOLDER
from siftune.app.cli.output import print_json, progress_bar


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("address", metavar="redis://HOST:PORT/DB")
@click.option("--name", help="What ids begin with in the index. Default: the name of the recipe.")
@AS_JSON
def index(run: Path, address: str, *, name: str | None, as_json: bool) -> None:
    """Put the kept rows of a run into an index in Redis.

    Recipes name it under `against`, so that a team curates against one living index: docs/incremental.md. It can be
    filled by many runs; rows that stand in it already stay. The index is called `siftune` unless the address ends in
    ?index=NAME. A password is read from the environment variable REDIS_PASSWORD.
    """
    from siftune.curation.against.indexed_rows import index_run
    from siftune.curation.run.folder import RunFolder

    rows = index_run(RunFolder.open(run), address, name=name, progress=progress_bar(quiet=as_json))
    if as_json:
        print_json({"index": address, "rows": rows})
    else:
        click.echo(f"The index {address} holds the {rows:,} kept rows of {run}.")
