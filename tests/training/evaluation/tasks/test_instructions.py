"""IFEval: answers that follow instructions, by the checks of the harness, without a network."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Task
from siftune.training.evaluation.tasks import instructions
from siftune.training.evaluation.tasks.instructions import can_be_checked, follows, has_punkt, require_checks
from siftune.training.evaluation.tasks.items import read_items
from siftune.training.evaluation.tasks.score_tasks import score_tasks
from tests.real_data import DATA
from tests.training.evaluation.tasks.test_scoring import write_run


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is there, and no socket can be opened."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("langdetect")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def asked(*pairs: tuple[str, dict[str, Any]]) -> str:
    return json.dumps({"instruction_id_list": [name for name, _ in pairs], "kwargs": [kwargs for _, kwargs in pairs]})


NO_COMMA = ("punctuation:no_comma", {})
TITLE = ("detectable_format:title", {})
WORDS = ("length_constraints:number_words", {"relation": "at least", "num_words": 4})
ENDS = ("startend:end_checker", {"end_phrase": "That is all."})
LOWER = ("change_case:english_lowercase", {})


@pytest.mark.parametrize(
    ("wanted", "answer", "strict", "loose"),
    [
        (asked(NO_COMMA), "One and two and three.", True, True),
        (asked(NO_COMMA), "One, two and three.", False, False),
        (asked(NO_COMMA, WORDS), "One and two.", False, False),
        (asked(NO_COMMA, WORDS), "One and two and three.", True, True),
        (asked(TITLE), "<<a poem>>\nRoses are red.", True, True),
        (asked(NO_COMMA), "Sure, here it is:\nOne and two.", False, True),
        (asked(ENDS), "One and two. That is all.\nHave a nice day", False, True),
        (asked(LOWER), "this is a plain english sentence without capitals.", True, True),
        (asked(LOWER), "This is a plain English sentence.", False, False),
        (asked(NO_COMMA), "   ", False, False),
    ],
)
def test_answers_follow_strictly_or_loosely(wanted: str, answer: str, strict: bool, loose: bool) -> None:
    rank = os.environ.get("LOCAL_RANK")
    assert follows("Write something.", wanted, answer) == (strict, loose)
    assert os.environ.get("LOCAL_RANK") == rank


def test_items_that_need_data_of_nltk_are_known() -> None:
    sentences = asked(("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}))
    assert can_be_checked(sentences) == has_punkt()
    assert can_be_checked(asked(NO_COMMA, TITLE))


def test_a_file_of_prompts_without_instructions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ifeval.jsonl").write_text('{"prompt": "Write something.", "answer": "x"}\n')
    with pytest.raises(UserError, match="has no `instruction_id_list` and `kwargs`"):
        read_items(Task(path="ifeval.jsonl", kind="ifeval"), base=tmp_path, seed=0)


def test_without_the_extra_the_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'siftune\[eval\]'"):
        require_checks()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmarks")
def test_every_prompt_of_ifeval_has_checks() -> None:
    items = read_items(Task(path=str(DATA / "benchmarks" / "ifeval.jsonl"), kind="ifeval"), base=Path(), seed=0)
    assert items.height == 541
    checkable = [can_be_checked(answer) for answer in items["answer"]]
    assert sum(checkable) == (541 if has_punkt() else 477)
    for prompt, answer, fits in zip(items["prompt"], items["answer"], checkable, strict=True):
        if fits:
            strict, loose = follows(prompt, answer, "A plain answer of a few words.")
            assert loose >= strict


def test_arms_are_scored_strictly_and_loosely(tmp_path: Path, tiny_model: Path) -> None:
    prompts = [
        {"prompt": "Write no comma.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {"prompt": "Write a title.", "instruction_id_list": ["detectable_format:title"], "kwargs": [{}]},
    ]
    run = write_run(tmp_path, tiny_model, [{"path": "ifeval.jsonl", "kind": "ifeval", "max_new_tokens": 5}])
    (tmp_path / "ifeval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    for one in score_tasks(run):
        frame = pl.read_parquet(run.tasks_folder / "ifeval" / f"{one.name}.parquet")
        assert frame["item"].to_list() == ["ifeval:0", "ifeval:1"]
        expected = [
            follows(row["prompt"], asked((row["instruction_id_list"][0], {})), answer)
            for row, answer in zip(prompts, frame["answer"], strict=True)
        ]
        assert frame.select("outcome", "accuracy").rows() == [(float(one), float(other)) for one, other in expected]
