"""Markdown that siftune writes: tables, text that is no markup, and fences that a text cannot close."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_MARKUP = frozenset("\\`*_[]<>|#!")


class Raw(str):
    """Markdown made by siftune, which stands in a table as it is; any other cell is escaped."""

    __slots__ = ()


def escape(text: str) -> str:
    r"""`text` on one line, so that Markdown shows it letter for letter.

    >>> print(escape("a *b* | <i>"))
    a \*b\* \| \<i\>
    """
    return "".join("\\" + sign if sign in _MARKUP else sign for sign in " ".join(text.split()))


def code(text: str) -> Raw:
    """`text` as inline code, for hashes and names that hold no backtick."""
    return Raw(f"`{text}`")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[int] = ()) -> list[str]:
    r"""The lines of a table, and an empty line after it.

    Args:
        head: the heading of each column.
        rows: cells as plain text, which is escaped, or as `Raw`.
        numbers: positions of the columns that are aligned to the right.

    >>> print("\n".join(table(["stage", "rows"], [["near", "1,081"]], numbers=[1])))
    | stage | rows |
    |---|---:|
    | near | 1,081 |
    <BLANKLINE>
    """
    lines = [head, *rows]
    cells = [[cell if isinstance(cell, Raw) else escape(cell) for cell in line] for line in lines]
    rule = "|".join("---:" if column in numbers else "---" for column in range(len(head)))
    written = [f"| {' | '.join(line)} |" for line in cells]
    return [written[0], f"|{rule}|", *written[1:], ""]


def fenced(text: str) -> list[str]:
    """The lines of a block that shows `text` as it is: its fence is longer than any row of backticks in the text."""
    fence = "````"
    while fence in text:
        fence += "`"
    return [f"{fence}text", text, fence]
