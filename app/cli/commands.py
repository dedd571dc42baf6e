"""The command `siftune`: its commands in the order of their use, and how it ends when something is wrong.

Only the modules of this folder print; each command imports the heavy packages that it needs.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from siftune.app.cli import curation_commands, index_commands, publishing_commands, review_commands, training_commands
from siftune.app.cli.system_faults import replace_unencodable_output, system_message
from siftune.curation.errors import UserError


class _CommandGroup(click.Group):
    """Lists commands in the order of their use. A `UserError` becomes one message and exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        replace_unencodable_output()
        try:
            return super().main(*args, **options)
        except Exception as fault:  # of `--help` and `--version`, too, which click prints before it invokes a command
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
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C changes nothing any more
            click.echo("siftune: interrupted. Run the same command again to continue.", err=True)
            sys.exit(130)


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="siftune")
def main() -> None:
    """Curate instruction data, fine-tune on the raw and the curated data, and measure whether it helped.

    Start with: siftune inspect FILE
    """


for _command in (
    curation_commands.inspect,
    training_commands.run,
    curation_commands.curate,
    training_commands.train,
    training_commands.compare,
    training_commands.prompts,
    training_commands.ifd,
    training_commands.sweep,
    training_commands.mask,
    training_commands.export,
    review_commands.check,
    review_commands.explain,
    review_commands.what_if,
    review_commands.diff,
    review_commands.map_rows,
    index_commands.index,
    publishing_commands.push,
    curation_commands.recipe,
    review_commands.app,
):
    main.add_command(_command)
