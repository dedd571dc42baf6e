"""The suite: what is checked in an answer, resuming, one more prompt alone, the tables, hostile answers."""

from __future__ import annotations

import csv
import io
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.recipe.training_sections import Prompt
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation import answer_checks, prompt_suite
from siftune.training.evaluation.prompt_answers import ANSWERS, read_answers
from siftune.training.evaluation.prompt_tables import averages, markdown
from siftune.training.inference.engine import Chunk, Engine, EngineKind, Fingerprint, Request, Stats
from tests.training.random_adapters import write_trained


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("Pi is 3.14, e.g. roughly. Dr. Who agrees.", 2),
        ("1. First point\n2. Second point.", 2),
        ("No full stop", 1),
        ("Wait... what?!", 2),
        ('He said "yes." Then left.', 2),
        ("A heading\n\nA line apart. And more", 3),
        ("", 0),
        ("...", 0),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    assert answer_checks.count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "expected", "found"),
    [
        ("It is 1,081.", "1081", True),
        ("It is 1 081 in all", "1081", True),
        ("It is 11081", "1081", False),
        ("It is 1081.5", "1081", False),
        ("There are three.", "3", True),
        ("There are 3.", "3", True),
        ("Version 3.2", "3", False),
        ("A GENERATOR function", "generator", True),
        ("regenerators", "generator", False),
    ],
)
def test_expected_words_and_numbers_are_whole(text: str, expected: str, found: bool) -> None:
    assert answer_checks.contains_word(text, expected) is found


def test_notes_say_only_what_was_asked_for() -> None:
    prompt = Prompt(text="x", max_sentences=1, expect="yes", forbid="```")
    good = answer_checks.check_answer(prompt, "Yes.")
    bad = answer_checks.check_answer(prompt, "Well. Perhaps ```so```.")
    assert (good.sentences_kept, good.expected_found, good.forbidden_found) == (True, True, False)
    assert (bad.sentences_kept, bad.expected_found, bad.forbidden_found) == (False, False, True)
    assert str(answer_checks.check_answer(Prompt(text="x"), "Anything.")) == ""
    assert answer_checks.check_answer(prompt, "").sentences_kept is False, "no answer keeps no limit"
    with pytest.raises(UserError, match="not a regular expression"):
        answer_checks.check_answer(Prompt(text="x", forbid="("), "y")


#: For each prompt of the suite an answer that must pass its checks and one that must not (None: nothing is checked).
RIGHT_AND_WRONG = {
    "arithmetic": ("The result is 1,081: 47 × 20 + 47 × 3.", "It is 1071."),
    "counting letters": ("There are three of them.", "There are 2."),
    "counting letters, false premise": ("There is no z in strawberry.", "Because it is an old word."),
    "positive and negative numbers": (
        "Above zero is positive. Below is negative.",
        "It is. It was. It may. It can. It will. It did.",
    ),
    "yield without code": ("It makes a function a generator that pauses.", "A generator:\n```\nyield x\n```"),
    "1 + 1 is never negative": ("No, the sum of two positive numbers is positive.", "Yes, sometimes it can be."),
    "Doppler effect": ("The frequency rises as it comes near.", "It is about sirens."),
    "formal e-mail": ("Dear Tom, I cannot attend. Would Thursday suit you?", "hey Tom, Thursday then?"),
    "Python against Java": ("Python is brief, Java is strict.", "Python is nice."),
    "spaghetti benchmark": ("It tests how well a video model handles motion.", "It tests a pasta machine."),
}


def test_the_ten_prompts_tell_right_answers_from_wrong_ones() -> None:
    suite = prompt_suite.default_suite()
    assert [prompt.name for prompt in suite] == list(RIGHT_AND_WRONG)
    for prompt in suite:
        for answer, right in zip(RIGHT_AND_WRONG[prompt.name or ""], (True, False), strict=True):
            notes = answer_checks.check_answer(prompt, answer)
            passed = (notes.sentences_kept, notes.expected_found, notes.forbidden_found) in _ALL_PASSED
            assert passed is right, (prompt.name, answer, str(notes))


#: Results of the three checks of an answer that passes all that its prompt asks for.
_ALL_PASSED = set(itertools.product((None, True), (None, True), (None, False)))


class Scripted:
    """An engine whose answers are written down: what a suite does with answers needs no model."""

    kind: EngineKind = "transformers"
    arms = ("base", "raw", "curated")

    def __init__(self, answers: dict[str, str] | None = None) -> None:
        self.requests: list[tuple[str, str]] = []
        self.answers = answers or {}
        self.fail_at: str | None = None

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        for index, request in enumerate(requests):
            text = request.messages[-1].content
            if self.fail_at and self.fail_at in text:
                raise KeyboardInterrupt
            self.requests.append((request.arm, text))
            yield Chunk(index, self.answers.get(request.arm, f"{request.arm} says 3."), 4, 0.5)
            yield Chunk(index, "", 4, 2.0, Stats(7, 4, 2.0, 0.5, "end"))

    def fingerprint(self, arm: str) -> Fingerprint:
        return Fingerprint(f"weights of {arm}", f"logits of {arm}")

    def close(self) -> None:
        pass


@pytest.fixture
def trained(tiny_run: Path, tiny_model: Path) -> Path:
    return write_trained(tiny_run, tiny_model)


def test_every_arm_answers_every_prompt_with_its_costs_and_fingerprint(trained: Path) -> None:
    engine: Engine = Scripted()
    answers = prompt_suite.answer_suite(trained, engine=engine)
    assert answers.schema == ANSWERS
    assert answers.height == 30
    assert answers["arm"].to_list()[:3] == ["base", "raw", "curated"]
    row = answers.row(5, named=True)
    assert (row["prompt"], row["arm"], row["answer"]) == ("counting letters", "curated", "curated says 3.")
    assert (row["seconds"], row["tokens"], row["tokens_per_second"], row["first_token_seconds"]) == (2.0, 4, 2.0, 0.5)
    assert (row["weights"], row["logits"]) == ("weights of curated", "logits of curated")
    assert row["expected_found"] is True
    assert answers.filter(arm="base")["repeated_words"].null_count() == 10
    assert answers.filter(arm="raw")["repeated_words"].null_count() == 0
    assert read_answers(RunFolder.open(trained)).equals(answers)


def test_answers_are_kept_and_an_interrupted_suite_goes_on(trained: Path) -> None:
    engine = Scripted()
    engine.fail_at = "Doppler"
    with pytest.raises(KeyboardInterrupt):
        prompt_suite.answer_suite(trained, engine=engine)
    before = len(engine.requests)
    assert before == 6 * 3
    engine.fail_at = None
    complete = prompt_suite.answer_suite(trained, engine=engine)
    assert len(engine.requests) == 30
    assert len(set(engine.requests)) == 30, "nothing was asked twice"
    assert prompt_suite.answer_suite(trained, engine=engine).equals(complete)
    assert len(engine.requests) == 30


def test_one_more_prompt_is_asked_alone_and_stays(trained: Path) -> None:
    engine = Scripted()
    prompt_suite.answer_suite(trained, engine=engine)
    answers = prompt_suite.answer_suite(trained, engine=engine, added=["What is a tuple made of, and why?"])
    assert engine.requests[30:] == [(arm, "What is a tuple made of, and why?") for arm in engine.arms]
    assert answers["prompt"].to_list()[-1] == "What is a tuple made of,"
    assert prompt_suite.answer_suite(trained, engine=engine).height == 33


def test_a_retrained_arm_is_asked_again_and_only_that_arm(trained: Path, tiny_model: Path) -> None:
    engine = Scripted()
    prompt_suite.answer_suite(trained, engine=engine)
    write_trained(trained, tiny_model, arms=("curated",), seed=0)  # other weights: seed 1 instead of 2
    prompt_suite.answer_suite(trained, engine=engine)
    assert {arm for arm, _ in engine.requests[30:]} == {"curated"}
    assert len(engine.requests) == 40


def test_prompts_of_the_recipe_are_asked_and_names_are_made_unique(trained: Path) -> None:
    folder = RunFolder.open(trained)
    section = {
        "default_prompts": False,
        "prompts": [{"text": "a b"}, {"text": "a b c", "name": "a b"}, {"text": "a b"}],
    }
    import yaml

    recipe = parse_recipe(yaml.safe_dump(folder.recipe.model_dump(exclude_unset=True) | {"compare": section}))
    answers = prompt_suite.answer_suite(trained, recipe, engine=Scripted())
    assert answers["prompt"].unique(maintain_order=True).to_list() == ["a b", "a b (2)"]


def test_tables_hold_the_labs_numbers_and_no_answer_is_rendered(trained: Path) -> None:
    hostile = "````\n<script>alert(1)</script> ![x](http://evil/x.png) =cmd()"
    answers = prompt_suite.answer_suite(trained, engine=Scripted({"raw": hostile, "base": "=HYPERLINK(1)"}))
    means = averages(answers).filter(arm="raw").row(0, named=True)
    assert (means["seconds"], means["tokens"], means["tokens_per_second"]) == (2.0, 4.0, 2.0)
    page = (trained / "prompts" / "prompts.md").read_text(encoding="utf-8")
    assert page == markdown(answers)
    outside = [line for line, inside in _fences(page) if not inside]
    assert not any("<script" in line or "evil" in line for line in outside)
    rows = list(csv.DictReader(io.StringIO((trained / "prompts" / "prompts.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 30
    assert rows[1]["answer"] == hostile
    assert rows[0]["answer"] == "'=HYPERLINK(1)"


def _fences(page: str) -> Iterator[tuple[str, bool]]:
    fence = None
    for line in page.split("\n"):
        if fence is None and line.startswith("````"):
            fence = line.removesuffix("text")
        elif line == fence:
            fence = None
        yield line, fence is not None


def test_without_training_the_message_says_what_to_run(tiny_run: Path) -> None:
    with pytest.raises(UserError, match="siftune train"):
        prompt_suite.answer_suite(tiny_run)


@pytest.mark.slow
def test_a_real_engine_answers_the_suite_and_need_not_be_loaded_again(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siftune.training.inference import lora_layers

    monkeypatch.setattr(lora_layers, "_faster_strategy", None)  # what is stored depends on no measured time
    answers = prompt_suite.answer_suite(trained)
    assert answers.height == 30
    assert answers["engine"].unique().to_list() == ["transformers"]
    assert answers.group_by("arm").agg(pl.col("logits").n_unique())["logits"].to_list() == [1, 1, 1]
    assert answers["logits"].n_unique() == 3
    assert answers["tokens"].max() <= 8
    for weights in trained.glob("training/*/*/adapter/*.safetensors"):
        weights.unlink()
    assert prompt_suite.answer_suite(trained).equals(answers), "a finished suite needs no model"
