"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Column(click.ParamType[tuple[str, str]]):
    """A word `ROLE=COLUMN`."""

    name = "ROLE=COLUMN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        role, equals, column = str(value).partition("=")
        if not role or not equals or not column:
            self.fail(f"{value!r} is not ROLE=COLUMN, such as instruction=prompt", param, ctx)
        return role.strip(), column


COLUMNS = click.option(
    "--column",
    "columns",
    multiple=True,
    type=_Column(),
    help="ROLE=COLUMN where names are unusual, such as instruction=prompt; may be repeated. An unknown ROLE is "
    "answered with all of them.",
)
