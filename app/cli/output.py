"""How commands print: a report, a file, a JSON document, and the progress of long work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType


def progress_bar(*, quiet: bool = False) -> Callable[[str, int, int], None] | None:
    """A bar on standard error; None where that is no terminal, or with `quiet`."""
    if quiet or not sys.stderr.isatty():
        return None
    from siftune.app.cli.progress_bar import ProgressBar

    return ProgressBar()


def print_report(output: RenderableType) -> None:
    """Print tables and texts, as wide as the terminal; 120 characters where the output is no terminal."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(output)


def print_file(path: Path) -> None:
    """Print a text file."""
    click.echo(path.read_text(encoding="utf-8"))


def print_json(document: object) -> None:
    """Print a JSON document."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))
