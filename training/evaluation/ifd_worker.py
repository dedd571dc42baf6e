"""The worker that measures IFD: the losses of answers under the untrained base, with and without their prompts.

There is no chat template: the prompt is the text of all turns before the last answer, one below the other, and a line
break. The same tokens of the answer are scored both times. Where the tokenizer puts a mark before every text, it stands
before both; where it has none, nothing predicts the first token of an answer alone, and it is scored in neither.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import replacing
from siftune.curation.corpus import write_batches
from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Section
from siftune.training import models, worker
from siftune.training.evaluation.loss_worker import BATCH_TOKENS, BatchedRows, length_batches, summed_losses
from siftune.training.masks import TokenRows

WORKER = "siftune.training.evaluation.ifd_worker"


class IfdJob(Section):
    """One job of the worker."""

    #: ARM rows.
    rows: Path
    #: Where IFD goes, and what its metadata says.
    out: Path
    notes: dict[str, str]
    #: Prompt and answer together have at most so many tokens; the answer is cut.
    max_length: int
    resolved: models.ResolvedModel


def compute_ifd(job: IfdJob, progress: Progress) -> dict[str, Any]:
    """Measure the rows of `job` and write IFD; returns how many rows have one."""
    tokenizer = models.load_tokenizer(job.resolved)
    rows = pl.read_parquet(job.rows, columns=["id", "messages"], glob=False).unique("id", maintain_order=True)
    given, alone, notes = tokenise_answers(tokenizer, rows, max_length=job.max_length)
    if not given.names:
        raise UserError(
            f"No row has a token of an answer that can be scored within {job.max_length} tokens. Raise "
            "training.max_length."
        )

    # The untrained base as it is: nothing was trained over 4-bit weights here.
    loading = models.choose_loading("bf16", job.resolved)
    base = models.load_base(job.resolved, loading).eval()
    nll = {}
    for name, texts in (("given", given), ("alone", alone)):
        batches = length_batches(texts.lengths, most_tokens=BATCH_TOKENS[loading.device])
        label = "losses of answers " + ("with their prompts" if name == "given" else "alone")
        nll[name] = summed_losses(base, BatchedRows(texts, batches), loading, progress=partial(progress, label))

    tokens = given.trained_counts
    measured = pl.DataFrame(
        {
            "id": given.names,
            "tokens": tokens,
            "given": nll["given"] / tokens,
            "alone": nll["alone"] / tokens,
            "ifd": np.exp((nll["given"] - nll["alone"]) / tokens),
        }
    )
    frame = rows.select("id", note=pl.Series(notes, dtype=pl.String))
    frame = frame.join(measured, on="id", how="left", maintain_order="left")
    with replacing(job.out) as temporary:
        write_batches(iter([frame]), temporary, schema.IFD, notes=job.notes)
    return {"rows": measured.height}


def tokenise_answers(
    tokenizer: Any, rows: pl.DataFrame, *, max_length: int
) -> tuple[TokenRows, TokenRows, list[str | None]]:
    """The last answer of each row behind its prompt, and alone, with the mask of the tokens that are scored.

    Args:
        tokenizer: the base model's.
        rows: `id` and `messages`.
        max_length: the most tokens of prompt and answer; the answer is cut.

    Returns:
        Both for the rows that have a token to score, and a note for every row whose answer was cut or that has none.
    """
    start = [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id]
    names: list[str] = []
    notes: list[str | None] = []
    ids: dict[str, list[np.ndarray]] = {"given": [], "alone": []}
    for row_id, messages in rows.select("id", "messages").iter_rows():
        last = max((index for index, turn in enumerate(messages) if turn["role"] == "assistant"), default=None)
        answer = (messages[last]["content"] or "") if last is not None else ""
        prompt = "\n".join(turn["content"] or "" for turn in messages[:last])
        prompt_tokens, answer_tokens = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"{prompt}\n", answer)
        )
        room = max(max_length - len(start) - len(prompt_tokens), 0)
        cut = answer_tokens[:room]
        if len(cut) <= (not start):
            what = (
                "the prompt fills all tokens" if len(answer_tokens) > len(cut) else "the answer has no token to score"
            )
            notes.append(f"left out: {what}")
            continue
        notes.append(
            f"the answer is cut to {len(cut):,} of {len(answer_tokens):,} tokens"
            if len(cut) < len(answer_tokens)
            else None
        )
        names.append(row_id)
        ids["given"].append(np.asarray([*start, *prompt_tokens, *cut], np.int32))
        ids["alone"].append(np.asarray([*start, *cut], np.int32))

    scored = [len(one) - 1 for one in ids["alone"]]  # the first token has nothing before it
    given, alone = (
        TokenRows(
            names,
            ids[name],
            [np.arange(len(one)) >= len(one) - count for one, count in zip(ids[name], scored, strict=True)],
            schema.empty(schema.LEDGER),
        )
        for name in ("given", "alone")
    )
    return given, alone, notes


def main() -> int:
    """The worker: an `IfdJob` on standard input."""
    return worker.serve(lambda text, progress: compute_ifd(IfdJob.model_validate_json(text), progress))


if __name__ == "__main__":
    sys.exit(main())
