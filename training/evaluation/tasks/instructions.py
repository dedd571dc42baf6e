"""IFEval: whether an answer follows instructions that a program can check (Zhou et al., arXiv 2311.07911).

The checks are those of lm-evaluation-harness (extra `eval`), which come with their package. Two of its 25 kinds of
instructions count sentences or words by data of nltk, punkt_tab; where it is not on the machine, items with such
instructions are left out, and nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from siftune.curation.errors import missing_extra

#: Instructions that need punkt_tab.
_BY_PUNKT = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}


def require_checks() -> None:
    """Raise `UserError` where the extra is not installed."""
    for package in ("lm_eval", "langdetect", "immutabledict", "nltk"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "eval")


def has_punkt() -> bool:
    """Whether nltk has its punkt_tab on this machine. Raises `UserError` like `require_checks`."""
    require_checks()
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        return False
    return True


def can_be_checked(instructions: str) -> bool:
    """Whether all instructions of an item can be checked here; `instructions` as TASK_ITEMS hold them."""
    return has_punkt() or _BY_PUNKT.isdisjoint(json.loads(instructions)["instruction_id_list"])


def follows(prompt: str, instructions: str, answer: str) -> tuple[bool, bool]:
    """Whether `answer` follows all instructions of its prompt, strictly and loosely.

    Loosely: with or without its first and last line and its asterisks, whichever fits (IFEval, section 2.2).

    Args:
        prompt: the item's prompt.
        instructions: JSON with `instruction_id_list` and `kwargs`, as IFEval's file has them.
        answer: the model's answer.
    """
    import langdetect

    with _without_download():
        from lm_eval.tasks.ifeval.utils import (
            InputExample,
            test_instruction_following_loose,
            test_instruction_following_strict,
        )

    langdetect.DetectorFactory.seed = 0  # its guesses are random otherwise
    example: Any = InputExample(key=0, prompt=prompt, **json.loads(instructions))
    strict = test_instruction_following_strict(example, answer)
    loose = test_instruction_following_loose(example, answer)
    return strict.follow_all_instructions, loose.follow_all_instructions


@contextmanager
def _without_download() -> Iterator[None]:
    """The harness downloads punkt_tab when it is imported, but in the first process of a group only: be another one."""
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        yield
    finally:
        if rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = rank
