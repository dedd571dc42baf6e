"""How the rows of a file are read: the format, its columns, and where the options of a question are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.choices import (
    Counting,
    OptionColumns,
    counting,
    first_answer,
    letter_of_number,
    option_columns,
    parse_choices,
)
from siftune.curation.formats.detection import LABELS
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import Format
from siftune.curation.formats.turns import Turns

#: The key under which the options of several columns are given to a format.
_CHOICES = "choices of columns"


@dataclass(frozen=True)
class RowFormat:
    """How the rows of a file are converted.

    Attributes:
        format: The format of the rows.
        columns: Role to column.
        in_messages: Columns that are in the messages, so that `meta` need not hold them.
        answer: The column of the answer, "" for a dialogue. A cell with several answers stays in `meta`.
        options: The columns that hold the options of a question, one each.
        counting: What numbers among the answers mean where a question has options.
        roles: The role that the recipe gives to the names of roles in the data.
    """

    format: Format
    columns: Columns
    in_messages: frozenset[str]
    answer: str = ""
    options: OptionColumns | None = None
    counting: Counting = "unclear"
    roles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        spec: Format,
        columns: Columns,
        *,
        sample: Sequence[Row] = (),
        present: Sequence[str] = (),
        roles: Mapping[str, str] | None = None,
    ) -> RowFormat:
        """A format with its mapping of roles to columns.

        Args:
            spec: The format.
            columns: Role to column.
            sample: Some of the rows.
            present: The columns of the rows.
            roles: Standard role by the name of a role in the data, as in the recipe.
        """
        in_messages = frozenset(column for role, column in columns.items() if role not in spec.meta)
        answer = columns.get(spec.answer, "")
        options = None
        if "choices" in spec.roles and "choices" not in columns:
            options = option_columns(list(present), list(columns.values()))
        if options is not None:
            in_messages |= frozenset(options.names)
            columns = {**columns, "choices": _CHOICES}
        names = {name.lower(): role for name, role in (roles or {}).items()}
        row_format = cls(spec, columns, in_messages, answer, options, "unclear", names)
        return replace(row_format, counting=row_format._counting(sample)) if "choices" in columns else row_format

    def _counting(self, sample: Sequence[Row]) -> Counting:
        items = [(first_answer(row.get(self.answer)), self._options(row)) for row in sample]
        is_label = self.answer.lower() in LABELS
        usual: Counting = "unclear"
        if self.options is None:  # an index into a list
            is_index = is_label or any(isinstance(answer, int) for answer, _ in items)
            usual = "from 0" if is_index else "unclear"
        elif self.options.begins == "0":
            usual = "from 0"
        elif self.options.begins == "1" and not is_label:  # labels of classes count from 0, whatever columns are called
            usual = "from 1"
        return counting(items, usual=usual)

    def _options(self, row: Row) -> list[str]:
        """The texts of the options of a row that have no names of their own."""
        if self.options is not None:
            return self.options.texts(row)
        choices = parse_choices(row.get(self.columns["choices"]))
        return [choice.text for choice in choices] if not any(choice.label for choice in choices) else []

    def turns(self, row: Row) -> Turns | Fault:
        """The turns of a row, before they are judged."""
        if "choices" in self.columns and self.answer:
            named = self._with_named_option(row)
            if isinstance(named, Fault):
                return named
            row = named
        turns = self.format.convert(row, self.columns)
        if self.roles and not isinstance(turns, Fault):
            turns = [turn._replace(role=self.roles.get(turn.role.lower(), turn.role)) for turn in turns]
        return turns

    def _with_named_option(self, row: Row) -> Row | Fault:
        """A row whose options are in one column, and whose answer is a letter where it was the number of an option."""
        answer, texts = first_answer(row.get(self.answer)), self._options(row)
        named = letter_of_number(answer, len(texts), self.counting) if texts else answer
        if named is None:
            detail = f"{self.answer}: {answer} may count the options from 0 or from 1, which the rows do not show"
            return Fault("wrong_type", f"{detail}; write letters or the texts of the options")
        if self.options is not None:
            row = {**row, _CHOICES: texts}
            named = self.options.letter(named)
        return row if named is answer else {**row, self.answer: named}
