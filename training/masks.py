"""Rows as token ids with a mask of what is trained: every assistant turn with its end-of-turn token, nothing else.

The chat template is rendered once for the whole dialogue, and every assistant turn is found in that text; see
`siftune.training.chat_template`. So templates without `{% generation %}` marks (Llama 3, SmolLM2, ChatML) work, and
training, evaluation and generation see the same text. A row that the template cannot write whole is left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from siftune.curation import schema
from siftune.curation.errors import UserError
from siftune.training.chat_template import NOTES, ChatTemplate, Refused, RenderedRow
from siftune.training.row_turns import SystemTurn, read_turns

#: Rows that are tokenised at a time.
_BATCH_ROWS = 1000
#: The reason of a row that the chat template cannot write.
_TEMPLATE = "template"

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class TokenRows:
    """Tokenised rows, in the order they came."""

    #: Ids of the rows.
    names: list[str]
    #: Token ids of each row, int32 (tokens of the row,).
    ids: list[npt.NDArray[np.int32]]
    #: The completion mask of each row, bool of the same shape: which tokens enter the loss.
    trained: list[npt.NDArray[np.bool_]]
    #: LEDGER rows (action `truncate`) for what `max_length` cut off and for rows that the chat template cannot write.
    truncated: pl.DataFrame
    #: Sentences about rows that are trained, but not as somebody might think.
    warnings: tuple[str, ...] = ()

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


def prompt_ids(tokenizer: Any, messages: Messages, *, system: SystemTurn = "keep") -> list[int]:
    """Token ids after which the model is to answer: what generation starts from.

    Args:
        tokenizer: The model's tokenizer, with its template.
        messages: The turns, each with `role` and `content`.
        system: What becomes of system turns; see `siftune.curation.recipe.training_sections.Model`.

    Raises:
        UserError: the template does not accept the dialogue (a role it does not know, turns out of order).
    """
    prompt = ChatTemplate(tokenizer, system=system).prompt(messages)
    return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def end_tokens(tokenizer: Any, *, template: ChatTemplate | None = None) -> tuple[int, ...]:
    """Tokens that end the trained spans of any dialogue, so that a trained model writes them to stop, the last answer's
    first; see `ChatTemplate.end_tokens`."""
    special_tokens = _special_tokens(tokenizer)
    return (template or ChatTemplate(tokenizer)).end_tokens(
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], lambda token: token in special_tokens
    )


def tokenise(
    tokenizer: Any,
    rows: pl.DataFrame,
    *,
    max_length: int,
    system: SystemTurn = "keep",
    batch_rows: int = _BATCH_ROWS,
) -> TokenRows:
    """Tokenise the `messages` of ARM or HELDOUT rows.

    A row ends with its last trained token (nothing later can matter to a causal model) and has at most `max_length`
    tokens; a row without any trained token, or that the chat template cannot write whole, is left out. `truncated`
    lists the rows that lost trained tokens or were left out.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        rows: Rows with the columns `id` and `messages`; with `meta` its marks, thoughts, tools and calls count.
        max_length: Most tokens of a row.
        system: What becomes of system turns; see `siftune.curation.recipe.training_sections.Model`.
        batch_rows: Rows that are tokenised at a time; changes nothing but memory.

    Raises:
        UserError: no row has a trained token.
    """
    names, ids, trained = [], [], []
    truncated: list[dict[str, Any]] = []
    notes: Counter[str] = Counter()
    template = ChatTemplate(tokenizer, system=system)
    for encoded in _encode(tokenizer, template, rows, batch_rows):
        if isinstance(encoded, _RefusedRow):
            truncated.append(_refused_row(encoded))
            continue
        mask = encoded.mask
        end = int(mask.nonzero()[0][-1]) + 1 if mask.any() else 0
        kept = mask[:max_length]
        if end > max_length or not mask.any():
            lost = int(mask.sum() - kept.sum())
            truncated.append(_truncated_row(encoded.name, end, lost, max_length, empty=not kept.any()))
        if kept.any():
            notes.update(encoded.notes)
            names.append(encoded.name)
            ids.append(encoded.ids[: min(end, max_length)])
            trained.append(mask[: min(end, max_length)])
    if not names:
        raise UserError(_no_row_is_left(rows.height, truncated, max_length))
    warnings = [NOTES[note].format(rows=f"{count:,} of {len(names):,} rows") for note, count in sorted(notes.items())]
    refused = [row for row in truncated if row["reason"] == _TEMPLATE]
    if refused:
        warnings.append(
            f"{len(refused):,} of {rows.height:,} rows are left out, because the chat template cannot write them. The "
            f"first is {refused[0]['id']}: {refused[0]['detail']}." + _fold_hint(refused)
        )
    return TokenRows(names, ids, trained, pl.DataFrame(truncated, schema=schema.LEDGER), tuple(warnings))


@dataclass(frozen=True)
class _EncodedRow:
    """A row before any truncation."""

    name: str
    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    notes: frozenset[str]


@dataclass(frozen=True)
class _RefusedRow:
    """A row that the chat template cannot write, and why."""

    name: str
    reason: str


def _encode(
    tokenizer: Any, template: ChatTemplate, rows: pl.DataFrame, batch_rows: int
) -> Iterator[_EncodedRow | _RefusedRow]:
    """Token ids and completion mask of each row, in order."""
    special_tokens = _special_tokens(tokenizer)
    ends = end_tokens(tokenizer, template=template)
    columns = ["id", "messages", *(["meta"] if "meta" in rows.columns else [])]
    for batch in rows.select(columns).iter_slices(batch_rows):
        rendered = [(name, _render_row(template, messages, *meta)) for name, messages, *meta in batch.iter_rows()]
        texts = [row.text for _, row in rendered if isinstance(row, RenderedRow)]
        encoded = (
            tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False) if texts else {}
        )
        tokens = iter(zip(encoded.get("input_ids", ()), encoded.get("offset_mapping", ()), strict=True))
        for name, row in rendered:
            if isinstance(row, Refused):
                yield _RefusedRow(name, str(row))
                continue
            row_ids, row_offsets = next(tokens)
            ids, offsets = np.asarray(row_ids, np.int32), np.asarray(row_offsets, np.int64).reshape(-1, 2)
            mask = _mask(row.text, ids, offsets, row.spans, special_tokens, ends)
            notes = row.notes
            if row.spans and "no_end" not in notes and not _ends_in_token(mask, ids, special_tokens):
                notes |= {"no_end_token"}
            yield _EncodedRow(name, ids, mask, notes)


def _render_row(template: ChatTemplate, messages: Messages, meta: str | None = None) -> RenderedRow | Refused:
    try:
        return template.render_row(*read_turns(messages, meta))
    except Refused as refusal:
        return refusal


def _special_tokens(tokenizer: Any) -> frozenset[int]:
    return frozenset(int(token) for token in tokenizer.added_tokens_decoder)


def _ends_in_token(mask: npt.NDArray[np.bool_], ids: npt.NDArray[np.int32], special_tokens: frozenset[int]) -> bool:
    """Whether the last trained token is one of the template's own."""
    trained = np.flatnonzero(mask)
    return not trained.size or int(ids[trained[-1]]) in special_tokens


def _mask(
    text: str,
    ids: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    spans: Sequence[tuple[int, int]],
    special_tokens: frozenset[int],
    ends: Sequence[int],
) -> npt.NDArray[np.bool_]:
    """The completion mask, bool (tokens,): tokens inside a span. White space after a span's last special token (the
    line break that follows an end-of-turn mark) belongs to the template, not to the answer. A token that joins the
    blank before an answer to its first letters is the answer's. The mark behind an earlier answer is left out where
    generation does not stop at it (gpt-oss: `<|end|>`, but `<|return|>` behind the last answer).

    Args:
        text: The rendered dialogue.
        ids: Its token ids, (tokens,).
        offsets: Where each token begins and ends in the text, in characters, (tokens, 2).
        spans: Where each assistant turn begins and ends in the text.
        special_tokens: Ids of the tokens that the template is made of.
        ends: Ids of those at which generation stops.
    """
    mask = np.zeros(len(ids), dtype=np.bool_)
    starts, stops = offsets[:, 0], offsets[:, 1]
    for begin, end in spans:
        inside = np.flatnonzero((starts >= begin) & (stops <= end) & (stops > starts))
        for index in np.flatnonzero((starts < begin) & (stops > begin)).tolist():
            before, after = text[int(starts[index]) : begin], text[begin : int(stops[index])]
            if not before.strip() and after.strip():
                inside = np.union1d(inside, [index])
        special = [index for index in inside.tolist() if int(ids[index]) in special_tokens]
        if special and not text[int(stops[special[-1]]) : end].strip():
            is_stop = not ends or int(ids[special[-1]]) in ends or end == spans[-1][1]
            inside = inside[inside <= special[-1]] if is_stop else inside[inside < special[-1]]
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


def _refused_row(row: _RefusedRow) -> dict[str, Any]:
    """A LEDGER row: the chat template cannot write the row whole."""
    return {
        "id": row.name,
        "step": None,
        "stage": "training",
        "action": "truncate",
        "reason": _TEMPLATE,
        "score": None,
        "threshold": None,
        "witness": None,
        "detail": f"{row.reason}; the row is not used",
    }


def _fold_hint(refused: list[dict[str, Any]]) -> str:
    """What helps when it is system turns that the template does not take."""
    has_system = any("system" in row["detail"].lower() for row in refused)
    return " System turns can be put into the user's turn: set model.system: fold." if has_system else ""


def _no_row_is_left(rows: int, truncated: list[dict[str, Any]], max_length: int) -> str:
    refused = [row for row in truncated if row["reason"] == _TEMPLATE]
    if refused:
        first = refused[0]
        return (
            f"None of {rows:,} rows can be trained; {len(refused):,} of them because of the chat template. "
            f"The first is {first['id']}: {first['detail']}. Choose a model whose template takes such "
            f"dialogues.{_fold_hint(refused)}"
        )
    return (
        f"None of {rows:,} rows has a trained token: either no row holds an assistant turn with text, or max_length "
        f"({max_length}) ends before the first answer. Raise training.max_length."
    )
