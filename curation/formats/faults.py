"""Why a row cannot be used: the one list of reasons for which rows are quarantined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Reason = Literal[
    "bad_json",
    "bad_encoding",
    "truncated",
    "ragged_row",
    "not_an_object",
    "missing_prompt",
    "missing_answer",
    "empty_answer",
    "rejected_answer",
    "wrong_type",
    "bad_roles",
    "nul_byte",
    "lone_surrogate",
    "oversized_cell",
    "oversized_row",
]

#: Every reason, and what it means.
REASONS: Final[dict[Reason, str]] = {
    "bad_json": "the row is not valid JSON",
    "bad_encoding": "the row is not valid UTF-8",
    "truncated": "the file ends in the middle of the row",
    "ragged_row": "a CSV record with more or fewer fields than the header, or one that is not valid CSV",
    "not_an_object": "valid JSON, but not an object with named columns",
    "missing_prompt": "no question, instruction or user turn, or only white space in it",
    "missing_answer": "no answer column, a null answer, no assistant turn, or none that may be trained (`weight: 0`)",
    "empty_answer": "an answer of nothing but white space",
    "rejected_answer": "the row's own label (KTO's `label: false`) says that its answer is a bad one",
    "wrong_type": "a list or an object where a text is expected, or a dialogue whose turns cannot be read",
    "bad_roles": "a dialogue without a user turn, a turn without a role, or two user turns that cannot be merged",
    "nul_byte": "a NUL character in the row",
    "lone_surrogate": "half of a surrogate pair (such as \\ud800) in the row, which UTF-8 cannot encode",
    "oversized_cell": "a cell of 10 MB or more",
    "oversized_row": "a line of 100 MB or more, or such a record of CSV over several lines",
}

#: Bytes of UTF-8. A cell this large is an error of an export, not an example.
MAX_CELL: Final = 10_000_000
#: Bytes of a line, of which the file is read on behind. No line that is this long is taken into memory.
MAX_ROW: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be used.

    Attributes:
        reason: A key of `REASONS`.
        detail: What exactly was found.
        raw: The row as it stands in the file, when it could not be parsed.
    """

    reason: Reason
    detail: str = ""
    raw: str = ""
