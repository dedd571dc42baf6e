"""The formats that rows may have, and the choice among them from the columns and some of the rows.

To add a format: write a module with a `FORMAT`, list it here, and name it in `FormatName` of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.formats import (
    alpaca,
    marked_text,
    messages,
    preference,
    prompt_completion,
    question_answer,
    sharegpt,
    text,
)
from siftune.curation.formats.cells import Columns, Row, is_filled, is_null
from siftune.curation.formats.choices import option_columns
from siftune.curation.formats.dialogues import describe, is_dialogue
from siftune.curation.formats.format import Format

#: By name, in the order in which `auto` tries them: a column with a dialogue says more than the columns beside it.
FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (preference, messages, sharegpt, alpaca, question_answer, prompt_completion, marked_text)
}
#: Usual names of a column with the number of the right option (COPA, HellaSwag, PIQA).
LABELS = ("label", "labels", "gold", "gold_label", "answer_index", "answer_idx", "correct_index")
#: Columns that usually hold a dialogue.
_DIALOGUE_COLUMNS = frozenset(
    name for module in (messages, sharegpt) for name in module.FORMAT.roles[module.FORMAT.required[0]]
)

#: The formats of references, whose items need no answer. `text` comes before those that require one.
REFERENCE_FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (preference, messages, sharegpt, text, alpaca, question_answer, prompt_completion)
}


def detect_format(
    sample: Sequence[Row],
    columns: Sequence[str],
    *,
    where: str,
    name: str = "auto",
    given: Columns | None = None,
    formats: Mapping[str, Format] = FORMATS,
) -> tuple[Format, dict[str, str]]:
    """The format of rows, and which column has which of its roles.

    Args:
        sample: Some of the rows. Their values tell a dialogue from a text in a column of the same name.
        columns: The columns of the rows.
        where: What error messages call the file.
        name: A format, or `auto`.
        given: The `role: column` mapping of the recipe; it takes precedence over the usual names.
        formats: The formats to choose from, in order.

    Returns:
        The format, and its roles mapped to columns.

    Raises:
        UserError: no format fits, or a column or a role does not exist.
    """
    given = given or {}
    filled = filled_columns(sample, columns)
    if name != "auto" and name not in formats:
        raise UserError(
            f"{where}: the format {name!r} has no answers to train on. Accepted for sources: {', '.join(formats)}."
        )
    candidates = [formats[name]] if name != "auto" else list(formats.values())
    _check_given_columns(where, given, columns, candidates)
    fitting = _fitting_format_of_all(sample, filled, columns, candidates, given)
    if fitting is None:
        raise UserError(_no_format_message(where, sample, columns, given, candidates))
    row_format, mapping = fitting
    return row_format, {**map_roles(row_format, columns, given), **mapping}


def fits_a_format(sample: Sequence[Row], columns: Sequence[str]) -> bool:
    """Whether `detect_format` knows a format for rows of these columns."""
    filled = filled_columns(sample, columns)
    return _fitting_format_of_all(sample, filled, columns, list(FORMATS.values()), {}) is not None


def _fitting_format_of_all(
    sample: Sequence[Row], filled: Sequence[str], columns: Sequence[str], candidates: Sequence[Format], given: Columns
) -> tuple[Format, dict[str, str]] | None:
    """As `fitting_format`, by the columns with a value first: one without may still be the one that is meant."""
    fitting = fitting_format(sample, filled, candidates, given=given)
    if fitting is None and len(filled) < len(columns):
        fitting = fitting_format(sample, columns, candidates, given=given)
    return fitting


def fitting_format(
    sample: Sequence[Row], columns: Sequence[str], candidates: Sequence[Format], *, given: Columns
) -> tuple[Format, dict[str, str]] | None:
    """The first of some formats that fits, and which column has which of its roles; None when none does.

    Args:
        sample: Some of the rows.
        columns: The columns that count as present.
        candidates: The formats. A single one fits whatever the values are.
        given: The `role: column` mapping of the recipe.
    """
    for candidate in candidates:
        if not set(given) <= set(candidate.roles):
            continue
        mapping = map_roles(candidate, columns, given)
        has_required = all(role in mapping for role in candidate.required)
        if has_required and (len(candidates) == 1 or _looks_like(candidate, sample, mapping)):
            return candidate, mapping
    return None


def filled_columns(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The columns that hold a value in any of `rows`: a column of nulls, or of empty texts in CSV, is only a trace of
    rows of another kind."""
    return [column for column in columns if any(is_filled(row.get(column)) for row in rows)]


def are_positions(columns: Columns | None) -> bool:
    """Whether the recipe names columns by their position ("0", "1" …), as for a file without a header."""
    return bool(columns) and all(column.isdigit() for column in (columns or {}).values())


def map_roles(candidate: Format, columns: Sequence[str], given: Columns) -> dict[str, str]:
    """Role to column: as given, else the first usual name that the rows have (letter case does not matter).

    Columns that hold the options of a question (A, B, C, D) have no role of their own. Beside options, the
    number of the right one (`label`) is the answer.
    """
    options = option_columns(columns, list(given.values())) if len(columns) > 2 else None
    taken = {*given.values(), *(options.names if options is not None else ())}
    free = {column.lower(): column for column in reversed(columns) if column not in taken}
    usual = {
        role: next((free[name] for name in names if name in free), None) for role, names in candidate.roles.items()
    }
    mapping = {**{role: column for role, column in usual.items() if column is not None}, **given}
    # A label names an answer only where there are options that it can name.
    if "choices" in candidate.roles and candidate.answer not in mapping and ("choices" in mapping or options):
        label = next((free[name] for name in LABELS if name in free), None)
        mapping |= {candidate.answer: label} if label is not None else {}
    return mapping


def _looks_like(candidate: Format, sample: Sequence[Row], mapping: Columns) -> bool:
    matches = candidate.matches
    return matches is None or all(
        matches(role, [row.get(column) for row in sample])
        for role, column in mapping.items()
        if role in candidate.required
    )


def _check_given_columns(where: str, given: Columns, columns: Sequence[str], candidates: Sequence[Format]) -> None:
    roles = list(dict.fromkeys(role for candidate in candidates for role in candidate.roles))
    for role, column in given.items():
        if role not in roles:
            raise UserError(
                f"{where}: columns: unknown role {role!r}.{did_you_mean(role, roles)} Accepted: {', '.join(roles)}."
            )
        if column not in columns:
            raise UserError(
                f"{where}: columns: there is no column {column!r} for the role {role!r}."
                f"{did_you_mean(column, columns)} Columns found: {_listed(columns)}."
            )


def _no_format_message(
    where: str, sample: Sequence[Row], columns: Sequence[str], given: Columns, candidates: Sequence[Format]
) -> str:
    required = "\n".join(f"  {candidate.name}: {', '.join(candidate.required)}" for candidate in candidates)
    usual = [name for candidate in candidates for role in candidate.required for name in candidate.roles[role]]
    hint = next((hint for column in columns if column not in usual and (hint := did_you_mean(column, usual))), "")
    example = candidates[0] if len(candidates) == 1 else alpaca.FORMAT
    mapping = ", ".join(f"{role}: COLUMN" for role in example.required)
    options = " ".join(f"--column {role}=COLUMN" for role in example.required)
    tried = f" with columns {dict(given)}" if given else ""
    return (
        f"{where}: no format fits the columns of its rows{tried}. Columns found: {_listed(columns)}.{hint}"
        f"{_other_content(sample, columns)}\n"
        f"Accepted formats and the columns they need:\n{required}\n"
        f"Write into the recipe which column has which role, for example:\n"
        f"  format: {example.name}\n  columns: {{{mapping}}}\n"
        f"or let a recipe be written: siftune recipe new FILE {options}\n"
        "(For a CSV file without a header, name the columns by position, counted from 0.)"
    )


def _other_content(sample: Sequence[Row], columns: Sequence[str]) -> str:
    """What columns hold that usually hold a dialogue and hold none."""
    sentences = []
    for column in columns:
        values = [row[column] for row in sample if not is_null(row.get(column))]
        if column.lower() in _DIALOGUE_COLUMNS and values and not any(map(is_dialogue, values)):
            sentences.append(
                f"\nThe column {column!r} usually holds a dialogue, a list of turns such as "
                f'{{"role": "user", "content": …}}; here it holds {describe(values[0])}.'
            )
    return "".join(sentences)


def _listed(columns: Sequence[Any]) -> str:
    names = ", ".join(str(column)[:60] for column in columns[:30])
    return (names or "none") + (f" and {len(columns) - 30} more" if len(columns) > 30 else "")
