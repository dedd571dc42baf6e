"""Chat templates of published models: what is trained of each kind of dialogue."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import pytest

from siftune.training import masks
from tests.training import chat_template_table as table

SOURCES = table.templates()
ANSWERS = ["The apple is red.", "The bridge is blue.\nReally."]


@pytest.fixture(params=SOURCES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return table.tokenizer_for(SOURCES[request.param])


def test_trl_ships_its_templates() -> None:
    assert len(table.trl_templates()) >= 41


def test_plain_rows_are_trained_with_every_template(tokenizer: Any) -> None:
    for kind, count in (("single turn", 1), ("two turns", 2)):
        result = table.outcome(tokenizer, table.KINDS[kind])
        assert result.reason == ""
        assert len(result.spans) == count
        for answer, span in zip(ANSWERS, result.spans, strict=False):
            assert span.startswith(answer)
            assert not table.MARK.sub("", span.removeprefix(answer)).strip()
        assert result.warnings == [] or "no end mark" in result.warnings[0]
        assert bool(result.spans[-1].removeprefix(ANSWERS[count - 1])) == (result.warnings == [])


def test_a_folded_system_turn_is_trained_with_every_template(tokenizer: Any) -> None:
    plain, folded = (table.outcome(tokenizer, table.KINDS[kind], system="fold") for kind in ("single turn", "system"))
    assert folded.spans == plain.spans


def test_answers_stop_where_they_were_trained_to(tokenizer: Any) -> None:
    ends = {tokenizer.decode([token]) for token in masks.end_tokens(tokenizer)}
    last = table.outcome(tokenizer, table.KINDS["two turns"]).spans[-1].removeprefix(ANSWERS[1])
    assert bool(ends) == bool(last)
    if last:
        assert "<" + last.rpartition("<")[2] in ends
    thought = table.outcome(tokenizer, table.KINDS["thought"]).spans[0]
    inside = thought[: thought.rindex("<")] if last else thought
    assert not [end for end in ends if end in inside]


def test_the_mark_that_ends_earlier_answers_only_is_not_trained() -> None:
    """gpt-oss: a model that learns to write <|end|> behind its answer would not stop there."""
    tokenizer = table.tokenizer_for(SOURCES["gptoss"])
    ends = {tokenizer.decode([token]) for token in masks.end_tokens(tokenizer)}
    assert ends == {"<|return|>", "<|call|>"}
    spans = table.outcome(tokenizer, table.KINDS["two turns"]).spans
    assert spans == [ANSWERS[0], ANSWERS[1] + "<|return|>"]
    call, answer = table.outcome(tokenizer, table.KINDS["tool call"]).spans
    assert call.endswith('{"thing": "apple"}<|call|>')
    assert answer == ANSWERS[0] + "<|return|>"
    thought = table.outcome(tokenizer, table.KINDS["thought"]).spans[0]
    opening = "<|channel|>analysis<|message|>"
    final = "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert thought == f"{opening}{table.THOUGHT}{final}{ANSWERS[0]}<|return|>"


ALWAYS_PROMPTS = (
    "{% for m in messages %}{{ '<|start|>' + m.role + '<|head|>' + m.content + '<|eot|>' }}{% endfor %}"
    "{{ '<|start|>assistant<|head|>' }}"
)


@pytest.mark.parametrize("preface", ["", "<|start|>system<|head|>Be kind.<|eot|>"])
def test_a_header_that_is_always_written_is_no_end(preface: str) -> None:
    """The first template of Llama 3 wrote the header of the next answer whether or not it was asked to."""
    tokenizer = table.tokenizer_for(preface + ALWAYS_PROMPTS)
    result = table.outcome(tokenizer, table.KINDS["two turns"])
    assert result.spans == [answer + "<|eot|>" for answer in ANSWERS]
    assert {tokenizer.decode([token]) for token in masks.end_tokens(tokenizer)} == {"<|eot|>"}
    headers = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}<|assistant|>"
    result = table.outcome(table.tokenizer_for(headers), table.KINDS["single turn"])
    assert result.spans == [ANSWERS[0]]
    assert "no end mark" in result.warnings[0]


def test_a_call_that_is_written_otherwise_before_its_result_is_trained_whole() -> None:
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
        '[{"name": "{{ c.function.name }}", "of": "{{ c.function.arguments.thing }}"'
        '{% if not loop.last or not loop.first or messages|length > 2 %}, "id": 7{% endif %}}]{% endfor %}'
        "{% if m.role == 'assistant' %}<|eot|>{% endif %}{% endfor %}"
    )
    result = table.outcome(table.tokenizer_for(source), table.KINDS["tool call"])
    assert result.spans[0] == '[{"name": "colour_of", "of": "apple", "id": 7}]<|eot|>'


def test_the_table_in_docs_is_what_training_does(capsys: pytest.CaptureFixture[str]) -> None:
    document = table.document()
    with capsys.disabled():
        sys.stdout.write("\n" + document[document.index("| template") :])
    stored = table.DOCUMENT.read_text(encoding="utf-8")
    if f"TRL {version('trl')} " not in stored:
        pytest.skip("docs/chat_templates.md is of another version of TRL")
    assert stored == document
