"""Multiple choice in cloze form: how likely each choice's text is as the model's answer to the question.

The outcome of an item is p(right) = exp(l₁/b₁) / Σᵢ exp(lᵢ/bᵢ), where lᵢ is the log-probability (nats) of choice i
given the question in the model's chat format, bᵢ its length in bytes (UTF-8), and 1 the right choice: OLMES' and
DataDecide's `norm_correct_prob`, per byte (arXiv 2406.08446, 2504.11393), a continuous measure that moves before
accuracy does. Accuracy beside it asks whether lᵢ/bᵢ is largest for the right choice (`acc_bytes` of
lm-evaluation-harness; its `acc_norm` divides by characters). The end-of-turn token behind a choice is not part of lᵢ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.training import models
from siftune.training.evaluation.loss_worker import BatchedRows, length_batches, summed_losses
from siftune.training.evaluation.statistics import Floats
from siftune.training.masks import TokenRows, tokenise
from siftune.training.row_turns import SystemTurn

_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
#: Items on which the shared pass over all choices of an item is compared with one pass for each choice.
_SAMPLE_ITEMS = 4
#: The largest mean difference of the two, in nats per token: what rounding explains, in 32 and in 16 bits.
_ROUNDING = {"float32": 0.001, "float16": 0.02, "bfloat16": 0.05}


@dataclass(frozen=True)
class ChoiceTokens:
    """The choices of one item as tokens.

    prefix: token ids that all choices begin with (the question), int32 (tokens,). branches: for each choice the ids
    behind it, int32 (tokens,). scored: which of them belong to the choice's text, bool of the same shape.
    """

    prefix: NDArray[np.int32]
    branches: list[NDArray[np.int32]]
    scored: list[NDArray[np.bool_]]

    @property
    def length(self) -> int:
        """Tokens of one pass over all choices."""
        return len(self.prefix) + sum(map(len, self.branches))


def tokenise_choices(
    tokenizer: Any, items: pl.DataFrame, *, max_length: int, system: SystemTurn
) -> dict[str, ChoiceTokens]:
    """The choices of every item as tokens; items that do not fit are left out.

    Args:
        tokenizer: the model's tokenizer, with its template.
        items: TASK_ITEMS with `choices`.
        max_length: most tokens of a question with one choice.
        system: what becomes of system turns.
    """
    dialogues = [
        {"id": f"{item}\n{number}", "messages": [_turn("user", prompt), _turn("assistant", choice)]}
        for item, prompt, choices in items.select("item", "prompt", "choices").iter_rows()
        for number, choice in enumerate(choices)
    ]
    rows = tokenise(tokenizer, pl.DataFrame(dialogues), max_length=max_length, system=system)
    special = [int(token) for token in tokenizer.added_tokens_decoder]
    truncated = set(rows.truncated["id"])
    tokens = {
        name: (ids, trained & ~np.isin(ids, special))
        for name, ids, trained in zip(rows.names, rows.ids, rows.trained, strict=True)
        if name not in truncated
    }
    of_items = {}
    for item, choices in items.select("item", "choices").iter_rows():
        names = [f"{item}\n{number}" for number in range(len(choices))]
        if all(name in tokens and tokens[name][1].any() for name in names):
            of_items[item] = _split_prefix([tokens[name] for name in names])
    return of_items


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _split_prefix(rows: Sequence[tuple[NDArray[np.int32], NDArray[np.bool_]]]) -> ChoiceTokens:
    """The common beginning of all rows up to the first scored token of any, and what follows it in each."""
    shared = min(int(scored.argmax()) for _, scored in rows)
    first = rows[0][0]
    for ids, _ in rows[1:]:
        differs = np.flatnonzero(first[:shared] != ids[:shared])
        shared = int(differs[0]) if differs.size else shared
    ends = [int(np.flatnonzero(scored)[-1]) + 1 for _, scored in rows]
    return ChoiceTokens(
        prefix=first[:shared],
        branches=[ids[shared:end] for (ids, _), end in zip(rows, ends, strict=True)],
        scored=[scored[shared:end] for (_, scored), end in zip(rows, ends, strict=True)],
    )


def shares_prefixes(model: Any, items: Sequence[ChoiceTokens], loading: models.Loading) -> bool:
    """Whether the model gives the same log-probabilities in one pass over all choices of an item: measured on a few
    items, the longest among them. A model that ignores the mask of that pass does not."""
    by_length = sorted(range(len(items)), key=lambda index: items[index].length)
    ranks = np.unique(np.linspace(0, len(items) - 1, min(_SAMPLE_ITEMS, len(items))).round().astype(int))
    sample = [items[by_length[rank]] for rank in ranks]
    if any(len(item.prefix) == 0 for item in items):
        return False
    try:
        shared = _shared_pass(model, sample, loading)
    except (RuntimeError, TypeError, ValueError):  # what a model raises that takes no such mask
        return False
    separate = _separate_passes(model, sample, loading)
    tokens = sum(int(scored.sum()) for item in sample for scored in item.scored)
    difference = sum(float(np.abs(one - other).sum()) for one, other in zip(shared, separate, strict=True))
    return bool(np.isfinite(difference)) and difference / tokens <= _ROUNDING[loading.compute]


def choice_log_probabilities(
    model: Any,
    items: Sequence[ChoiceTokens],
    loading: models.Loading,
    *,
    share_prefixes: bool,
    progress: Callable[[int, int], None] | None = None,
) -> list[Floats]:
    """The log-probability of every choice of every item.

    Args:
        model: a causal language model in eval mode.
        items: the choices as tokens.
        loading: device and type of the computation.
        share_prefixes: one pass over all choices of an item, so that its question is read once; see `shares_prefixes`.
        progress: called with the number of batches done and of all.

    Returns:
        For each item float64 (choices,), in nats.
    """
    if not share_prefixes:
        return _separate_passes(model, items, loading, progress=progress)
    lengths = np.array([item.length for item in items], dtype=np.int64)
    batches = length_batches(lengths, most_tokens=_BATCH_TOKENS[loading.device])
    results: list[Floats] = [np.empty(0)] * len(items)
    for index, batch in enumerate(batches):
        for item, log_probabilities in zip(
            batch, _shared_pass(model, [items[item] for item in batch], loading), strict=True
        ):
            results[item] = log_probabilities
        if progress is not None:
            progress(index + 1, len(batches))
    return results


def choice_outcomes(log_probabilities: Floats, choices: Sequence[str]) -> tuple[float, float]:
    """The probability of the right choice among all, and whether it is the most likely one (1 or 0).

    Args:
        log_probabilities: float64 (choices,), in nats, the right choice first.
        choices: their texts, whose bytes normalise them.
    """
    per_byte = log_probabilities / np.array([len(choice.encode()) for choice in choices])
    relative = np.exp(per_byte - per_byte.max())
    return float(relative[0] / relative.sum()), float(per_byte[0] > per_byte[1:].max())


def _separate_passes(
    model: Any,
    items: Sequence[ChoiceTokens],
    loading: models.Loading,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Floats]:
    """A row for each choice: the losses of these rows are what held-out losses are, of the choice's tokens alone."""
    ids, scored = [], []
    for item in items:
        for branch, mask in zip(item.branches, item.scored, strict=True):
            ids.append(np.concatenate([item.prefix, branch]))
            scored.append(np.concatenate([np.zeros(len(item.prefix), np.bool_), mask]))
    rows = TokenRows([str(row) for row in range(len(ids))], ids, scored, pl.DataFrame())
    batches = length_batches(rows.lengths, most_tokens=_BATCH_TOKENS[loading.device])
    losses = summed_losses(model, BatchedRows(rows, batches), loading, progress=progress)
    return [-part for part in np.split(losses, np.cumsum([len(item.branches) for item in items])[:-1])]


def _shared_pass(model: Any, items: Sequence[ChoiceTokens], loading: models.Loading) -> list[Floats]:
    """All choices of an item in one row: each sees the question and itself, and is counted from where the question
    ends."""
    import torch

    device = "cuda" if loading.device == "cuda" else "cpu"
    width = max(item.length for item in items)
    ids = np.zeros((len(items), width), np.int64)
    positions = np.zeros((len(items), width), np.int64)
    # Padding sees itself, or its softmax would be over nothing.
    visible = np.tile(np.eye(width, dtype=np.bool_), (len(items), 1, 1))
    sources, targets, owners = [], [], []  # where a scored token is predicted, which it is, and whose
    choices = 0
    for line, item in enumerate(items):
        question = len(item.prefix)
        ids[line, :question], positions[line, :question] = item.prefix, np.arange(question)
        visible[line, :question, :question] = np.tri(question, dtype=np.bool_)
        start = question
        for branch, scored in zip(item.branches, item.scored, strict=True):
            end = start + len(branch)
            ids[line, start:end] = branch
            positions[line, start:end] = question + np.arange(len(branch))
            visible[line, start:end, :question] = True
            visible[line, start:end, start:end] = np.tri(len(branch), dtype=np.bool_)
            before = np.concatenate([[question - 1], np.arange(start, end - 1)])
            sources.append(line * width + before[scored])
            targets.append(branch[scored].astype(np.int64))
            owners.append(np.full(int(scored.sum()), choices))
            choices, start = choices + 1, end
    select = torch.from_numpy(np.concatenate(sources)).to(device)
    target = torch.from_numpy(np.concatenate(targets)).to(device)
    owner = torch.from_numpy(np.concatenate(owners)).to(device)

    # The head sees only the positions that predict a scored token.
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, arguments: (arguments[0].flatten(0, 1)[select][None],))
    try:
        with torch.inference_mode(), torch.autocast(device, loading.dtype, enabled=loading.compute != "float32"):
            logits = model(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(visible[:, None]).to(device),
                position_ids=torch.from_numpy(positions).to(device),
                use_cache=False,
            ).logits[0]
            losses = torch.nn.functional.cross_entropy(logits.float(), target, reduction="none").double()
            sums = torch.zeros(choices, dtype=torch.float64, device=device).index_add(0, owner, losses)
    finally:
        handle.remove()
    return [-part for part in np.split(sums.cpu().numpy(), np.cumsum([len(item.branches) for item in items])[:-1])]
