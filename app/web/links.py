"""Links into the app: what Browse shows as query parameters of its address, and back, with everything checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from siftune.app.web.queries import BY_HAND
from siftune.curation.errors import UserError
from siftune.curation.review.annotations import checked_tag
from siftune.curation.review.catalogue import Catalogue, Order, Query

#: Parameters whose name is not that of the field of `Query`.
_SHORT = {"text": "q", "descending": "down"}
#: The row that is open.
ROW = "row"
_LONGEST = 500  # characters of a value
_MOST = 50  # values of a parameter


@dataclass
class Link:
    """What an address asks for: rows, the row that is open, and a sentence for each part that was not understood."""

    query: Query = field(default_factory=Query)
    row: str | None = None
    faults: list[str] = field(default_factory=list)


def parameters(query: Query, row: str | None = None) -> dict[str, list[str]]:
    """The query parameters of a query and of the open row; what is as in `Query()` has none."""
    params = {
        _SHORT.get(name, name): _written(value)
        for name, value, default in _values(query)
        if value != default and value is not None
    }
    return params | ({ROW: [row]} if row else {})


def parse(params: Mapping[str, Sequence[str]], catalogue: Catalogue) -> Link:
    """Read query parameters that somebody may have written by hand.

    Args:
        params: the values of each parameter.
        catalogue: the rows of the run; names that it does not have are faults, and so are other parameters.
    """
    link = Link()
    known: dict[str, Any] = {}
    names = {_SHORT.get(name, name): name for name, _, _ in _values(Query())}
    for param, values in params.items():
        values = [value[:_LONGEST] for value in values[:_MOST]]
        if param == ROW and values:
            link.row = values[0] if catalogue.position(values[0]) is not None else None
            link.faults += [] if link.row else [f"This run has no row {values[0]!r}."]
        elif param not in names:
            link.faults.append(f"The address has a parameter {param[:40]!r} that Browse does not know.")
        else:
            try:
                known[names[param]] = _read(names[param], values, catalogue)
            except ValueError as fault:
                link.faults.append(f"The address asks for {param} = {', '.join(values)[:80]!r}: {fault}.")
    link.query = replace(Query(), **known)
    return link


def _values(query: Query) -> list[tuple[str, Any, Any]]:
    """Name, value and default of every field."""
    return [(entry.name, getattr(query, entry.name), entry.default) for entry in fields(query)]


def _written(value: Any) -> list[str]:
    if isinstance(value, tuple) and value and isinstance(value[0], int):
        return [f"{value[0]}-{value[1]}"]
    if isinstance(value, tuple):
        return list(value)
    return ["1"] if value is True else [str(value)]


def _read(name: str, values: Sequence[str], catalogue: Catalogue) -> Any:
    """The value of a field of `Query`. Raises `ValueError` with what is wrong."""
    first = values[0] if values else ""
    if name == "text":
        return first
    if name == "descending":
        return _one_of(first, ("0", "1")) == "1"
    if name == "order":
        return _one_of(first, get_args(Order))
    if name == "group":
        return _number(first)
    if name in ("turns", "prompt_words", "answer_words"):
        low, dash, high = first.partition("-")
        if not dash:
            raise ValueError("a range is written 5-40")
        return _number(low), _number(high)
    if name == "tag":
        return tuple(_tag(value) for value in values)
    if name == "by_hand":
        return tuple(_one_of(value, BY_HAND) for value in values)
    accepted = catalogue.arms if name == "arm" else catalogue.values(name)
    return tuple(_one_of(value, accepted) for value in values)


def _one_of(value: str, accepted: Sequence[str]) -> str:
    if value not in accepted:
        raise ValueError(f"this run has {', '.join(accepted[:8]) or 'none'}")
    return value


def _tag(text: str) -> str:
    try:
        return checked_tag(text)
    except UserError as fault:
        raise ValueError(str(fault).rstrip(".")) from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("a number is written in digits")
    return int(text)
