"""The command that publishes a curated set: push."""

from __future__ import annotations

from pathlib import Path

import click

from siftune.app.cli.arguments import AS_JSON, FOLDER
from siftune.app.cli.output import print_json, print_report


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("target", metavar="hf://OWNER/NAME")
@click.option("--dry-run", is_flag=True, help="Show files, sizes and the dataset card; no network is used.")
@click.option("--public", is_flag=True, help="Everybody may read the data set. Default: it is private.")
@AS_JSON
def push(run: Path, target: str, *, dry_run: bool, public: bool, as_json: bool) -> None:
    """Push the curated set of RUN to the Hugging Face hub.

    All splits, the dataset card and an entry for LLaMA-Factory arrive in one commit. The token is that of `hf auth
    login` or HF_TOKEN. What siftune did not push is never overwritten.
    """
    from siftune.curation.publishing.hub import prepare_upload
    from siftune.curation.publishing.hub import push as push_to_hub
    from siftune.curation.run.folder import RunFolder

    upload = prepare_upload(RunFolder.open(run), target)
    address = None if dry_run else push_to_hub(upload, public=public)
    if as_json:
        document = {"repository": upload.repository, "public": public, "files": upload.sizes(), "card": upload.card}
        return print_json({**document, "address": address})
    from siftune.app.cli import publishing_output

    return print_report(publishing_output.push_report(upload, address, public=public))
