r"""Dialogues written into one text with marks: `### Human:`, ChatML, `[INST]`, Llama 3, Gemma, "\n\nHuman:" and others.

The format reads a column `text`; `parse_marked_text` also reads such texts in the cells of other formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from siftune.curation.formats.cells import Columns, Row
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.format import SYSTEM_PROMPTS, Format
from siftune.curation.formats.turns import ROLES, Turn, Turns, system_turn

_SPEAKERS = (
    r"Human|User|Prompter|Question|Instruction|Assistant|GPT|Bot|AI|Model|Answer|Response|Output|System|Input|Context"
)
_ROLES_OF_MARKS = {"input": "user", "context": "user", "response": "assistant", "output": "assistant"}
#: A mark names its speaker in its first group that matched; the text up to the next mark is the turn.
_MARKS = (
    re.compile(r"<\|im_start\|>[ \t]*(\w+)[ \t]*\n?"),
    re.compile(r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\n{0,2}"),
    re.compile(r"<start_of_turn>[ \t]*(\w+)[ \t]*\n?"),
    re.compile(r"<\|(user|assistant|system|human|prompter|bot|tool|observation)\|>:?[ \t]*\n?"),
    re.compile(rf"(?:\A|(?<=\n)|(?<=\S)|(?<= ))###[ \t]*({_SPEAKERS})[ \t]*:[ \t]*\n?", re.IGNORECASE),
    re.compile(rf"(?:\A|(?<=\n))(?:###|##)[ \t]+({_SPEAKERS})[ \t]*\n", re.IGNORECASE),
    re.compile(r"(?:\A|(?<=\n)|(?<=</s>)|(?<= ))(USER|ASSISTANT|SYSTEM|HUMAN):[ \t]*\n?"),
    re.compile(r"<｜(User|Assistant)｜>"),
    re.compile(r"(?:\A|(?<=\n))<(human|bot|user|assistant|system)>:[ \t]*\n?"),
    re.compile(r"(?:\A|(?<=\n))(Human|User|Assistant|AI|System):[ \t]*\n?"),
    re.compile(r"(?:\A|(?<=\n))(Question|Answer):[ \t]*\n?"),
)
_END = (
    r"<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<end_of_turn>|<\|end\|>|<\|endoftext\|>|<\|end_of_text\|>|</s>|<eos>"
    r"|<｜end▁of▁sentence｜>"
)
_ENDS = re.compile(rf"(?:{_END}|\s)+\Z")
_ENDS_OF_HEADINGS = re.compile(rf"(?:{_END}|###|\s)+\Z")  # some texts end with the mark that would come next
_INNER_END = re.compile(_END)
_BEGINNINGS = re.compile(r"\A(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>|\s)+")
_FIRST_MARKS = ("Human:", "USER:", "SYSTEM:", "HUMAN:", "###", "<|", "<s>", "<bos>", "[INST]", "<start_of_turn>")
_HH_MARK = re.compile(r"(?:\A|\n\n)\s*(Human|Assistant): ?")
_INST = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=(?:<s>|</s>|\s)*\[INST\]|\Z)", re.DOTALL)
_SYS = re.compile(r"\A\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)


def parse_marked_text(text: str) -> Turns | None:
    """The turns of a text with marks, when they hold a user's turn and all speakers are known; None for other texts.

    What stands before the first mark is the system turn.
    """
    for parse in _PARSERS:
        turns = parse(text)
        if turns is not None and any(turn.role == "user" for turn in turns):
            # A turn that ends before its text does would be trained with the mark inside.
            return None if any(_INNER_END.search(turn.content) for turn in turns) else turns
    return None


def begins_with_mark(text: str) -> bool:
    """Whether a text can be a dialogue from its first word on, and not an answer that quotes one."""
    return text.lstrip().startswith(_FIRST_MARKS)


def _parse_hh(text: str) -> Turns | None:
    parts = _HH_MARK.split(text)
    if len(parts) < 3 or parts[0].strip() or parts[1] != "Human":
        return None
    if len(parts) < 5 and "\nAssistant:" in text:  # one mark a line, without the blank line between turns
        return None
    speakers, contents = parts[1::2], parts[2::2]
    return [Turn(ROLES[speaker.lower()], content.strip()) for speaker, content in zip(speakers, contents, strict=True)]


def _parse_inst(text: str) -> Turns | None:
    first = text.find("[INST]")
    if first < 0 or "[/INST]" not in text:
        return None
    before = _BEGINNINGS.sub("", text[:first]).strip()
    turns = [Turn("system", before)] if before else []
    for question, answer in _INST.findall(text):
        system = _SYS.match(question)
        if system is not None:
            turns.append(Turn("system", system[1].strip()))
            question = question[system.end() :]
        turns.append(Turn("user", question.strip()))
        if answer := _ENDS.sub("", answer).strip():
            turns.append(Turn("assistant", answer))
    return turns


def _parser_of(mark: re.Pattern[str]) -> Callable[[str], Turns | None]:
    ends = _ENDS_OF_HEADINGS if "###" in mark.pattern else _ENDS
    is_plain = mark in _MARKS[-2:]  # words that any text may hold: they have to open the text and to take turns

    def parse(text: str) -> Turns | None:
        parts = mark.split(text)
        if len(parts) < 5:  # a text with one mark is a text
            return None
        before = _BEGINNINGS.sub("", parts[0]).strip()
        roles = [ROLES[speaker.lower()] for speaker in parts[1::2] if speaker.lower() in ROLES]
        if is_plain and (before or any(role == following for role, following in pairwise(roles))):
            return None
        turns = [Turn("system", before)] if before else []
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
            name = speaker.lower()
            role = _ROLES_OF_MARKS.get(name) or ROLES.get(name)
            if role is None:
                return None
            content = ends.sub("", content).strip()
            if role == "user" and name in ("input", "context") and turns and turns[-1].role == "user":
                turns[-1] = Turn("user", f"{turns[-1].content}\n\n{content}".strip())
            elif content or role != "assistant":
                turns.append(Turn(role, content))
        return [turn for turn in turns if turn.content]

    return parse


_PARSERS: tuple[Callable[[str], Turns | None], ...] = (
    _parse_hh,
    *map(_parser_of, _MARKS[:4]),
    _parse_inst,
    *map(_parser_of, _MARKS[4:]),
)


def convert(row: Row, columns: Columns) -> Turns | Fault:
    """The turns between the marks; a `system` column comes first."""
    value = row.get(columns["text"])
    if not isinstance(value, str) or not value.strip():
        return Fault("missing_prompt", "no text")
    turns = parse_marked_text(value)
    if turns is None:
        return Fault("bad_roles", "a text that no marks divide into turns")
    system = system_turn(row, columns)
    return system if isinstance(system, Fault) else [*system, *turns]


def matches(role: str, values: Sequence[Any]) -> bool:
    """Whether any of `values` of the text column has the marks of a question and of an answer."""
    return role != "text" or any(
        isinstance(value, str)
        and (turns := parse_marked_text(value)) is not None
        and any(turn.role == "assistant" for turn in turns)
        for value in values
    )


FORMAT = Format(
    name="marked_text",
    roles={
        "text": ("text", "prompt", "conversation", "conversations", "dialogue", "dialog", "messages", "chat", "sample"),
        "system": SYSTEM_PROMPTS,
    },
    required=("text",),
    convert=convert,
    matches=matches,
)
