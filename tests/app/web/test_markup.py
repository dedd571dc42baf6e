"""Nothing that a data set says becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.app.web import markup
from siftune.curation.text.differences import cut_spans, word_differences
from tests.app.world import HOSTILE

OURS = {"div", "span", "pre", "b", "i", "mark", "table", "thead", "tbody", "tr", "th", "td", "h1"}


class _Reader(HTMLParser):
    """Collects the tags, their attributes and the text that a browser would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> _Reader:
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return reader


BUILDERS = {
    "conversation": lambda text: markup.conversation([{"role": text, "content": text}]),
    "bubble": lambda text: markup.bubble("assistant", text, label=text, tone=text),
    "marked": lambda text: markup.marked(word_differences(text, "x")[0]),
    "tag": lambda text: markup.tag(text, text),
    "facts": lambda text: markup.facts([(text, text)]),
    "table": lambda text: markup.table([text], [[text]]),
    "decision": markup.decision,
    "note": markup.note,
    "row_head": lambda text: markup.row_head(text, {"fate": text, "stage": text, "reason": text}),
    "notice": markup.notice,
    "title": markup.title,
    "purpose": markup.purpose,
    "figure": lambda text: markup.figure(text, text, text),
    "tokens": lambda text: markup.trained_tokens([(text, True)]),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@given(text=st.one_of(st.sampled_from(list(HOSTILE.values())), st.text(), st.from_regex(r"[<>&\"'`/a-z\n]{0,40}")))
def test_foreign_text_never_makes_a_tag_or_an_attribute(build, text: str) -> None:
    document = read(build(text))
    assert set(document.tags) <= OURS
    assert document.attributes <= {"class", "dir", "style"}


#: What Markdown may become, besides `OURS`.
RENDERED = {
    "p",
    "ul",
    "ol",
    "li",
    "strong",
    "em",
    "s",
    "code",
    "blockquote",
    "hr",
    "br",
    *(f"h{n}" for n in range(1, 7)),
}
PIECES = [
    *HOSTILE.values(),
    "# ",
    "- ",
    "1. ",
    "> ",
    "\n",
    "\n\n",
    "```x\n",
    "    ",
    "`",
    "**",
    "_",
    "~~",
    "| a | b |\n|--|:-:|\n",
]
PIECES += [
    "[a](http://h)",
    "![a](http://h)",
    "<http://h>",
    "[a]: http://h",
    "[a][a]",
    "&#x202E;",
    "&lt;script&gt;",
    "<b>",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12).map("".join))
def test_markdown_of_an_answer_makes_no_tag_and_no_attribute_that_loads_or_leads_anywhere(text: str) -> None:
    shown = markup.rendered(text)
    document = read(shown)
    assert set(document.tags) <= OURS | RENDERED
    assert document.attributes <= {"class", "dir", "style", "start"}
    assert shown == markup.visible(shown)
    for style in re.findall(r'style="([^"]*)"', shown):
        assert re.fullmatch(r"text-align:(left|center|right)", style)


def test_markdown_is_rendered_as_code_lists_and_tables() -> None:
    text = "# T\n\n1. one\n2. **two**\n\n```py\nx < 1\n```\n\n| a |\n|--|\n| 1 |\n"
    shown = markup.rendered(text)
    for part in ("<h1>T</h1>", "<ol>", "<strong>two</strong>", "x &lt; 1", "<td>1</td>"):
        assert part in shown


@pytest.mark.parametrize("text", [">" * 30 + " deep", "- " * 25 + "deep", "> - " * 12 + "deep"])
def test_what_is_nested_too_deeply_is_shown_as_it_is(text: str) -> None:
    assert "deep" in markup.rendered(text)


@given(st.text(alphabet=st.characters(exclude_characters="\r")))
def test_escaped_text_reads_as_the_text_itself(text: str) -> None:
    assert read(markup.escaped(text)).text == markup.visible(text)


def test_characters_that_hide_or_reorder_are_spelled_out() -> None:
    assert markup.visible("a\u202eb\x1b[31m\u200bc\ufeff\x00") == "a⟨U+202E⟩b⟨U+001B⟩[31m⟨U+200B⟩c⟨U+FEFF⟩⟨U+0000⟩"
    assert markup.visible("tabs\tand\nlines stay") == "tabs\tand\nlines stay"


def test_backticks_of_our_own_texts_are_code_and_those_of_others_stay() -> None:
    text = "add `topics: {}` or `<b>`; one ` alone"
    assert "add <code>topics: {}</code> or <code>&lt;b&gt;</code>; one ` alone" in markup.notice(markup.with_code(text))
    assert "add `topics: {}` or `&lt;b&gt;`" in markup.notice(text)


def test_long_texts_and_long_dialogues_are_cut_and_say_so() -> None:
    assert "980,000 more characters" in markup.prose("x" * 1_000_000)
    assert len(markup.prose("x" * 1_000_000)) < 30_000
    many = markup.conversation([{"role": "user", "content": str(turn)} for turn in range(500)])
    assert "440 more turns" in many
    assert many.count('class="sf turn user') == markup.MOST_TURNS


def test_labels_of_widgets_show_markdown_as_it_stands() -> None:
    assert markup.markdown("![x](http://h) :red[y] $z$") == r"\!\[x\]\(http\:\/\/h\) \:red\[y\] \$z\$"


@given(st.text(), st.text())
def test_both_sides_of_a_comparison_are_whole(left: str, right: str) -> None:
    one, two = word_differences(left, right)
    assert "".join(text for _, text in one) == left
    assert "".join(text for _, text in two) == right
    assert [text for kind, text in one if kind == "same"] == [text for kind, text in two if kind == "same"]


@given(st.text(min_size=1), st.lists(st.integers(1, 9), max_size=8))
def test_a_comparison_of_joined_texts_is_cut_where_they_were_joined(text: str, lengths: list[int]) -> None:
    pieces = cut_spans(word_differences(text, text[::-1])[0], lengths)
    texts = ["".join(part for _, part in piece) for piece in pieces]
    start = 0
    for length, piece in zip(lengths, texts, strict=True):
        assert piece == text[start : start + length]
        start += length
