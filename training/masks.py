"""Rows as token ids with a mask of what is trained: every assistant turn with its end-of-turn token, nothing else.

The chat template is rendered once for the whole dialogue; where each assistant turn begins and ends in that text is
found by rendering its beginnings. So templates without `{% generation %}` marks (Llama 3, SmolLM2, ChatML) work, and
training, evaluation and generation see the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from siftune.curation import schema
from siftune.curation.errors import UserError

#: Llama 3 templates print today's date unless they are given one: the same row must have the same tokens tomorrow.
TEMPLATE_DATE = "26 Jul 2024"
_BATCH = 1000

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, in the order they came. `trained[i]` says which of `ids[i]` enter the loss."""

    names: list[str]
    ids: list[npt.NDArray[np.int32]]
    trained: list[npt.NDArray[np.bool_]]
    #: LEDGER rows (action `truncate`) for what `max_length` cut off.
    truncated: pl.DataFrame

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    @property
    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Trained tokens of each row."""
        return np.array([int(row.sum()) for row in self.trained], dtype=np.int64)

    def hashes(self) -> list[str]:
        """A hash of ids and mask for each row: equal hashes are equal losses to compute."""
        return [
            hashlib.sha256(ids.tobytes() + mask.tobytes()).hexdigest()[:32]
            for ids, mask in zip(self.ids, self.trained, strict=True)
        ]


def render(tokenizer: Any, messages: Messages, *, prompt: bool = False) -> str:
    """The text of a dialogue in the model's chat template; with `prompt`, it ends where an answer is to begin.

    Raises:
        UserError: the template does not accept the dialogue (a role it does not know, turns out of order).
    """
    from jinja2.exceptions import TemplateError

    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=prompt, date_string=TEMPLATE_DATE
            )
        )
    except TemplateError as fault:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"The model's chat template refuses a dialogue of the turns {roles}: {fault}. "
            "Leave such rows out, or choose a model whose template accepts them."
        ) from None


def prompt_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids after which the model is to answer: what generation starts from."""
    return list(tokenizer(render(tokenizer, messages, prompt=True), add_special_tokens=False)["input_ids"])


def tokenise(tokenizer: Any, rows: pl.DataFrame, *, max_length: int) -> TokenRows:
    """Tokenise the `messages` of ARM or HELDOUT rows.

    A row is cut after its last trained token (nothing later can matter to a causal model) and at `max_length` tokens;
    a row that has no trained token left is left out. Both are told in `truncated`.

    Raises:
        UserError: the template refuses a row, or rewrites earlier turns; or no row has a trained token.
    """
    names, ids, trained = [], [], []
    cuts: list[dict[str, Any]] = []
    for name, row_ids, mask in _encode(tokenizer, rows):
        end = int(mask.nonzero()[0][-1]) + 1 if mask.any() else 0
        kept = mask[:max_length]
        if end > max_length or not mask.any():
            cuts.append(_cut(name, end, int(mask.sum() - kept.sum()), max_length, empty=not kept.any()))
        if kept.any():
            names.append(name)
            ids.append(row_ids[: min(end, max_length)])
            trained.append(mask[: min(end, max_length)])
    if not names:
        raise UserError(
            f"None of {rows.height:,} rows has a trained token: either no row holds an assistant turn with text, or "
            f"max_length ({max_length}) ends before the first answer. Raise training.max_length."
        )
    return TokenRows(names, ids, trained, pl.DataFrame(cuts, schema=schema.LEDGER))


def _encode(tokenizer: Any, rows: pl.DataFrame) -> Iterator[tuple[str, npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
    ends = frozenset(int(token) for token in tokenizer.added_tokens_decoder)
    for batch in rows.iter_slices(_BATCH):
        names = batch["id"].to_list()
        rendered = [_spans_of(tokenizer, *row) for row in zip(names, batch["messages"].to_list(), strict=True)]
        encoded = tokenizer(
            [text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        columns = zip(names, rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        for name, (text, spans), row_ids, offsets in columns:
            ids = np.asarray(row_ids, dtype=np.int32)
            yield name, ids, _mask(text, ids, np.asarray(offsets, dtype=np.int64).reshape(-1, 2), spans, ends)


def _spans_of(tokenizer: Any, name: str, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
    try:
        text = render(tokenizer, messages)
        return text, list(_spans(tokenizer, messages, text))
    except UserError as fault:
        raise UserError(f"Row {name}: {fault}") from None


def _spans(tokenizer: Any, messages: Messages, text: str) -> Iterable[tuple[int, int]]:
    """Where in the rendered `text` each assistant turn with content begins and ends, its end-of-turn mark included."""
    for place, message in enumerate(messages):
        if message["role"] != "assistant" or not message["content"].strip():
            continue
        before = render(tokenizer, messages[:place], prompt=True) if place else _opening(text, message)
        after = render(tokenizer, messages[: place + 1])
        if text.startswith(after) and after.startswith(before):
            yield len(before), len(after)
            continue
        # Some templates (Qwen 3) write the last answer in another way than earlier ones: find this turn by its text.
        content = message["content"].strip()
        start = text.find(content, len(before)) if text.startswith(before) else -1
        tail = after[after.rfind(content) + len(content) :]
        if start < 0 or not text.startswith(tail, start + len(content)):
            raise UserError(
                f"the model's chat template rewrites turn {place + 1} when later turns follow, so what it answered "
                "cannot be told from what it was asked. Use single-turn rows, or a model with a plainer template."
            )
        yield start, start + len(content) + len(tail)


def _opening(text: str, message: Mapping[str, str]) -> str:
    """What stands before an answer that opens a dialogue (templates cannot be asked for an empty dialogue)."""
    start = text.find(message["content"].strip())
    return text[: max(start, 0)]


def _mask(
    text: str,
    ids: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    spans: Sequence[tuple[int, int]],
    ends: frozenset[int],
) -> npt.NDArray[np.bool_]:
    """Tokens that begin inside a span; white space after a span's last special token (the line break that follows an
    end-of-turn mark) belongs to the template, not to the answer."""
    mask = np.zeros(len(ids), dtype=np.bool_)
    starts, stops = offsets[:, 0], offsets[:, 1]
    for begin, end in spans:
        inside = np.flatnonzero((starts >= begin) & (stops <= end) & (stops > starts))
        special = [place for place in inside.tolist() if int(ids[place]) in ends]
        if special and not text[int(stops[special[-1]]) : end].strip():
            inside = inside[inside <= special[-1]]
        mask[inside] = True
    mask[:1] = False  # nothing stands before the first token to predict it from
    return mask


def _cut(name: str, length: int, lost: int, max_length: int, *, empty: bool) -> dict[str, Any]:
    said = "no trained token is left; the row is not used" if empty else f"{lost} trained tokens are cut off"
    return {
        "id": name,
        "step": None,
        "stage": "training",
        "action": "truncate",
        "reason": "no_answer" if length == 0 else "max_length",
        "score": float(length),
        "threshold": float(max_length),
        "witness": None,
        "detail": said,
    }
