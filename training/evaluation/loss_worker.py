"""The evaluation worker: summed negative log-likelihood of every held-out row, for adapters and their base.

All targets of one job share tokens, masks, batches and engine, so their losses differ by the adapter alone.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Section
from siftune.curation.recipe.training_sections import Model, Training
from siftune.training import models, sanity_checks, worker
from siftune.training.evaluation.losses import EngineDifference, Evaluation, LossEngine, write_evaluation
from siftune.training.evaluation.statistics import Floats
from siftune.training.masks import TokenRows, tokenise
from siftune.training.memory import estimate_memory
from siftune.training.result import write_truncated
from siftune.training.schedule import TokenCounts

WORKER = "siftune.training.evaluation.loss_worker"
#: Tokens that go through the model together, padding included.
BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
_SAMPLE_ROWS = 4
#: A shorter prefix is not worth a mask for the attention to it.
_LEAST_PREFIX = 8


class EvaluationTarget(Section):
    """What is evaluated: an adapter, or the base itself (no adapter)."""

    name: str
    adapter: Path | None
    #: The hash of the adapter, or the identity of the base.
    digest: str


class EvaluationJob(Section):
    """One job of the evaluation worker."""

    #: HELDOUT rows.
    heldout: Path
    #: Where the losses go.
    folder: Path
    #: Rows are truncated to so many tokens.
    max_length: int
    #: At most so many rows, drawn with `seed`; all when None.
    max_rows: int | None
    seed: int
    model: Model
    resolved: models.ResolvedModel
    targets: list[EvaluationTarget]
    #: The engine of earlier losses that these are compared with; None leaves the choice to a sample.
    engine: LossEngine | None
    key: str
    #: The largest mean difference (nats per token) at which the dense model still counts as the trained one.
    drift_limit: float = 0.002


@dataclass(frozen=True)
class BatchedRows:
    """Held-out rows as tokens, and the row indices, int64, that go through the model together."""

    rows: TokenRows
    batches: list[TokenCounts]


def compute_losses(job: EvaluationJob, progress: Progress) -> dict[str, Any]:
    """Evaluate all targets of `job` in this process and write their files; returns the engine that served."""
    # Tokens and masks, once for all targets.
    tokenizer = models.load_tokenizer(job.resolved)
    heldout = draw_rows(pl.read_parquet(job.heldout, glob=False), job.max_rows, seed=job.seed)
    rows = tokenise(tokenizer, heldout, max_length=job.max_length, system=job.model.system)
    sanity_checks.check_masks(rows, what="Held-out rows")
    write_truncated(rows.truncated, job.folder)
    columns = _describe_rows(heldout, rows, tokenizer)

    # The model, with dense weights where they fit and a sample finds them as exact as 4-bit ones.
    loading = models.choose_loading(job.model.load, job.resolved)
    batched = BatchedRows(rows, length_batches(rows.lengths, most_tokens=BATCH_TOKENS[loading.device]))
    loss_model = LossModel(job, loading, batched)

    # Target by target; what is done stays when a later one fails.
    for index, target in enumerate(job.targets):
        started = time.monotonic()
        nll = loss_model.losses(target, partial(progress, f"evaluating {target.name}"))
        seconds = time.monotonic() - started
        frame = columns.with_columns(pl.Series("nll", nll))
        evaluation = Evaluation(
            name=target.name,
            digest=target.digest,
            adapter_hash=target.digest if target.adapter else None,
            key=job.key,
            engine=loss_model.engine,
            engine_why=loss_model.why,
            rows=frame.height,
            tokens=int(frame["tokens"].sum()),
            loss=float(nll.sum() / frame["tokens"].sum()),
            seconds=round(seconds, 2),
            truncated_rows=rows.truncated.height,
            drift=loss_model.drift,
            versions=models.versions(),
        )
        write_evaluation(evaluation, frame, job.folder)
        progress(f"evaluated {target.name}: {evaluation.loss:.4f} nats per token", index + 1, len(job.targets))
    return {"engine": loss_model.engine}


class LossModel:
    """The model that losses are computed with.

    An adapter was trained over 4-bit weights. The engine `nf4` is exactly that model. `dense` holds the values of the
    same 4-bit weights, unpacked once, beside the adapter: the same function up to rounding, and faster, since `nf4`
    unpacks them at each pass. It serves all targets where it fits into memory, and where a sample of rows agrees.
    """

    def __init__(self, job: EvaluationJob, loading: models.Loading, batched: BatchedRows) -> None:
        self.job, self.loading, self.batched = job, loading, batched
        self.drift: EngineDifference | None = None
        self.engine, self.base, self.why = self._choose()

    def losses(self, target: EvaluationTarget, progress: Callable[[int, int], None]) -> Floats:
        """Summed negative log-likelihood (nats) of each row, float64 (rows,)."""
        with adapted_model(self.base, target) as model:
            return summed_losses(model, self.batched, self.loading, progress=progress)

    def _choose(self) -> tuple[LossEngine, Any, str]:
        """The engine for all targets, its model without adapters, and why."""
        if self.loading.load != "nf4":
            return "dense", self._load("dense"), f"the model was trained dense ({self.loading.load})"
        if self.job.engine is not None:
            return self.job.engine, self._load(self.job.engine), "chosen when the first targets were evaluated"
        no_room = _no_room_for_dense(self.job, self.loading)
        if no_room:
            return "nf4", self._load("nf4"), no_room

        # Exactness, on an adapter if there is one.
        target = next((target for target in self.job.targets if target.adapter), self.job.targets[0])
        packed, dense, sample = self._load("nf4"), self._load("dense"), _sample(self.batched)
        with adapted_model(dense, target) as model:
            by_dense = summed_losses(model, sample, self.loading)
        with adapted_model(packed, target) as model:
            by_packed = summed_losses(model, sample, self.loading)
        tokens = sample.rows.trained_counts
        self.drift = EngineDifference(
            rows=len(tokens),
            mean=float((by_dense - by_packed).sum() / tokens.sum()),
            largest=float(np.abs((by_dense - by_packed) / tokens).max()),
        )
        if abs(self.drift.mean) > self.job.drift_limit:
            limit = self.job.drift_limit
            return "nf4", packed, f"dense drifts by {self.drift.mean:+.4f} nats per token, more than {limit}"
        return "dense", dense, f"dense agrees with nf4 on {len(tokens)} rows ({self.drift.mean:+.5f} nats per token)"

    def _load(self, engine: LossEngine) -> Any:
        """The base model with 4-bit weights, or with the same weights unpacked."""
        base = models.load_base(self.job.resolved, self.loading)
        return (base.dequantize() if engine == "dense" and self.loading.load == "nf4" else base).eval()


@contextmanager
def adapted_model(base: Any, target: EvaluationTarget) -> Iterator[Any]:
    """The base with the adapter of a target beside its weights, as in training; without it again afterwards."""
    from peft import PeftModel

    from siftune.training.inference.lora_layers import read_adapter, require_fitting

    if target.adapter is None:
        yield base
        return
    # PEFT would draw missing weights at random, or raise errors of many types.
    require_fitting(read_adapter(target.adapter), dict(base.named_modules()))
    adapted = PeftModel.from_pretrained(base, str(target.adapter)).eval()
    try:
        yield adapted
    finally:
        adapted.unload()  # PEFT works in place: the base gets its own modules back


def summed_losses(
    model: Any, batched: BatchedRows, loading: models.Loading, *, progress: Callable[[int, int], None] | None = None
) -> Floats:
    """Summed negative log-likelihood of the trained tokens of each row.

    Tokens that all rows begin with (a system prompt, the template's first marks) go through the model once.

    Args:
        model: a causal language model in eval mode.
        batched: the rows and their batches.
        loading: device and type of the computation.
        progress: called after each batch with the number of batches done and of all.

    Returns:
        float64 (rows,), in nats.
    """
    import torch

    from siftune.training.selected_logits import logits_where

    rows, device = batched.rows, "cuda" if loading.device == "cuda" else "cpu"
    autocast = loading.compute != "float32"
    nll = np.zeros(len(rows.names), dtype=np.float64)
    with torch.inference_mode(), torch.autocast(device, loading.dtype, enabled=autocast):
        shared, prefix_cache = _prefix_cache(model, rows, device)
    for index, batch in enumerate(batched.batches):
        # Rows side by side, padded on the right: a causal model never looks there.
        width = max(len(rows.ids[row]) for row in batch) - shared
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        trained = torch.zeros((len(batch), width), dtype=torch.bool)
        for line, row in enumerate(batch):
            length = len(rows.ids[row]) - shared
            ids[line, :length] = torch.from_numpy(rows.ids[row][shared:].astype(np.int64))
            trained[line, :length] = torch.from_numpy(rows.trained[row][shared:])
        # The logits at a position predict the token after it.
        ids, predicted = ids.to(device), trained[:, 1:].to(device)
        with torch.inference_mode(), torch.autocast(device, loading.dtype, enabled=autocast):
            past = copy.deepcopy(prefix_cache)
            if past is not None:
                past.batch_repeat_interleave(len(batch))
            logits = logits_where(model, ids, predicted, past=past).float()
            losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][predicted], reduction="none").double()
            lines = predicted.nonzero()[:, 0]
            sums = torch.zeros(len(batch), dtype=torch.float64, device=device).index_add(0, lines, losses)
            nll[batch] = sums.cpu()
        if progress is not None:
            progress(index + 1, len(batched.batches))
    return nll


def shared_prefix(rows: TokenRows) -> int:
    """The number of tokens that all rows begin with, none of them trained and none of them before a trained one."""
    first = rows.ids[0]
    length = min(int(trained.argmax()) - 1 for trained in rows.trained)
    for ids in rows.ids:
        differing = np.flatnonzero(ids[:length] != first[:length])
        length = int(differing[0]) if differing.size else length
    return max(0, length)


def _prefix_cache(model: Any, rows: TokenRows, device: str) -> tuple[int, Any]:
    """The length of the prefix that all rows share, and its keys and values; 0 and None where it is not worth it, or
    where they are not all that the model keeps of it (sliding windows, recurrent layers)."""
    import torch

    shared, config = shared_prefix(rows), model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if shared < _LEAST_PREFIX or kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return 0, None
    prefix = torch.from_numpy(rows.ids[0][:shared].astype(np.int64))[None].to(device)
    cache = model(input_ids=prefix, use_cache=True).past_key_values
    return (shared, cache) if hasattr(cache, "batch_repeat_interleave") else (0, None)


def length_batches(lengths: TokenCounts, *, most_tokens: int) -> list[TokenCounts]:
    """Rows of similar length together, longest first; a batch holds at most `most_tokens`, padding included.

    Args:
        lengths: int64 (rows,), tokens of each row.
        most_tokens: a longer row is a batch of its own.

    Returns:
        For each batch its row indices, int64.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[TokenCounts] = []
    start = 0
    while start < len(order):
        size = max(1, most_tokens // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def draw_rows(heldout: pl.DataFrame, max_rows: int | None, *, seed: int) -> pl.DataFrame:
    """At most `max_rows` rows drawn at random, in their order."""
    if max_rows is None or heldout.height <= max_rows:
        return heldout
    indices = np.sort(np.random.default_rng(seed).choice(heldout.height, max_rows, replace=False))
    return heldout[indices.tolist()]


def _no_room_for_dense(job: EvaluationJob, loading: models.Loading) -> str:
    """Why the unpacked model does not fit; empty when it does."""
    dense = estimate_memory(job.resolved, replace(loading, load="bf16"), Training())
    if dense.weights <= dense.free:
        return ""
    return f"no room for the dense model ({dense.weights >> 20:,} of {dense.free >> 20:,} MiB)"


def _sample(batched: BatchedRows) -> BatchedRows:
    """A few rows spread over all lengths, for the choice of the engine."""
    rows = batched.rows
    by_length = np.argsort(rows.lengths, kind="stable")
    ranks = np.unique(np.linspace(0, len(by_length) - 1, min(_SAMPLE_ROWS, len(by_length))).round().astype(int))
    indices = [int(row) for row in by_length[ranks]]
    sample = TokenRows(
        [rows.names[row] for row in indices],
        [rows.ids[row] for row in indices],
        [rows.trained[row] for row in indices],
        rows.truncated,
    )
    return BatchedRows(sample, length_batches(sample.lengths, most_tokens=BATCH_TOKENS["cpu"]))


def _describe_rows(heldout: pl.DataFrame, rows: TokenRows, tokenizer: Any) -> pl.DataFrame:
    """LOSS_COLUMNS without the loss. Length bins count the tokens of the prompt, in powers of two."""
    trained = [ids[mask] for ids, mask in zip(rows.ids, rows.trained, strict=True)]
    prompt_tokens = rows.lengths - rows.trained_counts
    described = pl.DataFrame(
        {
            "id": rows.names,
            "tokens": rows.trained_counts,
            "length_bin": [_length_bin(int(count)) for count in prompt_tokens],
            "mask_hash": rows.hashes(),
            "bytes": [len(text.encode()) for text in tokenizer.batch_decode(trained, skip_special_tokens=True)],
        }
    )
    return described.join(heldout.select("id", "group", "source", "leaked"), on="id", how="left", maintain_order="left")


def _length_bin(prompt_tokens: int) -> str:
    high = max(32, 1 << max(0, prompt_tokens - 1).bit_length())
    return f"{'0000' if high == 32 else format(high // 2 + 1, '04')}-{high:04} prompt tokens"


def main() -> int:
    """The worker: an `EvaluationJob` on standard input."""
    return worker.serve(lambda text, progress: compute_losses(EvaluationJob.model_validate_json(text), progress))


if __name__ == "__main__":
    sys.exit(main())
