"""Choices in cloze form against one choice at a time with all logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.training import models
from siftune.training.evaluation.tasks import choices
from siftune.training.evaluation.tasks.choices import (
    choice_log_probabilities,
    choice_outcomes,
    shares_prefixes,
    tokenise_choices,
)
from siftune.training.evaluation.tasks.items import TASK_ITEMS
from tests.training.worlds import write_tiny_llama

ITEMS = pl.DataFrame(
    [
        ("quiz:0", "What colour has apple 3?", "red", ["red", "blue and green", "black"], "a"),
        ("quiz:1", "What is it, then?", "x", ["x", "The hammer 3 is grey."], "a"),
        (
            "quiz:2",
            "What colour has door 12, which was painted by hand?",
            "a",
            ["a", "b", "painted by hand", "gold"],
            "b",
        ),
        ("quiz:3", "Why?", "ab", ["ab", "abc", "abcd"], "b"),
    ],
    schema=TASK_ITEMS,
    orient="row",
)


class Loaded:
    def __init__(self, folder: Path) -> None:
        resolved = models.resolve(str(folder))
        self.loading = models.choose_loading("fp32", resolved)
        self.model = models.load_base(resolved, self.loading).eval()
        self.tokenizer = models.load_tokenizer(resolved)


@pytest.fixture(scope="module", params=["smollm2", "chatml"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(write_tiny_llama(tmp_path_factory.mktemp("tiny"), template=request.param, seed=3))


def one_at_a_time(loaded: Loaded, prompt: str, choice: str) -> float:
    """The oracle: prompt and choice as text, all logits, float64, no end of turn."""
    import torch

    before = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    first = loaded.tokenizer(before, add_special_tokens=False)["input_ids"]
    ids = loaded.tokenizer(before + choice, add_special_tokens=False)["input_ids"]
    assert ids[: len(first)] == first
    with torch.no_grad():
        log_p = torch.log_softmax(loaded.model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(log_p[index - 1, ids[index]]) for index in range(len(first), len(ids)))


@pytest.mark.parametrize("share_prefixes", [True, False])
def test_log_probabilities_are_those_of_one_choice_at_a_time(
    loaded: Loaded, share_prefixes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choices._BATCH_TOKENS, "cpu", 150)  # several batches, with items of uneven length
    tokens = tokenise_choices(loaded.tokenizer, ITEMS, max_length=500, system="keep")
    assert list(tokens) == ITEMS["item"].to_list()
    steps: list[tuple[int, int]] = []
    results = choice_log_probabilities(
        loaded.model,
        list(tokens.values()),
        loaded.loading,
        share_prefixes=share_prefixes,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[-1][0] == steps[-1][1] > 1
    for (prompt, texts), result in zip(ITEMS.select("prompt", "choices").iter_rows(), results, strict=True):
        assert result == pytest.approx([one_at_a_time(loaded, prompt, text) for text in texts], rel=1e-5)


def test_a_question_is_read_once_for_all_of_its_choices(loaded: Loaded) -> None:
    tokens = tokenise_choices(loaded.tokenizer, ITEMS, max_length=500, system="keep")
    for item in tokens.values():
        assert len(item.prefix) > max(map(len, item.branches))
        assert all(scored[0] for scored in item.scored)
    assert shares_prefixes(loaded.model, list(tokens.values()), loaded.loading)


def test_a_model_that_does_not_follow_the_mask_reads_choices_one_by_one(loaded: Loaded) -> None:
    tokens = list(tokenise_choices(loaded.tokenizer, ITEMS, max_length=500, system="keep").values())

    class Deaf:
        """A model that takes the mask and ignores it: later choices see earlier ones."""

        config = loaded.model.config

        def get_output_embeddings(self) -> Any:
            return loaded.model.get_output_embeddings()

        def __call__(self, **inputs: Any) -> Any:
            followed = inputs.keys() - {"attention_mask", "position_ids"}
            return loaded.model(**{name: inputs[name] for name in followed})

    class Refusing(Deaf):
        def __call__(self, **inputs: Any) -> Any:
            if "attention_mask" in inputs:
                raise ValueError("no masks of four dimensions")
            return super().__call__(**inputs)

    assert not shares_prefixes(Deaf(), tokens, loaded.loading)
    assert not shares_prefixes(Refusing(), tokens, loaded.loading)
    assert not shares_prefixes(loaded.model, [], loaded.loading)


def test_items_that_do_not_fit_are_left_out(loaded: Loaded) -> None:
    all_items = tokenise_choices(loaded.tokenizer, ITEMS, max_length=500, system="keep")
    longest = max(len(item.prefix) + max(map(len, item.branches)) for item in all_items.values())
    fitting = tokenise_choices(loaded.tokenizer, ITEMS, max_length=longest - 1, system="keep")
    assert 0 < len(fitting) < len(all_items)


@given(
    st.lists(st.tuples(st.text("abcé ", min_size=1, max_size=30), st.floats(-80, -0.01)), min_size=2, max_size=6),
    st.randoms(),
)
def test_outcomes_are_the_stated_formula_and_a_share_of_one(rows: list[tuple[str, float]], random: Any) -> None:
    texts, values = [text for text, _ in rows], np.array([value for _, value in rows])
    total = 0.0
    for right in range(len(rows)):
        order = [right, *(index for index in range(len(rows)) if index != right)]
        outcome, accuracy = choice_outcomes(values[order], [texts[index] for index in order])
        per_byte = [value / len(text.encode("utf-8")) for text, value in rows]
        plain = np.exp(per_byte[right]) / sum(np.exp(value) for value in per_byte)
        assert outcome == pytest.approx(plain, rel=1e-9)
        assert accuracy == float(all(per_byte[right] > other for index, other in enumerate(per_byte) if index != right))
        total += outcome
    assert total == pytest.approx(1.0)
    # The order of the wrong choices changes nothing.
    wrong = list(range(1, len(rows)))
    random.shuffle(wrong)
    shuffled = [0, *wrong]
    assert choice_outcomes(values[shuffled], [texts[index] for index in shuffled]) == pytest.approx(
        choice_outcomes(values, texts)
    )
