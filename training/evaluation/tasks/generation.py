"""Greedy answers to many prompts by one model, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from siftune.training.inference.engine import Message
from siftune.training.inference.transformers_engine import DecodingBatch, encode_prompt, generation_ends
from siftune.training.row_turns import SystemTurn

#: Prompts that are answered at a time.
_BATCH_ROWS = {"cpu": 16, "cuda": 128}


def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    max_length: int,
    system: SystemTurn,
    progress: Callable[[int, int], None] | None = None,
) -> list[str | None]:
    """The most likely token after token, as the engine of the chat decodes; prompts of similar length go together.

    Args:
        model: a causal language model in eval mode.
        tokenizer: its tokenizer, with its template.
        prompts: what the user's turn says.
        max_new_tokens: an answer ends after this many tokens.
        max_length: most tokens of prompt and answer together.
        system: what becomes of system turns.
        progress: called with the number of batches done and of all.

    Returns:
        The answer to each prompt; None to one that leaves no room for an answer.
    """
    encoded = [encode_prompt(tokenizer, (Message("user", prompt),), system=system) for prompt in prompts]
    fitting = [index for index, ids in enumerate(encoded) if len(ids) + max_new_tokens <= max_length]
    order = sorted(fitting, key=lambda index: -len(encoded[index]))
    ends = generation_ends(model, tokenizer)
    size = _BATCH_ROWS["cuda" if model.device.type == "cuda" else "cpu"]
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    answers: list[str | None] = [None] * len(prompts)
    for number, batch in enumerate(batches):
        tokens = _decode(model, [encoded[index] for index in batch], ends, max_new_tokens)
        for index, ids in zip(batch, tokens, strict=True):
            answers[index] = str(tokenizer.decode(ids, skip_special_tokens=True))
        if progress is not None:
            progress(number + 1, len(batches))
    return answers


def _decode(model: Any, prompts: Sequence[Sequence[int]], ends: frozenset[int], max_new_tokens: int) -> list[list[int]]:
    """The tokens of each answer, without its end token; a row whose answer has ended leaves the batch."""
    answers: list[list[int]] = [[] for _ in prompts]
    unfinished = list(range(len(prompts)))
    batch = DecodingBatch(model, prompts)
    for step in range(max_new_tokens):
        tokens = np.asarray(batch.step().argmax(-1).cpu()).tolist()
        rows = [row for row, token in enumerate(tokens) if token not in ends]
        for row in rows:
            answers[unfinished[row]].append(tokens[row])
        unfinished = [unfinished[row] for row in rows]
        if not rows or step + 1 == max_new_tokens:
            break
        batch.advance([tokens[row] for row in rows], rows)
    return answers
