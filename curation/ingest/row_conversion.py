"""One row to one example or one fault: the format reads it, `repair_turns` judges it, `meta` keeps the rest.

Each row is read by its own columns. `RowConverter` chooses a format for a file, and for rows that lack its columns (or
hold only nulls in them) the format that fits these rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from siftune.curation.formats.answers import candidates, is_read_whole
from siftune.curation.formats.cells import Columns, Row, cell_text, decoded, is_filled, json_text, without_nulls
from siftune.curation.formats.detection import FORMATS, detect_format, fitting_format
from siftune.curation.formats.dialogues import is_turn
from siftune.curation.formats.faults import MAX_CELL, Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import KNOWN_ROLES, Turns, repair_turns
from siftune.curation.ingest.row_format import RowFormat
from siftune.curation.split_names import standard_split

_STANDARD_ROLES = frozenset(("user", "assistant", "system", "tool"))
#: Columns that say of a row whether its answer is a good one: TRL's KTO, LLaMA-Factory's.
_LABEL_COLUMNS = (
    "label", "kto_tag", "kto_label", "desirable", "is_desirable", "thumbs_up", "thumbs", "vote", "feedback",
    "accepted", "is_accepted", "is_correct", "is_good",
)  # fmt: skip
_FALSE_LABELS = ("false", "undesirable", "thumbs_down", "thumbs down", "down", "bad", "rejected")
#: Columns that say which of several answers is the good one.
_BEST_COLUMNS = (
    "chosen", "chosen_index", "best", "best_index", "best_response", "preferred", "preference", "winner", "selected",
)  # fmt: skip
#: A text that writes a list of texts, as pandas puts lists into CSV files.
_LIST_TEXT = re.compile(r"""\s*(?:\[\s*(['"]).*\1\s*\]|array\(\[.*\).*)\s*""", re.DOTALL)
#: Columns with the tools of a dialogue: what Arrow fills up with nulls was not in the data.
_TOOL_COLUMNS = ("tools", "functions")
#: Names of columns with several answers: a text of a list there is that list, as CSV files hold it.
_SEVERAL_ANSWERS = ("answers", "completions", "responses", "outputs", "generations", "candidates", "samples")
_LONGEST_NAME = 20  # characters of the number or the name of an answer
_MAX_FORMATS = 10_000  # column sets whose format is remembered
_TEXT_WORDS = 3  # from so many words on, a value that is not used is a text that the user should know of


class Example(NamedTuple):
    """A row that can be trained on: one row of EXAMPLES, but for its id and the name of its source."""

    split: str | None
    turns: Turns
    meta: str


class RowConverter:
    """Converts the rows of one file, each by its own columns, and notes what the user should know of them.

    Attributes:
        row_format: How most rows are read; None when no row of the sample has columns.
        formats: The names of the formats that were used, in order.
    """

    def __init__(
        self,
        sample: Sequence[Row],
        *,
        where: str,
        name: str = "auto",
        given: Columns | None = None,
        roles: Mapping[str, str] | None = None,
        formats: Mapping[str, Format] = FORMATS,
    ) -> None:
        """Choose the format of a file.

        Args:
            sample: Some of its rows that are objects.
            where: What error messages call the file.
            name: A format, or `auto`.
            given: Role to column, as in the recipe.
            roles: Standard role by the name of a role in the data, as in the recipe.
            formats: The formats to choose from, in order.

        Raises:
            UserError: no format fits, or a column or a role does not exist.
        """
        self._given, self._roles = dict(given or {}), roles
        self._candidates = [formats[name]] if name in formats else list(formats.values())
        self._by_columns: dict[frozenset[str], RowFormat] = {}
        self._several: Counter[str] = Counter()
        self._unknown_roles: Counter[str] = Counter()
        self._unused: dict[str, None] = {}
        self._numeric_labels: Counter[float] = Counter()
        self._list_texts: Counter[bool] = Counter()
        self._watched: dict[frozenset[str], list[str]] = {}  # columns that no row has shown to be unused texts
        self.formats: dict[str, None] = {}
        self.row_format: RowFormat | None = None
        if not sample:
            return
        columns = list(dict.fromkeys(column for row in sample for column in row))
        detected, mapping = detect_format(sample, columns, where=where, name=name, given=given, formats=formats)
        self.row_format = RowFormat.of(detected, mapping, sample=sample, present=columns, roles=roles)
        self.formats[detected.name] = None

    def convert(self, row: Any, *, split: str | None, own_split: bool) -> tuple[RowFormat | None, Example | Fault]:
        """How a row is read, and the example that it is or why it is none.

        Args:
            row: A row as `as_object` gives it.
            split: The split of the file.
            own_split: Whether the row's own column `split` takes precedence over that.
        """
        row_format = self._format_of(row) if row.__class__ is dict and self.row_format is not None else self.row_format
        if row_format is not None and row_format.answer.lower() in _SEVERAL_ANSWERS:
            row = _with_decoded_answers(row, row_format.answer)
        result = convert_row(row, row_format, split=split, own_split=own_split)
        if row_format is not None and row.__class__ is dict:
            self._note_unused(row, row_format)
            if isinstance(result, Example):
                self._note(row, row_format, result)
        return row_format, result

    def turns(self, row: Any) -> Turns | Fault:
        """The turns of a row, whether or not they are a training example."""
        if row.__class__ is not dict:
            return row if isinstance(row, Fault) else Fault("not_an_object", "not an object")
        if self.row_format is None:
            return Fault("missing_prompt", "no columns that can be read")
        try:
            return self._format_of(row).turns(row)
        except RecursionError:
            return Fault("wrong_type", "nested too deeply")

    def warnings(self) -> list[str]:
        """What the user should know of the rows that were converted."""
        warnings = [
            f"{count:,} row{'s have' if count != 1 else ' has'} several answers in {column!r}: the first one is the "
            "answer, all are in `meta`"
            for column, count in self._several.items()
        ]
        if self._unknown_roles:
            names = ", ".join(
                f"{role} ({count:,} turn{'s' * (count != 1)})" for role, count in self._unknown_roles.most_common(8)
            )
            warnings.append(
                f"roles that are not known: {names}. They are kept and not trained; `roles: {{NAME: user}}` beside the "
                "source's path maps them to user, assistant, system or tool"
            )
        if self._unused:
            names = ", ".join(repr(name) for name in self._unused)
            warnings.append(
                f"text columns that are in no prompt and no answer: {names} (kept in `meta`; `columns:` gives a column "
                "a role)"
            )
        if set(self._numeric_labels) in ({0, 1}, {-1, 1}):
            low = min(self._numeric_labels)
            warnings.append(
                f"'label' is {low:g} in {self._numeric_labels[low]:,} rows: if that marks a bad answer, write false in "
                "its place, and these rows are left out"
            )
        if self._list_texts[True] and not self._list_texts[False]:
            warnings.append(
                f"all answers in {self.row_format.answer if self.row_format else ''!r} are texts of lists and are "
                "trained as they are; if they are lists of candidates, write them as JSON lists or call the column "
                "`answers`"
            )
        return warnings

    def _format_of(self, row: Row) -> RowFormat:
        """How a row is read, by the columns that it fills: as the file where that fits, else as the first that does."""
        filled = frozenset([column for column, value in row.items() if is_filled(value)])
        known = self._by_columns.get(filled)
        return known if known is not None else self._choose(row, filled)

    def _choose(self, row: Row, filled: frozenset[str]) -> RowFormat:
        usual = self.row_format
        assert usual is not None
        required = {usual.columns.get(role) for role in usual.format.required}
        if any(column in row and column not in filled and column in required for column in self._given.values()):
            return usual  # the recipe names the column, and this row holds nothing in it
        columns = [column for column in row if column in filled]
        candidates_of_row = self._candidates
        if required <= filled:
            candidates_of_row = [usual.format]
        given = {role: column for role, column in self._given.items() if column in filled}
        fitting = fitting_format([row], columns, candidates_of_row, given=given)
        chosen = usual
        if fitting is not None:
            spec, mapping = fitting
            # The usual format reads a row that lacks some of its columns as it is.
            same_roles = all(usual.columns.get(role) == column for role, column in mapping.items())
            own = RowFormat.of(spec, mapping, sample=[row], present=columns, roles=self._roles)
            if spec is not usual.format or not same_roles or (own.options is not None and usual.options is None):
                chosen = replace(own, in_messages=own.in_messages | (usual.in_messages - filled))
                if chosen.counting == "unclear" and "choices" in usual.columns:  # seen in the whole sample
                    chosen = replace(chosen, counting=usual.counting)
                self.formats[spec.name] = None
        elif any(set(given) <= set(spec.roles) and _has_required(spec, filled) for spec in self._candidates):
            return usual  # its values do not fit; those of the next row with these columns may
        if len(self._by_columns) >= _MAX_FORMATS:
            self._by_columns.clear()
        self._by_columns[filled] = chosen
        return chosen

    def _note(self, row: Row, row_format: RowFormat, example: Example) -> None:
        answer = row.get(row_format.answer) if row_format.answer else None
        if answer.__class__ in (list, dict) and candidates(answer) > 1:
            self._several[row_format.answer] += 1
        for turn in example.turns:
            if turn.role not in KNOWN_ROLES:
                self._unknown_roles[turn.role] += 1
        if answer.__class__ is str:
            self._list_texts[_LIST_TEXT.fullmatch(answer) is not None] += 1
        label = row.get("label")
        if label is not None and "label" not in row_format.in_messages and (number := _number(label)) is not None:
            self._numeric_labels[number] += 1

    def _note_unused(self, row: Row, row_format: RowFormat) -> None:
        """Note the columns that hold texts and are in no prompt and no answer."""
        shape = frozenset(row)
        watched = self._watched.get(shape)
        if watched is None:
            used = {*row_format.in_messages, *row_format.columns.values(), *_TOOL_COLUMNS, "split"}
            watched = [column for column in row if column not in used]
            if len(self._watched) < _MAX_FORMATS:
                self._watched[shape] = watched
        for column in [column for column in watched if _is_prose(row[column])]:
            self._unused[column] = None
            watched.remove(column)


def _number(label: Any) -> float | None:
    """The number that a label is or writes."""
    if isinstance(label, bool):
        return None
    if isinstance(label, (int, float)):
        return float(label)
    return float(label) if isinstance(label, str) and label.strip() in ("0", "1", "-1", "0.0", "1.0") else None


def _is_prose(value: Any) -> bool:
    """Whether a cell holds a text of several words, by itself or in a list or an object."""
    left = list(value.values()) if isinstance(value, dict) else [value]
    while left:  # without recursion: the data decide how deep lists are nested
        item = left.pop()
        if isinstance(item, str) and len(item.split(None, _TEXT_WORDS)) >= _TEXT_WORDS:
            return True
        if isinstance(item, list):
            left += item
    return False


def _has_required(spec: Format, columns: frozenset[str]) -> bool:
    names = {column.lower() for column in columns}
    return all(any(name in names for name in spec.roles[role]) for role in spec.required)


def _with_decoded_answers(row: Any, column: str) -> Any:
    """A row whose answers are a list, or an object of lists (SQuAD's), where they were written as its text."""
    value = row.get(column) if row.__class__ is dict else None
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return row
    answers = decoded(value)
    is_list = isinstance(answers, list) and bool(answers) and all(isinstance(item, str) for item in answers)
    is_squad = isinstance(answers, dict) and isinstance(answers.get("text"), list)
    return {**row, column: answers} if is_list or is_squad else row


def as_object(value: Any) -> Any:
    """A row as an object: one that is encoded as a text, the only text of a row, or a bare list of turns."""
    if value.__class__ is dict:
        if len(value) != 1:
            return value
        (cell,) = value.values()
        inner = _decoded_object(cell) if isinstance(cell, str) else None
        return value if inner is None else inner
    if isinstance(value, str):
        inner = _decoded_object(value)
        return value if inner is None else inner
    dialogue = _as_dialogue(value)
    return value if dialogue is None else dialogue


def _as_dialogue(value: Any) -> Row | None:
    """A bare list of turns as a row."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) and is_turn(item) for item in value):
        return None
    return {"conversations" if "from" in value[0] else "messages": value}


def _decoded_object(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else _as_dialogue(value)


def convert_row(row: Any, row_format: RowFormat | None, *, split: str | None, own_split: bool) -> Example | Fault:
    """The example that a row is, or why it is none.

    Args:
        row: A JSON value; a `Fault` when the reader could not parse it.
        row_format: None when no row of the file has columns.
        split: The split of the file.
        own_split: Whether the row's own column `split` takes precedence over that.
    """
    if row.__class__ is not dict:
        return row if isinstance(row, Fault) else Fault("not_an_object", f"a JSON {type(row).__name__}")
    if row_format is None:
        return Fault("missing_prompt", "no columns that can be read")
    try:
        return _convert_object(row, row_format, split=split, own_split=own_split)
    except RecursionError:
        return Fault("wrong_type", "nested too deeply")


def _convert_object(row: Row, row_format: RowFormat, *, split: str | None, own_split: bool) -> Example | Fault:
    turns = row_format.turns(row)
    repaired = turns if isinstance(turns, Fault) else repair_turns(turns)
    if isinstance(repaired, Fault):
        return _damage(row) or repaired
    if (rejected := _rejection(row, row_format)) is not None:
        return rejected
    turns, repairs = repaired
    # Everything that is not in the messages goes to `meta`.
    rest = {column: value for column, value in row.items() if column not in row_format.in_messages}
    if row_format.answer and not is_read_whole(row.get(row_format.answer)):
        rest[row_format.answer] = row[row_format.answer]
    for column in _TOOL_COLUMNS:
        if rest.get(column):
            rest[column] = without_nulls(rest[column])
    # A column `split` stays in `meta` only where its standard name is another word.
    own = rest.get("split")
    if own_split and isinstance(own, str) and own.strip():
        split = standard_split(own)
        if split == own:
            del rest["split"]
    if any(turn.fields for turn in turns):
        rest["_turns"] = {str(position): turn.fields for position, turn in enumerate(turns) if turn.fields}
    if repairs:
        rest["_repairs"] = repairs
    meta = json_text(rest) if rest else "{}"
    # Every cell is looked at only where a cheap look at the example finds something suspicious.
    if _is_suspicious(turns, meta) and (fault := _damage(row)):
        return fault
    return Example(split, turns, meta)


def _rejection(row: Row, row_format: RowFormat) -> Fault | None:
    """Why a row is not trained on although it is complete: its label says that its answer is a bad one."""
    for column in _LABEL_COLUMNS:
        value = row.get(column)
        if value is None or column in row_format.in_messages:
            continue
        if value is False or (isinstance(value, str) and value.strip().lower() in _FALSE_LABELS):
            return Fault("rejected_answer", f"{column}: {json_text(value)}")
    for column in _BEST_COLUMNS:
        value = row.get(column)
        if isinstance(value, (int, str)) and column not in row_format.in_messages and row_format.answer:
            several = candidates(row.get(row_format.answer)) > 1 and isinstance(cell_text(value), str)
            if several and len(str(value)) <= _LONGEST_NAME and not isinstance(value, bool):
                detail = (
                    f"{column}: {json_text(value)} says which of the answers in {row_format.answer!r} is the good one"
                )
                return Fault("wrong_type", f"{detail}; keep only that answer")
    return None


def _is_suspicious(turns: Turns, meta: str) -> bool:
    """Whether the example may hold a NUL, a lone surrogate or an oversized cell; never false where it does."""
    if len(meta) * 4 >= MAX_CELL or "\\u0000" in meta or not _is_encodable(meta):
        return True
    for turn in turns:
        content = turn.content
        if "\0" in content or len(content) * 4 >= MAX_CELL or not _is_encodable(content):
            return True
        if turn.role not in _STANDARD_ROLES and ("\0" in turn.role or not _is_encodable(turn.role)):
            return True
    return False


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _damage(row: Row) -> Fault | None:
    """The first text of a row, keys included, that no example may hold."""
    for text in _all_texts(row):
        if "\0" in text:
            return Fault("nul_byte", "a NUL character")
        if not _is_encodable(text):
            return Fault("lone_surrogate", "half of a surrogate pair")
        if len(text) * 4 >= MAX_CELL and len(text.encode()) >= MAX_CELL:
            return Fault("oversized_cell", f"a cell of {len(text.encode()):,} bytes")
    return None


def _all_texts(value: Any) -> Iterator[str]:
    """Every text within a value, without recursion: the data decide how deep it is nested."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack.extend(key for key in value if isinstance(key, str))
            stack.extend(value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
