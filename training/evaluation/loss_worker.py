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
from siftune.curation.recipe.sections import Model, Section, Training
from siftune.training import models, sanity_checks, worker
from siftune.training.evaluation.losses import EngineDifference, Evaluation, LossEngine, write_evaluation
from siftune.training.evaluation.statistics import Floats
from siftune.training.masks import TokenRows, tokenise
from siftune.training.memory import estimate_memory
from siftune.training.result import write_truncated
from siftune.training.schedule import TokenCounts

WORKER = "siftune.training.evaluation.loss_worker"
_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
_SAMPLE_ROWS = 12


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
    #: The largest mean difference (nats per token) at which the merged model still counts as the trained one. Adding a
    #: small change to bf16 weights rounds part of it away, always at the adapter's cost: 0.014 after three steps of
    #: SmolLM2.
    drift_limit: float = 0.01


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

    # The model, as dense or 4-bit weights, whichever a sample finds faster and as exact.
    loading = models.choose_loading(job.model.load, job.resolved)
    batched = BatchedRows(rows, length_batches(rows.lengths, most_tokens=_BATCH_TOKENS[loading.device]))
    loss_models = LossModels(job, loading, batched)

    # Target by target; what is done stays when a later one fails.
    for index, target in enumerate(job.targets):
        started = time.monotonic()
        nll = loss_models.losses(target, partial(progress, f"evaluating {target.name}"))
        seconds = time.monotonic() - started
        frame = columns.with_columns(pl.Series("nll", nll))
        evaluation = Evaluation(
            name=target.name,
            digest=target.digest,
            adapter_hash=target.digest if target.adapter else None,
            key=job.key,
            engine=loss_models.engine,
            engine_why=loss_models.why,
            rows=frame.height,
            tokens=int(frame["tokens"].sum()),
            loss=float(nll.sum() / frame["tokens"].sum()),
            seconds=round(seconds, 2),
            truncated_rows=rows.truncated.height,
            drift=loss_models.difference(target),
            versions=models.versions(),
        )
        write_evaluation(evaluation, frame, job.folder)
        progress(f"evaluated {target.name}: {evaluation.loss:.4f} nats per token", index + 1, len(job.targets))
    return {"engine": loss_models.engine}


class LossModels:
    """The models that losses are computed with.

    An adapter was trained over 4-bit weights. The engine `nf4` is exactly that model. `merged` holds the same 4-bit
    weights, unpacked once to dense ones with the adapter added: the same function up to rounding, and faster since
    nothing is unpacked at each pass. A sample of rows decides; one engine serves all targets.
    """

    def __init__(self, job: EvaluationJob, loading: models.Loading, batched: BatchedRows) -> None:
        self.loading, self.batched, self.sample = loading, batched, _sample(batched)

        # The 4-bit model where training used one, and the dense one unless memory has no room for it beside the other.
        self.packed = models.load_base(job.resolved, loading).eval() if loading.load == "nf4" else None
        no_room = _no_room_for_dense(job, loading) if self.packed is not None else ""
        self.dense = None if no_room else _load_dense(job, loading)

        self.engine, self.why = self._choose(job, no_room)

    def losses(self, target: EvaluationTarget, progress: Callable[[int, int], None]) -> Floats:
        """Summed negative log-likelihood (nats) of each row, float64 (rows,)."""
        with self._model(target, self.engine) as model:
            return summed_losses(model, self.batched, self.loading, progress=progress)

    def difference(self, target: EvaluationTarget) -> EngineDifference | None:
        """The merged engine's losses minus the 4-bit engine's over a sample; None unless both are in memory."""
        if self.packed is None or self.dense is None:
            return None
        merged, _ = self._sample_losses(target, "merged")
        packed, _ = self._sample_losses(target, "nf4")
        tokens = self.sample.rows.trained_counts
        largest = np.abs((merged - packed) / tokens).max()
        return EngineDifference(
            rows=len(tokens), mean=float((merged - packed).sum() / tokens.sum()), largest=float(largest)
        )

    def _choose(self, job: EvaluationJob, no_room: str) -> tuple[LossEngine, str]:
        """The engine for all targets, and why."""
        if self.packed is None:
            return "merged", f"the model was trained dense ({self.loading.load})"
        if no_room:
            return "nf4", no_room
        if job.engine is not None:
            return job.engine, "chosen when the first targets were evaluated"

        # Exactness first, on an adapter if there is one; this also warms both engines up.
        target = next((target for target in job.targets if target.adapter), job.targets[0])
        difference = self.difference(target)
        assert difference is not None
        if abs(difference.mean) > job.drift_limit:
            return "nf4", f"merged drifts by {difference.mean:+.4f} nats per token, more than {job.drift_limit}"

        # Then speed.
        _, merged = self._sample_losses(target, "merged")
        _, packed = self._sample_losses(target, "nf4")
        measured = f"measured on {len(self.sample.rows.names)} rows: merged {merged:.2f} s, nf4 {packed:.2f} s"
        return ("merged" if merged <= packed else "nf4"), measured

    def _sample_losses(self, target: EvaluationTarget, engine: LossEngine) -> tuple[Floats, float]:
        """The losses of the sample by one engine, and the seconds they took, without merging."""
        with self._model(target, engine) as model:
            started = time.monotonic()
            return summed_losses(model, self.sample, self.loading), time.monotonic() - started

    @contextmanager
    def _model(self, target: EvaluationTarget, engine: LossEngine) -> Iterator[Any]:
        from peft import PeftModel

        base = self.packed if engine == "nf4" else self.dense
        if target.adapter is None:
            yield base
        elif engine == "merged":
            merged = PeftModel.from_pretrained(copy.deepcopy(base), str(target.adapter))
            yield merged.merge_and_unload().eval()
        else:
            adapted = PeftModel.from_pretrained(base, str(target.adapter)).eval()
            try:
                yield adapted
            finally:
                adapted.unload()  # PEFT works in place: the base gets its own modules back


def summed_losses(
    model: Any, batched: BatchedRows, loading: models.Loading, *, progress: Callable[[int, int], None] | None = None
) -> Floats:
    """Summed negative log-likelihood of the trained tokens of each row.

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
    for index, batch in enumerate(batched.batches):
        # Rows side by side, padded on the right: a causal model never looks there.
        width = max(len(rows.ids[row]) for row in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        trained = torch.zeros((len(batch), width), dtype=torch.bool)
        for line, row in enumerate(batch):
            length = len(rows.ids[row])
            ids[line, :length] = torch.from_numpy(rows.ids[row].astype(np.int64))
            trained[line, :length] = torch.from_numpy(rows.trained[row])
        # The logits at a position predict the token after it.
        ids, predicted = ids.to(device), trained[:, 1:].to(device)
        with torch.inference_mode(), torch.autocast(device, loading.dtype, enabled=autocast):
            logits = logits_where(model, ids, predicted).float()
            losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][predicted], reduction="none").double()
            lines = predicted.nonzero()[:, 0]
            sums = torch.zeros(len(batch), dtype=torch.float64, device=device).index_add(0, lines, losses)
            nll[batch] = sums.cpu()
        if progress is not None:
            progress(index + 1, len(batched.batches))
    return nll


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


def _load_dense(job: EvaluationJob, loading: models.Loading) -> Any:
    """The same weights as the trained model has, unpacked."""
    base = models.load_base(job.resolved, loading)
    return (base.dequantize() if loading.load == "nf4" else base).eval()


def _no_room_for_dense(job: EvaluationJob, loading: models.Loading) -> str:
    """Why the unpacked model and the copy that an adapter is merged into do not fit; empty when they do."""
    dense = estimate_memory(job.resolved, replace(loading, load="bf16"), Training())
    if 2 * dense.weights <= dense.free:
        return ""
    return f"no room for two copies of the dense model ({2 * dense.weights >> 20:,} of {dense.free >> 20:,} MiB)"


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
    return BatchedRows(sample, length_batches(sample.lengths, most_tokens=_BATCH_TOKENS["cpu"]))


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
