"""The formats that rows come in, one module each, and the choice among them.

To add one: write a module with a `FORMAT`, list it here, and name it in `recipe.FormatName`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.formats import alpaca, messages, preference, prompt_completion, question_answer, sharegpt, text
from siftune.curation.formats.conversation import Columns, Format, Row

#: By name, in the order in which `auto` tries them: a dialogue says more than a pair of columns beside it.
FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (preference, messages, sharegpt, alpaca, question_answer, prompt_completion)
}

#: What references may be besides: their items need no answer. `text` stands before what would demand one.
REFERENCE_FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (preference, messages, sharegpt, text, alpaca, question_answer, prompt_completion)
}


def choose(
    sample: Sequence[Row],
    columns: Sequence[str],
    *,
    where: str,
    name: str = "auto",
    given: Columns | None = None,
    formats: Mapping[str, Format] = FORMATS,
) -> tuple[Format, dict[str, str]]:
    """The format of rows and which column plays which of its roles.

    Args:
        sample: Some of the rows; their values tell a dialogue from a text of the same name.
        columns: The columns of the rows.
        where: How the file is called in errors.
        name: A format, or `auto`.
        given: The user's own `role: column`; it goes before the usual names.
        formats: Those to choose from, in order.

    Raises:
        UserError: no format fits, a column or a role does not exist.
    """
    given = given or {}
    if name != "auto" and name not in formats:
        raise UserError(
            f"{where}: format {name!r} has no answers to train on. Accepted for sources: {', '.join(formats)}."
        )
    _check_given(where, given, columns, [formats[name]] if name != "auto" else list(formats.values()))
    candidates = [formats[name]] if name != "auto" else [f for f in formats.values() if set(given) <= set(f.roles)]
    for candidate in candidates:
        mapping = _mapping(candidate, columns, given)
        fits = all(role in mapping for role in candidate.required)
        if fits and (name != "auto" or _looks_like(candidate, sample, mapping)):
            return candidate, mapping
    raise UserError(_undecided(where, columns, name, given, formats))


def positional(columns: Columns | None) -> bool:
    """Whether columns are named by their position ("0", "1" …): the file has no header."""
    return bool(columns) and all(column.isdigit() for column in (columns or {}).values())


def _mapping(form: Format, columns: Sequence[str], given: Columns) -> dict[str, str]:
    """Role to column: as given, else the first usual name that is there (letter case does not matter)."""
    free = {column.lower(): column for column in reversed(columns) if column not in given.values()}
    found = {role: next((free[word] for word in names if word in free), None) for role, names in form.roles.items()}
    return {**{role: column for role, column in found.items() if column is not None}, **given}


def _looks_like(form: Format, sample: Sequence[Row], mapping: Columns) -> bool:
    matches = form.matches
    return matches is None or all(
        matches(role, [row.get(column) for row in sample]) for role, column in mapping.items() if role in form.required
    )


def _check_given(where: str, given: Columns, columns: Sequence[str], formats: Sequence[Format]) -> None:
    roles = list(dict.fromkeys(role for form in formats for role in form.roles))
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


def _undecided(where: str, columns: Sequence[str], name: str, given: Columns, formats: Mapping[str, Format]) -> str:
    wanted = [formats[name]] if name != "auto" else list(formats.values())
    accepted = "\n".join(f"  {form.name}: {', '.join(form.required)}" for form in wanted)
    usual = [word for form in wanted for role in form.required for word in form.roles[role]]
    meant = next((hint for column in columns if column not in usual and (hint := did_you_mean(column, usual))), "")
    example = (
        "{" + ", ".join(f"{role}: COLUMN" for role in (wanted[0] if name != "auto" else alpaca.FORMAT).required) + "}"
    )
    said = f" with columns {dict(given)}" if given else ""
    return (
        f"{where}: its rows are of no format that can be told from the columns{said}. "
        f"Columns found: {_listed(columns)}.{meant}\n"
        f"Accepted formats and the columns they need:\n{accepted}\n"
        f"Say which column plays which role, for example:\n"
        f"  format: {name if name != 'auto' else 'alpaca'}\n  columns: {example}\n"
        "(a CSV file without a header: name columns by position, from 0)"
    )


def _listed(columns: Sequence[Any]) -> str:
    shown = ", ".join(str(column)[:60] for column in columns[:30])
    return (shown or "none") + (f" and {len(columns) - 30} more" if len(columns) > 30 else "")
