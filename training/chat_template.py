"""A model's chat template: the text of a dialogue, and where in the finished text each assistant turn is.

The template is rendered twice: once with the dialogue, once with a short marker in place of each text. The second
rendering, the outline, shows what the template writes around the texts of a dialogue of this structure (roles, blanks
around texts, thoughts, names of tool calls). The finished text must be the outline with the texts put back in,
character by character; so the place of every text is known without searching for it, and a text that the template
drops, cuts or rewrites is noticed. No generation prompt has to be a prefix of anything.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from siftune.curation.errors import UserError
from siftune.training import render_limit
from siftune.training.marked_texts import MARKER, MarkedTexts, mark_turn
from siftune.training.row_turns import RowTurn, SystemTurn, fold_system

#: Templates that write today's date get this one: the same row must have the same tokens tomorrow.
TEMPLATE_DATE = "26 Jul 2024"
#: What a template raises besides jinja2's own errors.
_TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_DATE = dt.datetime(2024, 7, 26, tzinfo=dt.UTC)
_STRFTIME = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
#: Outlines that are kept for the rows that follow.
_CACHED_OUTLINES = 2048

#: A control mark such as <|im_end|>, </s> or [INST], and the beginning of one.
_CONTROL_MARK = re.compile(r"\s*(<[^<>\s]+>|\[[^\[\]\s]+\])")
_BROKEN_MARK = re.compile(r"(<[^<>]*|\[[^\[\]]*)$")

Document = dict[str, Any]
Span = tuple[int, int]


class Refused(Exception):  # noqa: N818 - a row is refused, nothing went wrong
    """Why a row cannot be written in the template, as a sentence without its full stop."""


@dataclass(frozen=True)
class RenderedRow:
    """The text of a row and its assistant turns."""

    text: str
    #: Where each trained turn begins and ends, its end-of-turn mark included.
    spans: list[Span]
    #: What is worth a warning; see `NOTES`.
    notes: frozenset[str]


#: What can be told of rows that are trained all the same; `{rows}` is their number.
NOTES = {
    "no_end": "{rows}: the chat template writes no end mark behind the last answer, so the model does not learn "
    "where to stop. Use a model whose template ends its turns.",
    "no_end_token": "{rows}: the mark behind an answer is not one token of this tokenizer, so generation cannot stop "
    "at it. Add it to the tokenizer, or use a model whose template and tokenizer belong together.",
    "tools": "{rows}: the chat template does not write `tools`; the model is not shown which tools there are.",
    "calls": "{rows}: the chat template does not write `tool_calls`; the calls are trained as JSON text.",
    "thought": "{rows}: the chat template does not write the thought before the last answer; it is not trained.",
}


def with_fixed_date(template: str) -> str:
    """The source of a template with the fixed date in place of its calls of `strftime_now`."""
    return _STRFTIME.sub(lambda call: json.dumps(_DATE.strftime(call[2])), template)


@dataclass
class _Outline:
    """A dialogue of markers as the template writes it."""

    text: str
    #: The markers of the outline in order: which text, where its marker begins and ends.
    markers: list[tuple[int, int, int]]
    spans: list[Span]
    notes: frozenset[str]
    #: Makes the documents of a row of this structure.
    form: _Form


@dataclass(frozen=True)
class _Form:
    """How fields are passed; templates differ in what they accept."""

    #: The content of a turn that only calls tools is None, not the empty text.
    null_content: bool = False
    #: Arguments of calls are JSON text, not an object.
    text_arguments: bool = False
    #: Calls are written into the content.
    calls_as_text: bool = False


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: A tokenizer with a chat template.
        system: `fold` puts system turns into the user's turn, for templates that take none.
    """

    def __init__(self, tokenizer: Any, *, system: SystemTurn = "keep") -> None:
        self._tokenizer = tokenizer
        self._system = system
        self._outlines: dict[str, _Outline | Refused] = {}
        self._sources: dict[bool, str] = {}
        self._in_parts = self._needs_parts()

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text after which the model is to answer. Raises `UserError` when the template refuses the dialogue."""
        turns = [RowTurn(message["role"], message["content"]) for message in messages]
        try:
            return self._render(self._documents(self._folded(turns), _Form()), prompt=True)
        except Refused as fault:
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"The model's chat template refuses a dialogue of the turns {roles}: {fault}. "
                "Leave such turns out, or choose a model whose template accepts them."
            ) from None

    def render_row(self, turns: Sequence[RowTurn], tools: Sequence[Mapping[str, Any]] = ()) -> RenderedRow:
        """The text of a row and where its trained turns are. Raises `Refused` when the template cannot write it."""
        turns = self._folded(turns)
        texts = MarkedTexts()
        marked = [mark_turn(turn, position, texts) for position, turn in enumerate(turns)]
        key = json.dumps([[vars(turn) for turn in marked], list(tools)], default=str, sort_keys=True)
        outline = self._outlines.get(key)
        if outline is None:
            if len(self._outlines) >= _CACHED_OUTLINES:
                self._outlines.clear()
            outline = self._outlines[key] = self._outline(marked, texts, tools)
        if isinstance(outline, Refused):
            raise outline
        text = self._render(self._documents(turns, outline.form), tools)
        places = _put_back(outline, texts.texts, text)
        if places is None:
            # The template looks at what texts say: leave all texts but the answers as they are.
            texts = MarkedTexts()
            marked = [
                mark_turn(turn, position, texts) if turn.role == "assistant" else turn
                for position, turn in enumerate(turns)
            ]
            outline = self._outline(marked, texts, tools)
            if isinstance(outline, Refused):
                raise outline
            text = self._render(self._documents(turns, outline.form), tools)
            places = _put_back(outline, texts.texts, text)
        if places is None or not all(_is_written(turn, text) for turn in turns):
            raise Refused("the model's chat template rewrites the text of a turn")
        spans = [
            (_finished_offset(outline, places, begin), _finished_offset(outline, places, end))
            for begin, end in outline.spans
        ]
        return RenderedRow(text, spans, outline.notes)

    def end_tokens(self, encode: Callable[[str], Sequence[int]], is_special: Callable[[int], bool]) -> tuple[int, ...]:
        """The special tokens that end the last answer, earlier answers, and tool calls, in this order, each once; but
        not what is also written between a thought and its answer (gpt-oss writes `<|end|>` there).

        Args:
            encode: Token ids of a text, special tokens recognised and none added.
            is_special: Whether a token is a mark of templates and no text.
        """
        ask, answer = RowTurn("user", "a"), RowTurn("assistant", "b")
        call = {"type": "function", "id": "call00000", "function": {"name": "b", "arguments": {"c": "d"}}}
        spans = self._span_tokens([ask, answer, ask, answer], encode)[::-1]
        if any(is_special(tokens[-1]) for tokens in spans):  # otherwise what closes a call closes no turn
            spans += self._span_tokens([ask, RowTurn("assistant", "", calls=(call,))], encode)
        thoughtful = self._span_tokens([ask, replace(answer, thought="c")], encode)
        inside = {token for tokens in thoughtful for token in tokens[:-1]}
        ends = dict.fromkeys(tokens[-1] for tokens in spans)
        return tuple(token for token in ends if is_special(token) and token not in inside)

    def _span_tokens(self, dialogue: Sequence[RowTurn], encode: Callable[[str], Sequence[int]]) -> list[Sequence[int]]:
        """The tokens of each trained span of a dialogue; none when the template refuses it."""
        try:
            row = self.render_row(dialogue)
        except Refused:
            return []
        return [encode(row.text[begin:end].rstrip()) for begin, end in row.spans]

    def _folded(self, turns: Sequence[RowTurn]) -> list[RowTurn]:
        return fold_system(turns) if self._system == "fold" else list(turns)

    def _source(self, *, with_tools: bool) -> str:
        if with_tools not in self._sources:
            source = self._tokenizer.get_chat_template(tools=[{}] if with_tools else None)
            self._sources[with_tools] = with_fixed_date(source)
        return self._sources[with_tools]

    def _needs_parts(self) -> bool:
        """Templates of models that see pictures take contents as lists of parts, and write nothing of a plain text."""
        for in_parts in (False, True):
            self._in_parts = in_parts
            try:
                if "zqx0xqz" in self._render(self._documents([RowTurn("user", "zqx0xqz")], _Form())):
                    return in_parts
            except Refused:
                continue
        return False

    def _documents(self, turns: Sequence[RowTurn], form: _Form) -> list[Document]:
        documents = []
        for turn in turns:
            content: Any = turn.content_with_calls if turn.calls and form.calls_as_text else turn.content
            if self._in_parts:
                content = [{"type": "text", "text": content}]
            document: Document = {"role": turn.role, "content": content, **turn.extras}
            if turn.thought is not None:
                document["reasoning_content"] = turn.thought
            if turn.calls and not form.calls_as_text:
                document["tool_calls"] = [_call(call, form) for call in turn.calls]
                if form.null_content and not turn.content:
                    document["content"] = None
            documents.append(document)
        return documents

    def _render(
        self, documents: Sequence[Document], tools: Sequence[Mapping[str, Any]] = (), *, prompt: bool = False
    ) -> str:
        """The template's text. Raises `Refused` with the template's own words, `UserError` when it does not end."""
        from jinja2.exceptions import TemplateError

        def rendered() -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    list(documents),
                    tools=list(tools) or None,
                    chat_template=self._source(with_tools=bool(tools)),
                    tokenize=False,
                    add_generation_prompt=prompt,
                    date_string=TEMPLATE_DATE,
                )
            )

        try:
            return render_limit.render(rendered, lambda: len(str([documents, tools])))
        except render_limit.OverLimitError as fault:
            raise UserError(
                f"The model's chat template was stopped: {fault}. Put a chat_template.jinja that is right beside the "
                "model's tokenizer, or use another model."
            ) from None
        except (TemplateError, *_TEMPLATE_FAULTS) as fault:
            roles = ", ".join(document["role"] for document in documents)
            raise Refused(f"the model's chat template refuses the turns {roles}: {fault}") from None

    def _outline(
        self, turns: Sequence[RowTurn], texts: MarkedTexts, tools: Sequence[Mapping[str, Any]]
    ) -> _Outline | Refused:
        """The outline in the first form that the template writes whole."""
        forms = [_Form()]
        if any(turn.calls for turn in turns):
            forms = [_Form(null, text) for text in (False, True) for null in (False, True)]
            forms.append(_Form(calls_as_text=True))
        refusals = []
        for form in forms:
            try:
                return self._outline_in(form, turns, texts, tools)
            except Refused as refusal:
                refusals.append(refusal)
        return refusals[-1]

    def _outline_in(
        self, form: _Form, turns: Sequence[RowTurn], texts: MarkedTexts, tools: Sequence[Mapping[str, Any]]
    ) -> _Outline:
        documents = self._documents(turns, form)
        text = self._render(documents, tools)
        markers = [(int(match[1]), match.start(), match.end()) for match in MARKER.finditer(text)]
        written = {number for number, _, _ in markers}

        # Every text must be there; only thoughts may be left out. Calls are written as calls or as text.
        for number, (owner, kind) in enumerate(zip(texts.turns, texts.kinds, strict=True)):
            other_form = "text_call" if not form.calls_as_text else "content" if turns[owner].calls else ""
            is_optional = kind in ("thought", other_form) or (kind == "call" and form.calls_as_text)
            if number not in written and not is_optional:
                what = "the tool calls of turn" if kind == "call" else "turn"
                raise Refused(f"the model's chat template does not write {what} {owner + 1} ({turns[owner].role})")

        notes = set()
        if tools and self._render(documents) == text:
            notes.add("tools")
        if form.calls_as_text:
            notes.add("calls")
        last = max((index for index, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
        thoughts = [n for n, owner in enumerate(texts.turns) if owner == last and texts.kinds[n] == "thought"]
        if any(number not in written for number in thoughts):
            notes.add("thought")

        spans = []
        for index, turn in enumerate(turns):
            own = [marker for marker in markers if texts.turns[marker[0]] == index]
            if turn.role != "assistant" or not turn.is_trained or not own:
                continue
            own = _first_of_each(own)
            begin = self._begin(index, own[0], markers, text, documents, texts, tools)
            end = self._end(index, own, markers, text, documents, texts, tools)
            if index == last and not text[own[-1][2] : end].strip():
                notes.add("no_end")
            spans.append((begin, end))
        return _Outline(text, markers, spans, frozenset(notes), form)

    def _begin(
        self,
        index: int,
        first: tuple[int, int, int],
        markers: Sequence[tuple[int, int, int]],
        text: str,
        documents: Sequence[Document],
        texts: MarkedTexts,
        tools: Sequence[Mapping[str, Any]],
    ) -> int:
        """Where in the outline turn `index` begins: with the text of its answer; or, where that is a thought or a call,
        with what opens it. An empty thought that the template writes before an answer is not of the row."""
        number, start, _ = first
        before = [stop for _, begin, stop in markers if begin < start]
        previous = max(before, default=0)
        gap = text[previous:start]
        try:
            prompt = self._render(documents[:index], tools, prompt=True) if index else None
        except Refused:
            prompt = None
        opening = None
        if prompt is not None:
            ends = [match.end() for match in MARKER.finditer(prompt)]
            opening = prompt[max(ends, default=0) :]
        if texts.kinds[number] in ("content", "text_call"):
            lead = texts.leads[number]
            return start - len(lead) if lead and opening is not None and gap == opening + lead else start
        shared = _common_prefix(opening or "", gap)
        if texts.kinds[number] == "call":
            # What the template writes before a plain answer stands before a call as well.
            plain = [*documents]
            content: Any = "zqx999999xqz"
            plain[index] = {
                "role": "assistant",
                "content": [{"type": "text", "text": content}] if self._in_parts else content,
            }
            try:
                other = self._render(plain[: index + 1], tools)
            except Refused:
                other = ""
            stop = other.find("zqx999999xqz")
            ends = [match.end() for match in MARKER.finditer(other) if match.end() <= stop]
            plain_gap = other[max(ends, default=0) : max(stop, 0)]
            shared = max(shared, len(plain_gap) if gap.startswith(plain_gap) else 0)
        return previous + shared

    def _end(
        self,
        index: int,
        own: Sequence[tuple[int, int, int]],
        markers: Sequence[tuple[int, int, int]],
        text: str,
        documents: Sequence[Document],
        texts: MarkedTexts,
        tools: Sequence[Mapping[str, Any]],
    ) -> int:
        """Where in the outline turn `index` ends: behind what the template writes whether or not turns follow."""
        number, _, stop = own[-1]
        following = min((begin for _, begin, _ in markers if begin >= stop), default=len(text))
        is_last = following == len(text)
        gap = text[stop:following]
        question: Document = {"role": "user", "content": "zqx999999xqz"}
        if self._in_parts:
            question["content"] = [{"type": "text", "text": question["content"]}]
        try:
            other = self._render([*documents[: index + 1], question] if is_last else documents[: index + 1], tools)
        except Refused:
            return following
        start = other.find(f"zqx{number}xqz")
        if start < 0:
            return following
        rest = MARKER.split(other[start + len(f"zqx{number}xqz") :])[0]
        shared = _common_prefix(rest, gap)

        # Behind the last turn some templates write the header of the next answer, asked for or not.
        at_the_end = gap if is_last else rest
        if gap[:shared].strip() and at_the_end[shared:].strip():
            if texts.kinds[number] == "call":
                end = _shared_end(gap, rest) and len(gap) if is_last else _shared_end(rest, gap)
                if end:
                    return stop + end
            return stop + len(_without_header(gap[:shared], text, markers))
        if gap[:shared].strip():
            return stop + shared
        if is_last:
            before = max((end for _, _, end in markers if end <= own[0][1]), default=0)
            is_header = bool(gap.strip()) and text[before : own[0][1]].strip().endswith(gap.strip())
            return stop if is_header else following
        mark = _CONTROL_MARK.match(gap)
        return stop + (mark.end() if mark and rest.strip() else shared)


def _call(call: Mapping[str, Any], form: _Form) -> Document:
    function = dict(call["function"])
    if form.text_arguments and not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}


def _first_of_each(markers: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The markers of a turn without repetitions: some templates write a function's name again before its result."""
    first: dict[int, tuple[int, int, int]] = {}
    for marker in markers:
        first.setdefault(marker[0], marker)
    return list(first.values())


def _common_prefix(one: str, other: str) -> int:
    """Characters that both texts begin with, without the beginning of a control mark that only one of them writes."""
    prefix = os.path.commonprefix([one, other])  # noqa: RUF071 - characters are what is compared
    if len(prefix) < min(len(one), len(other)):
        prefix = _BROKEN_MARK.sub("", prefix)
    return len(prefix)


def _without_header(end: str, text: str, markers: Sequence[tuple[int, int, int]]) -> str:
    """What ends a turn, without the beginning of the next turn's header: marks that also stand before the dialogue's
    first text, and are not what ends the first text's turn. The first mark stays."""
    before = text[: markers[0][1]]
    first_end = _CONTROL_MARK.match(text, markers[0][2])
    kept = end.rfind(first_end[1]) + len(first_end[1]) if first_end and first_end[1] in end else 0
    starts = [mark.start(1) for mark in _CONTROL_MARK.finditer(end)]
    return end[: next((start for start in starts[1:] if start >= kept and end[start:] in before), len(end))]


def _shared_end(rest: str, gap: str) -> int:
    """Where in `gap` the longest end of `rest` ends that is in both and closes with a control mark; 0 for none. A call
    can be written otherwise before its result (with its id, say); its end is the same."""
    rest = rest.rstrip()
    marks = [mark.start() for mark in _CONTROL_MARK.finditer(rest) if mark.end() == len(rest)]
    if not marks or rest[marks[0] :] not in gap:
        return 0
    start = next(start for start in range(marks[0] + 1) if rest[start:] in gap)
    return gap.index(rest[start:]) + len(rest) - start


def _put_back(outline: _Outline, texts: Sequence[str], text: str) -> list[Span] | None:
    """Where the texts of the outline's markers are in the finished text; None when it is another text."""
    spans = []
    outlined = position = 0
    for number, start, stop in outline.markers:
        literal = outline.text[outlined:start]
        if not text.startswith(literal, position):
            return None
        position += len(literal)
        core = texts[number]
        written = next((form for form in _spellings(core) if text.startswith(form, position)), None)
        if written is None:
            return None
        spans.append((position, position + len(written)))
        position += len(written)
        outlined = stop
    return spans if text[position:] == outline.text[outlined:] else None


def _spellings(text: str) -> Iterator[str]:
    """A text as templates write it: as it is, or inside of JSON."""
    yield text
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(text)[1:-1]


def _finished_offset(outline: _Outline, spans: Sequence[Span], position: int) -> int:
    """An offset of the outline, outside of its markers, as an offset of the finished text."""
    shift = 0
    for (_, _, stop), (_, finished_stop) in zip(outline.markers, spans, strict=True):
        if position < stop:
            break
        shift = finished_stop - stop
    return position + shift


def _is_written(turn: RowTurn, text: str) -> bool:
    """Whether the text of a turn is somewhere in the finished text (answers are placed exactly by their markers)."""
    core = turn.content.strip()
    return turn.role == "assistant" or any(form in text for form in _spellings(core))
