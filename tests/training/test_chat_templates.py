"""Every chat template that TRL ships: what is trained of each kind of dialogue."""

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
    assert len(SOURCES) >= 41


def test_plain_rows_are_trained_with_every_template(tokenizer: Any) -> None:
    for kind, count in (("single turn", 1), ("two turns", 2)):
        result = table.outcome(tokenizer, table.KINDS[kind])
        assert result.reason == ""
        assert len(result.spans) == count
        for answer, span in zip(ANSWERS, result.spans, strict=False):
            assert span.startswith(answer)
            assert not table.MARK.sub("", span.removeprefix(answer))
        assert result.warnings == [] or "no end mark" in result.warnings[0]
        assert bool(result.spans[-1].removeprefix(ANSWERS[count - 1])) == (result.warnings == [])


def test_a_folded_system_turn_is_trained_with_every_template(tokenizer: Any) -> None:
    plain, folded = (table.outcome(tokenizer, table.KINDS[kind], system="fold") for kind in ("single turn", "system"))
    assert folded.spans == plain.spans


def test_answers_stop_where_they_were_trained_to(tokenizer: Any) -> None:
    ends = {tokenizer.decode([token]) for token in masks.end_tokens(tokenizer)}
    last = table.outcome(tokenizer, table.KINDS["two turns"]).spans[-1].removeprefix(ANSWERS[1])
    assert ends == ({"<" + last.rpartition("<")[2]} if last else set())


def test_the_table_in_docs_is_what_training_does(capsys: pytest.CaptureFixture[str]) -> None:
    document = table.document()
    with capsys.disabled():
        sys.stdout.write("\n" + document[document.index("| template") :])
    stored = table.DOCUMENT.read_text(encoding="utf-8")
    if f"TRL {version('trl')} " not in stored:
        pytest.skip("docs/chat_templates.md is of another version of TRL")
    assert stored == document
