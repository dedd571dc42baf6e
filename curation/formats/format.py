"""What a format is: the roles of its columns, and how one row becomes turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import Turns

#: Usual names of a column with the passage that a question is about, besides `context`.
PASSAGES: Final = ("passage", "article", "document", "story", "paragraph", "background", "excerpt", "premise")
CONTEXTS: Final = ("context", *PASSAGES)
#: Usual names of a column with the system prompt; Gemini's has both spellings.
SYSTEM_PROMPTS: Final = ("system", "system_prompt", "system_instruction", "systeminstruction")
#: Usual names of a column with several answers, or with the option that is right.
ANSWER_KEYS: Final = ("responses", "answers", "generations", "candidates", "samples", "answer_key", "answerkey")


@dataclass(frozen=True)
class Format:
    """A way to write examples.

    Attributes:
        name: As in the recipe.
        roles: What its columns may be, each with the usual names of such a column, the most usual first.
        required: The roles without which a row cannot be read.
        convert: A row and its `role: column` mapping to turns. Blank and missing turns are judged by `repair_turns`.
        matches: Whether these values of a required column look like this format; None: any value does.
        meta: Roles whose column stays in `meta` although it was read.
        answer: The role of the answer; "" where it is a turn of a dialogue. A cell of several answers stays in `meta`.
    """

    name: str
    roles: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]
    convert: Callable[[Row, Columns], Turns | Fault]
    matches: Callable[[str, Sequence[Any]], bool] | None = None
    meta: tuple[str, ...] = ()
    answer: str = ""
