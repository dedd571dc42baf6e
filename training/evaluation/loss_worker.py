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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Model, Section, Training
from siftune.training import jobs, models, sanity_checks, worker
from siftune.training.masks import TokenRows, tokenise
from siftune.training.memory import estimate_memory
from siftune.training.schedule import TokenCounts

Engine = Literal["merged", "nf4"]
Losses = npt.NDArray[np.float64]
#: Largest mean difference in nats a token at which the merged model still counts as the trained one. Adding a small
#: change to bf16 weights rounds part of it away, always at the adapter's cost: 0.014 after three steps of SmolLM2.
DRIFT_LIMIT = 0.01
_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
_SAMPLE_ROWS = 12


class Target(Section):
    """What is judged: an adapter, or the base itself."""

    name: str
    adapter: Path | None
    digest: str


class EvaluateJob(Section):
    """What the evaluation worker is told."""

    heldout: Path
    folder: Path
    max_length: int
    max_rows: int | None
    seed: int
    model: Model
    resolved: models.ResolvedModel
    targets: list[Target]
    engine: Engine | None
    key: str


@dataclass(frozen=True)
class Batches:
    """Held-out rows as tokens, and which of them go through the model together."""

    rows: TokenRows
    parts: list[TokenCounts]


def judge(job: EvaluateJob, tell: Progress) -> dict[str, Any]:
    """Judge all targets of `job` in this process and write their files."""
    tokenizer = models.load_tokenizer(job.resolved)
    heldout = _chosen(pl.read_parquet(job.heldout), job.max_rows, seed=job.seed)
    rows = tokenise(tokenizer, heldout, max_length=job.max_length)
    sanity_checks.check_masks(rows, what="Held-out rows")
    loading = models.choose_loading(job.model.load, job.resolved)
    batches = Batches(rows, length_batches(rows.lengths, most_tokens=_BATCH_TOKENS[loading.device]))
    columns = _columns(heldout, rows, tokenizer)
    write_parquet(rows.truncated, job.folder / jobs.TRUNCATED)
    bench = Bench(job, loading, batches)
    for place, target in enumerate(job.targets):
        started = time.monotonic()
        losses = bench.losses(target, partial(tell, f"judging {target.name}"))
        seconds = time.monotonic() - started
        frame = columns.with_columns(pl.Series("nll", losses)).select("id", "nll", pl.exclude("id", "nll"))
        write_parquet(frame, job.folder / f"{target.name}.parquet")
        facts = {
            "name": target.name,
            "digest": target.digest,
            "adapter_hash": target.digest if target.adapter else None,
            "key": job.key,
            "engine": bench.engine,
            "engine_why": bench.why,
            "rows": frame.height,
            "tokens": int(frame["tokens"].sum()),
            "loss": float(losses.sum() / frame["tokens"].sum()),
            "seconds": round(seconds, 2),
            "truncated_rows": rows.truncated.height,
            "drift": bench.drift(target),
            "versions": models.versions(),
        }
        write_json(facts, job.folder / f"{target.name}.json")
        tell(f"judged {target.name}: {facts['loss']:.4f} nats a token", place + 1, len(job.targets))
    return {"engine": bench.engine}


class Bench:
    """The models that losses are computed with.

    An adapter was trained over 4-bit weights. `nf4` is exactly that model. `merged` holds the same 4-bit weights,
    unpacked once to dense ones with the adapter added: the same function up to rounding, and faster since nothing is
    unpacked at each pass. A sample decides; one engine serves all targets.
    """

    def __init__(self, job: EvaluateJob, loading: models.Loading, batches: Batches) -> None:
        self.job, self.loading, self.batches = job, loading, batches
        self.sample = _sample(batches)
        self.packed = models.load_base(job.resolved, loading).eval() if loading.load == "nf4" else None
        self.room = _room_for_dense(job, loading)
        self.dense = _dense(job, loading) if self.packed is None or not self.room else None
        self.engine, self.why = self._choose()

    def losses(self, target: Target, tell: Callable[[int, int], None]) -> Losses:
        """Summed negative log-likelihood of each row, float64, in the order of the rows."""
        with self._model(target, self.engine) as model:
            return summed_losses(model, self.batches, self.loading, tell=tell)

    def drift(self, target: Target) -> dict[str, float] | None:
        """Mean and largest difference between the two engines, in nats a token, over a sample of rows."""
        if self.packed is None or self.dense is None:
            return None
        tokens = self.sample.rows.trained_counts
        both = [self._sampled(target, engine) / tokens for engine in ("merged", "nf4")]
        difference = both[0] - both[1]
        mean = float((difference * tokens).sum() / tokens.sum())
        return {"rows": float(len(tokens)), "mean": mean, "largest": float(np.abs(difference).max())}

    def _choose(self) -> tuple[Engine, str]:
        if self.packed is None:
            return "merged", f"the model was trained dense ({self.loading.load})"
        if self.dense is None:
            return "nf4", self.room
        target = next((target for target in self.job.targets if target.adapter), self.job.targets[0])
        if self.job.engine is not None:
            return self.job.engine, "chosen when the first targets were judged"
        drift = self.drift(target)  # also warms both engines up
        assert drift is not None
        if abs(drift["mean"]) > DRIFT_LIMIT:
            return "nf4", f"merged drifts by {drift['mean']:+.4f} nats a token, more than {DRIFT_LIMIT}"
        seconds = {engine: self._time(target, engine) for engine in ("merged", "nf4")}
        engine: Engine = "merged" if seconds["merged"] <= seconds["nf4"] else "nf4"
        told = ", ".join(f"{name} {taken:.2f} s" for name, taken in seconds.items())
        return engine, f"measured on {len(self.sample.rows.names)} rows: {told}"

    def _time(self, target: Target, engine: Engine) -> float:
        with self._model(target, engine) as model:
            started = time.monotonic()
            summed_losses(model, self.sample, self.loading)
            return time.monotonic() - started

    def _sampled(self, target: Target, engine: Engine) -> Losses:
        with self._model(target, engine) as model:
            return summed_losses(model, self.sample, self.loading)

    @contextmanager
    def _model(self, target: Target, engine: Engine) -> Iterator[Any]:
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
    model: Any, batches: Batches, loading: models.Loading, *, tell: Callable[[int, int], None] | None = None
) -> Losses:
    """Summed negative log-likelihood (nats) of the trained tokens of each row, in the order of the rows."""
    import torch

    from siftune.training.selected_logits import logits_where

    rows, device = batches.rows, "cuda" if loading.device == "cuda" else "cpu"
    losses = np.zeros(len(rows.names), dtype=np.float64)
    lower = loading.compute != "float32"
    for place, part in enumerate(batches.parts):
        width = max(len(rows.ids[row]) for row in part)
        ids = torch.zeros((len(part), width), dtype=torch.long)
        wanted = torch.zeros((len(part), width), dtype=torch.bool)
        for line, row in enumerate(part):
            length = len(rows.ids[row])
            ids[line, :length] = torch.from_numpy(rows.ids[row].astype(np.int64))
            wanted[line, :length] = torch.from_numpy(rows.trained[row])
        ids, wanted = ids.to(device), wanted[:, 1:].to(device)
        with torch.inference_mode(), torch.autocast(device, loading.dtype, enabled=lower):
            logits = logits_where(model, ids, wanted).float()
            each = torch.nn.functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none").double()
            lines = wanted.nonzero()[:, 0]
            losses[part] = torch.zeros(len(part), dtype=torch.float64, device=device).index_add(0, lines, each).cpu()
        if tell is not None:
            tell(place + 1, len(batches.parts))
    return losses


def length_batches(lengths: TokenCounts, *, most_tokens: int) -> list[TokenCounts]:
    """Rows of similar length together, longest first; a batch holds at most `most_tokens`, padding included."""
    order = np.argsort(-lengths, kind="stable")
    parts: list[TokenCounts] = []
    start = 0
    while start < len(order):
        size = max(1, most_tokens // int(lengths[order[start]]))
        parts.append(order[start : start + size])
        start += size
    return parts


def _dense(job: EvaluateJob, loading: models.Loading) -> Any:
    """The same weights as the 4-bit model has, unpacked."""
    base = models.load_base(job.resolved, loading)
    return (base.dequantize() if loading.load == "nf4" else base).eval()


def _room_for_dense(job: EvaluateJob, loading: models.Loading) -> str:
    """Why the unpacked model and the copy that an adapter is merged into do not fit; empty when they do."""
    dense = estimate_memory(job.resolved, replace(loading, load="bf16"), Training())
    if 2 * dense.weights <= dense.free:
        return ""
    return f"no room for two copies of the dense model ({2 * dense.weights >> 20:,} of {dense.free >> 20:,} MiB)"


def _sample(batches: Batches) -> Batches:
    """Rows spread over all lengths, for the choice of the engine and its drift."""
    lengths = batches.rows.lengths
    order = np.argsort(lengths, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(_SAMPLE_ROWS, len(order))).round().astype(int))
    rows = [int(row) for row in order[places]]
    chosen = TokenRows(
        [batches.rows.names[row] for row in rows],
        [batches.rows.ids[row] for row in rows],
        [batches.rows.trained[row] for row in rows],
        batches.rows.truncated,
    )
    return Batches(chosen, length_batches(chosen.lengths, most_tokens=_BATCH_TOKENS["cpu"]))


def _chosen(heldout: pl.DataFrame, max_rows: int | None, *, seed: int) -> pl.DataFrame:
    if max_rows is None or heldout.height <= max_rows:
        return heldout
    picked = np.sort(np.random.default_rng(seed).choice(heldout.height, max_rows, replace=False))
    return heldout[picked.tolist()]


def _columns(heldout: pl.DataFrame, rows: TokenRows, tokenizer: Any) -> pl.DataFrame:
    """What evaluation files hold besides the loss. Length bins: prompt tokens, in powers of two; bytes: of the judged
    text, so that models with other tokenizers can be compared."""
    judged = [ids[mask] for ids, mask in zip(rows.ids, rows.trained, strict=True)]
    prompts = rows.lengths - rows.trained_counts
    tokens = pl.DataFrame(
        {
            "id": rows.names,
            "tokens": rows.trained_counts,
            "length_bin": [_length_bin(int(count)) for count in prompts],
            "mask_hash": rows.hashes(),
            "bytes": [len(text.encode()) for text in tokenizer.batch_decode(judged, skip_special_tokens=True)],
        }
    )
    joined = tokens.join(heldout.select("id", "group", "source", "leaked"), on="id", how="left", maintain_order="left")
    return joined.select("id", "tokens", "group", "source", "length_bin", "leaked", "mask_hash", "bytes")


def _length_bin(prompt_tokens: int) -> str:
    high = max(32, 1 << max(0, prompt_tokens - 1).bit_length())
    return f"{'0000' if high == 32 else format(high // 2 + 1, '04')}-{high:04} prompt tokens"


def main() -> int:
    """The worker: an `EvaluateJob` on standard input."""
    return worker.serve(lambda text, tell: judge(EvaluateJob.model_validate_json(text), tell))


if __name__ == "__main__":
    sys.exit(main())
