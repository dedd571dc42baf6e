"""Rows as token ids with a mask of what is trained: every assistant turn with its end-of-turn token, nothing else.

The chat template is rendered once for the whole dialogue; where each assistant turn begins and ends in that text is
found by rendering the dialogue up to that turn. So templates without `{% generation %}` marks (Llama 3, SmolLM2,
ChatML) work, and training, evaluation and generation see the same text.
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
#: Rows that are tokenised at a time.
_BATCH_ROWS = 1000

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, in the order they came."""

    #: Ids of the rows.
    names: list[str]
    #: Token ids of each row, int32 (tokens of the row,).
    ids: list[npt.NDArray[np.int32]]
    #: The completion mask of each row, bool of the same shape: which tokens enter the loss.
    trained: list[npt.NDArray[np.bool_]]
    #: LEDGER rows (action `truncate`) for what `max_length` cut off.
    truncated: pl.DataFrame

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, int64 (rows,)."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    @property
    def trained_counts(self) -> npt.NDArray[np.int64]:
        """Trained tokens of each row, int64 (rows,)."""
        return np.array([int(row.sum()) for row in self.trained], dtype=np.int64)

    def hashes(self) -> list[str]:
        """A hash of ids and mask for each row: equal hashes are equal losses to compute."""
        return [
            hashlib.sha256(ids.tobytes() + mask.tobytes()).hexdigest()[:32]
            for ids, mask in zip(self.ids, self.trained, strict=True)
        ]


def render(tokenizer: Any, messages: Messages, *, prompt: bool = False) -> str:
    """The text of a dialogue in the model's chat template.

    Args:
        tokenizer: The model's tokenizer, with its template.
        messages: The turns, each with `role` and `content`.
        prompt: End where an answer is to begin.

    Raises:
        UserError: the template does not accept the dialogue (a role it does not know, turns out of order).
    """
    from jinja2.exceptions import TemplateError

    documents = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                documents, tokenize=False, add_generation_prompt=prompt, date_string=TEMPLATE_DATE
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


def tokenise(tokenizer: Any, rows: pl.DataFrame, *, max_length: int, batch_rows: int = _BATCH_ROWS) -> TokenRows:
    """Tokenise the `messages` of ARM or HELDOUT rows.

    A row ends with its last trained token (nothing later can matter to a causal model) and has at most `max_length`
    tokens; a row without any trained token is left out. `truncated` lists the rows that lost trained tokens or were
    left out.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        rows: Rows with the columns `id` and `messages`.
        max_length: Most tokens of a row.
        batch_rows: Rows that are tokenised at a time; changes nothing but memory.

    Raises:
        UserError: the template refuses a row, or rewrites earlier turns; or no row has a trained token.
    """
    names, ids, trained = [], [], []
    truncated: list[dict[str, Any]] = []
    for name, row_ids, mask in _encode(tokenizer, rows, batch_rows):
        end = int(mask.nonzero()[0][-1]) + 1 if mask.any() else 0
        kept = mask[:max_length]
        if end > max_length or not mask.any():
            lost = int(mask.sum() - kept.sum())
            truncated.append(_truncated_row(name, end, lost, max_length, empty=not kept.any()))
        if kept.any():
            names.append(name)
            ids.append(row_ids[: min(end, max_length)])
            trained.append(mask[: min(end, max_length)])
    if not names:
        raise UserError(
            f"None of {rows.height:,} rows has a trained token: either no row holds an assistant turn with text, or "
            f"max_length ({max_length}) ends before the first answer. Raise training.max_length."
        )
    return TokenRows(names, ids, trained, pl.DataFrame(truncated, schema=schema.LEDGER))


def _encode(
    tokenizer: Any, rows: pl.DataFrame, batch_rows: int
) -> Iterator[tuple[str, npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
    """Id, token ids and completion mask of each row, before any truncation."""
    special_tokens = frozenset(int(token) for token in tokenizer.added_tokens_decoder)
    for batch in rows.iter_slices(batch_rows):
        names = batch["id"].to_list()
        rendered = [_render_row(tokenizer, *row) for row in zip(names, batch["messages"].to_list(), strict=True)]
        encoded = tokenizer(
            [text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        columns = zip(names, rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        for name, (text, spans), row_ids, offsets in columns:
            ids = np.asarray(row_ids, dtype=np.int32)
            yield name, ids, _mask(text, ids, np.asarray(offsets, dtype=np.int64).reshape(-1, 2), spans, special_tokens)


def _render_row(tokenizer: Any, name: str, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
    """The text of a row, and where in it the assistant turns are."""
    try:
        text = render(tokenizer, messages)
        return text, list(_answer_spans(tokenizer, messages, text))
    except UserError as fault:
        raise UserError(f"Row {name}: {fault}") from None


def _answer_spans(tokenizer: Any, messages: Messages, text: str) -> Iterable[tuple[int, int]]:
    """Where in the rendered `text` each assistant turn with content begins and ends, its end-of-turn mark included."""
    for turn, message in enumerate(messages):
        if message["role"] != "assistant" or not message["content"].strip():
            continue
        if turn:
            before = render(tokenizer, messages[:turn], prompt=True)
        else:  # templates cannot render an empty dialogue: what stands before an answer that opens one
            before = text[: max(0, text.find(message["content"].strip()))]
        after = render(tokenizer, messages[: turn + 1])
        if text.startswith(after) and after.startswith(before):
            yield len(before), len(after)
            continue
        # Some templates (Qwen 3) write the last answer in another way than earlier ones: find this turn by its text.
        content = message["content"].strip()
        start = text.find(content, len(before)) if text.startswith(before) else -1
        tail = after[after.rfind(content) + len(content) :]
        if start < 0 or not text.startswith(tail, start + len(content)):
            raise UserError(
                f"the model's chat template rewrites turn {turn + 1} when later turns follow, so what it answered "
                "cannot be told from its prompt. Use single-turn rows, or a model with a plainer template."
            )
        yield start, start + len(content) + len(tail)


def _mask(
    text: str,
    ids: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    spans: Sequence[tuple[int, int]],
    special_tokens: frozenset[int],
) -> npt.NDArray[np.bool_]:
    """The completion mask, bool (tokens,): tokens inside a span. White space after a span's last special token (the
    line break that follows an end-of-turn mark) belongs to the template, not to the answer.

    Args:
        text: The rendered dialogue.
        ids: Its token ids, (tokens,).
        offsets: Where each token begins and ends in the text, in characters, (tokens, 2).
        spans: Where each assistant turn begins and ends in the text.
        special_tokens: Ids of the tokens that the template is made of.
    """
    mask = np.zeros(len(ids), dtype=np.bool_)
    starts, stops = offsets[:, 0], offsets[:, 1]
    for begin, end in spans:
        inside = np.flatnonzero((starts >= begin) & (stops <= end) & (stops > starts))
        special = [index for index in inside.tolist() if int(ids[index]) in special_tokens]
        if special and not text[int(stops[special[-1]]) : end].strip():
            inside = inside[inside <= special[-1]]
        mask[inside] = True
    mask[:1] = False  # nothing stands before the first token to predict it from
    return mask


def _truncated_row(name: str, length: int, lost: int, max_length: int, *, empty: bool) -> dict[str, Any]:
    """A LEDGER row: `length` is what the row would need, `lost` the trained tokens beyond `max_length`."""
    detail = "no trained token is left; the row is not used" if empty else f"{lost} trained tokens are cut off"
    return {
        "id": name,
        "step": None,
        "stage": "training",
        "action": "truncate",
        "reason": "no_answer" if length == 0 else "max_length",
        "score": float(length),
        "threshold": float(max_length),
        "witness": None,
        "detail": detail,
    }
