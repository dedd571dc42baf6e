"""Benchmarks and other sets that must not be trained on, as prompts and answers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.formats import REFERENCE_FORMATS, choose, positional
from siftune.curation.formats.conversation import Columns, Fault, Format, Turns
from siftune.curation.ingest import source_files, source_parts
from siftune.curation.ingest.source_parts import Part

#: One item of a reference: `reference` is `name:row`; `answer` is null where the reference gives none.
REFERENCE = pl.Schema({"reference": pl.String, "prompt": pl.String, "answer": pl.String})
_SAMPLE = 100


def read_reference(
    path: str,
    *,
    base: Path,
    name: str | None = None,
    format: str = "auto",  # noqa: A002 - as in the recipe
    columns: Columns | None = None,
) -> pl.DataFrame:
    """Read a reference: a benchmark file, or anything that can be a source.

    The prompt holds all turns but the model's and the system's, joined by blank lines; of a question with choices it
    holds the question only, and the answer is the text of the right choice. Rows without any text have nothing that
    could be found in training data and are left out; the others keep their place in `reference`.

    Args:
        path: As in the recipe, relative to `base`.
        base: The folder of the recipe.
        name: How `reference` begins; the file's stem unless given.
        format: A format by name, or `auto`.
        columns: `role: column` where names are unusual.

    Returns:
        REFERENCE, in the order of the rows.

    Raises:
        UserError: it is not there, is of no known format, or a row of it cannot be read: a reference with holes would
            let contaminated rows pass.
    """
    place = source_files.locate(path, base=base, what="reference")
    items: list[tuple[str, str, str | None]] = []
    found = (_turns(part, format, columns) for part in source_parts.of(place, positions=positional(columns)))
    for row, turns in enumerate(chain.from_iterable(found)):
        prompt, answer = _texts(turns)
        if prompt or answer:
            items.append((f"{name or place.name}:{row}", prompt, answer))
    if not items:
        raise UserError(f"The reference {path} holds no prompts.")
    return pl.DataFrame(items, schema=REFERENCE, orient="row")


def _turns(part: Part, format_name: str, columns: Columns | None) -> Iterator[Turns]:
    warnings: list[str] = []
    rows = part.open(warnings.append, lambda _: None)
    sample = list(islice(rows, _SAMPLE))
    objects = [row for row in sample if isinstance(row, dict)]
    found = list(dict.fromkeys(column for row in objects for column in row))
    if not sample:
        return
    where = f"reference {part.name}"
    form, mapping = choose(objects, found, where=where, name=format_name, given=columns, formats=REFERENCE_FORMATS)
    for place, row in enumerate(chain(sample, rows)):
        turns = _converted(row, form, mapping)
        if isinstance(turns, Fault):
            more = f" ({warnings[0]})" if warnings else ""
            raise UserError(f"{where}: row {place} cannot be read: {turns.reason} {turns.detail}{more}. Mend the file.")
        yield turns


def _converted(row: Any, form: Format, mapping: Columns) -> Turns | Fault:
    if not isinstance(row, dict):
        return row if isinstance(row, Fault) else Fault("not_an_object", "not an object")
    turns = form.convert(row, mapping)
    return [] if isinstance(turns, Fault) and turns.reason == "missing_prompt" else turns


def _texts(turns: Turns) -> tuple[str, str | None]:
    asked = "\n\n".join(turn.content for turn in turns if turn.role not in ("assistant", "system"))
    answered = "\n\n".join(turn.content for turn in turns if turn.role == "assistant")
    return asked.strip(), answered.strip() or None
