"""Nothing that a data set says becomes markup."""

from __future__ import annotations

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
    "decision": lambda text: markup.decision(
        {"stage": text, "action": text, "reason": text, "score": 0.5, "threshold": 0.4, "witness": text, "detail": text}
    ),
    "row_head": lambda text: markup.row_head(text, {"fate": text, "stage": text, "reason": text}),
    "notice": markup.notice,
    "title": markup.title,
    "tokens": lambda text: markup.trained_tokens([(text, True)]),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@given(text=st.one_of(st.sampled_from(list(HOSTILE.values())), st.text(), st.from_regex(r"[<>&\"'`/a-z\n]{0,40}")))
def test_foreign_text_never_makes_a_tag_or_an_attribute(build, text: str) -> None:
    document = read(build(text))
    assert set(document.tags) <= OURS
    assert document.attributes <= {"class", "dir", "style"}


@given(st.text(alphabet=st.characters(exclude_characters="\r")))
def test_escaped_text_reads_as_the_text_itself(text: str) -> None:
    assert read(markup.escaped(text)).text == markup.visible(text)


def test_characters_that_hide_or_reorder_are_spelled_out() -> None:
    assert markup.visible("a\u202eb\x1b[31m\u200bc\ufeff\x00") == "a⟨U+202E⟩b⟨U+001B⟩[31m⟨U+200B⟩c⟨U+FEFF⟩⟨U+0000⟩"
    assert markup.visible("tabs\tand\nlines stay") == "tabs\tand\nlines stay"


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
