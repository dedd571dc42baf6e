"""Benchmarks and other data that must not be trained on, as prompts and answers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.formats.cells import Columns
from siftune.curation.formats.detection import REFERENCE_FORMATS, are_positions, detect_format
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import Turns
from siftune.curation.ingest.row_conversion import RowConverter, as_object
from siftune.curation.ingest.source_location import locate
from siftune.curation.ingest.source_parts import SourcePart, source_parts

#: One item of a reference: `reference` is `name:row`; `answer` is null where the reference gives none, `distractors`
#: holds the texts of the wrong choices and is null where there are none.
REFERENCE = pl.Schema(
    {"reference": pl.String(), "prompt": pl.String(), "answer": pl.String(), "distractors": pl.List(pl.String)}
)
_SAMPLE_ROWS = 100  # that are looked at to detect the format


def read_reference(
    path: str,
    *,
    base: Path,
    name: str | None = None,
    format: str = "auto",  # noqa: A002 - as in the recipe
    columns: Columns | None = None,
) -> pl.DataFrame:
    """Read a reference: a benchmark file, or anything that can be a source.

    The prompt holds all turns but the model's and the system's, joined by blank lines. Of a question with choices it
    holds the question only, the answer is the text of the right choice, and the wrong ones are `distractors`. Rows
    without any text are left out, since nothing of them can be found in training data; the others keep their row number
    in `reference`.

    Args:
        path: As in the recipe, relative to `base`.
        base: The folder of the recipe.
        name: How `reference` begins; the file's stem unless given.
        format: A format by name, or `auto`.
        columns: `role: column` where names are unusual.

    Returns:
        REFERENCE, in the order of the rows.

    Raises:
        UserError: the reference does not exist, has no known format, or a row of it cannot be read: a reference with
            missing items would let contaminated rows pass.
    """
    location = locate(path, base=base, what="reference")
    parts = source_parts(location, positions=are_positions(columns))
    turns_of_rows = chain.from_iterable(_read_turns(part, format, columns) for part in parts)
    items: list[tuple[str, str, str | None, list[str] | None]] = []
    for row, turns in enumerate(turns_of_rows):
        prompt, answer = _prompt_and_answer(turns)
        if prompt or answer:
            items.append((f"{name or location.name}:{row}", prompt, answer, _distractors(turns)))
    if not items:
        raise UserError(f"The reference {path} holds no prompts. Accepted: rows with a question, a prompt or a text.")
    return pl.DataFrame(items, schema=REFERENCE, orient="row")


def _read_turns(part: SourcePart, format_name: str, given: Columns | None) -> Iterator[Turns]:
    warnings: list[str] = []
    rows = map(as_object, part.open(warnings.append, lambda _: None))
    sample = list(islice(rows, _SAMPLE_ROWS))
    objects = [row for row in sample if isinstance(row, dict)]
    if not sample:
        return
    where = f"reference {part.name}"
    if not objects:  # says which columns a reference needs
        detect_format(objects, [], where=where, name=format_name, given=given, formats=REFERENCE_FORMATS)
    converter = RowConverter(objects, where=where, name=format_name, given=given, formats=REFERENCE_FORMATS)
    for number, row in enumerate(chain(sample, rows)):
        turns = converter.turns(row)
        if isinstance(turns, Fault) and turns.reason == "missing_prompt":
            turns = []
        if isinstance(turns, Fault):
            warning = f" ({warnings[0]})" if warnings else ""
            raise UserError(
                f"{where}: row {number} cannot be read: {turns.reason} {turns.detail}{warning}. Correct the file: "
                "training rows are not searched for an item that is missing from a reference."
            )
        yield turns


def _prompt_and_answer(turns: Turns) -> tuple[str, str | None]:
    prompt = "\n\n".join(turn.content for turn in turns if turn.role not in ("assistant", "system"))
    answer = "\n\n".join(turn.content for turn in turns if turn.role == "assistant")
    return prompt.strip(), answer.strip() or None


def _distractors(turns: Turns) -> list[str] | None:
    fields = [turn.fields for turn in turns if turn.role == "assistant" and turn.fields]
    return next((list(columns["distractors"]) for columns in fields if "distractors" in columns), None)
