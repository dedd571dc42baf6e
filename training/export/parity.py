"""How far an exported model is from the adapter it came from: next-token predictions on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.statistics import Floats
from siftune.training.library_output import silence_llamacpp, silence_transformers

_ROWS = 16
_MOST_TOKENS = 256
Logits = Callable[[NDArray[np.int32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Limit:
    """An export passes with at least this top-1 agreement and at most this mean KL divergence (nats a token)."""

    agreement: float
    divergence: float


#: Measured on SmolLM2-135M (agreement, divergence): bf16 97.4 %, 0.0014; Q8_0 95.9 %, 0.0056; Q4_K_M 91.0 %, 0.047.
#: Small models lose more than large ones. Types below 4 bits have the limit of 4 bits.
_FINE, _EIGHT, _COARSE = Limit(0.95, 0.01), Limit(0.93, 0.02), Limit(0.80, 0.20)


def limit_for(quant: str | None) -> Limit:
    """The limit of a llama.cpp type; None is 16 bits."""
    if quant is None or quant.upper() in {"BF16", "F16"}:
        return _FINE
    return _EIGHT if quant.upper() in {"Q8_0", "Q6_K"} else _COARSE


@dataclass(frozen=True)
class Drift:
    """Over `tokens` answer tokens of `rows` held-out rows. `divergence` is the mean KL(adapter ‖ export) in nats.

    `loss` and `adapter_loss` are mean negative log-likelihoods of the reference answers in nats a token.
    """

    rows: int
    tokens: int
    agreement: float
    divergence: float
    loss: float
    adapter_loss: float
    limit: Limit

    @property
    def passed(self) -> bool:
        """Whether both numbers keep the limit; NaN does not."""
        return self.agreement >= self.limit.agreement and self.divergence <= self.limit.divergence

    def __str__(self) -> str:
        return (
            f"Drift {'passed' if self.passed else 'FAILED'}: top-1 agreement {100 * self.agreement:.1f} % (at least "
            f"{100 * self.limit.agreement:.0f} %), mean KL {self.divergence:.4f} nats (at most "
            f"{self.limit.divergence:g}), over {self.tokens:,} tokens of {self.rows} held-out rows; loss "
            f"{self.loss:.4f}, the adapter's {self.adapter_loss:.4f}."
        )


def compare(wanted: NDArray[np.float32], found: NDArray[np.float32], truth: NDArray[np.int32]) -> Floats:
    """Per token: same top-1, KL(wanted ‖ found), loss of found, loss of wanted; (4, tokens) from (tokens, vocabulary).

    A file may pad its vocabulary; only the tokens that both have are compared.
    """
    from scipy.special import log_softmax

    size = min(wanted.shape[1], found.shape[1])
    p, q = (log_softmax(x[:, :size].astype(np.float64), axis=1) for x in (wanted, found))
    places = np.arange(len(truth))
    return np.stack(
        [p.argmax(1) == q.argmax(1), (np.exp(p) * (p - q)).sum(1), -q[places, truth], -p[places, truth]]
    ).astype(np.float64)


def parity_of_merged(run: RunFolder, adapter: Path, merged: Path, *, limit: Limit) -> Drift:
    """Load the saved folder again, as anybody would, and compare."""
    from transformers import AutoModelForCausalLM

    silence_transformers()
    model = AutoModelForCausalLM.from_pretrained(str(merged), dtype="auto", local_files_only=True).eval()
    return _drift(run, adapter, lambda ids: _torch_logits(model, ids), limit=limit)


def parity_of_gguf(run: RunFolder, adapter: Path, file: Path, *, limit: Limit) -> Drift:
    """Feed the same token ids to llama.cpp and compare."""
    import llama_cpp

    silence_llamacpp()
    model = llama_cpp.Llama(str(file), n_ctx=_MOST_TOKENS, logits_all=True, verbose=False)

    def logits(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        model.reset()
        model.eval(ids.tolist())
        return np.array(model.scores[: len(ids)], dtype=np.float32)

    try:
        return _drift(run, adapter, logits, limit=limit)
    finally:
        model.close()


def _drift(run: RunFolder, adapter: Path, found: Logits, *, limit: Limit) -> Drift:
    from peft import PeftModel

    from siftune.training.inference.transformers_engine import load_dense

    base, tokenizer, _ = load_dense(run.recipe.model)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    parts = []
    for ids, trained in _rows(run, tokenizer):
        places = np.flatnonzero(trained[1:])
        truth = ids[1:][places]
        parts.append(compare(_torch_logits(model, ids)[places], found(ids)[places], truth))
    joined = np.concatenate(parts, axis=1)
    agreement, divergence, loss, adapter_loss = (float(mean) for mean in joined.mean(1))
    return Drift(len(parts), joined.shape[1], agreement, divergence, loss, adapter_loss, limit)


def _rows(run: RunFolder, tokenizer: Any) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Token ids and masks of held-out rows, taken evenly from the file."""
    from siftune.training.masks import tokenise

    path = run.path / "heldout" / "test.parquet"
    heldout = pl.read_parquet(path) if path.is_file() else pl.DataFrame()
    if heldout.is_empty():
        raise UserError(f"{run.path} has no held-out rows to check the export on. Add `splits:` and curate again.")
    places = np.unique(np.linspace(0, heldout.height - 1, min(_ROWS, heldout.height)).round().astype(int))
    rows = tokenise(tokenizer, heldout[places.tolist()], max_length=_MOST_TOKENS)
    return iter(zip(rows.ids, rows.trained, strict=True))


def _torch_logits(model: Any, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        out = model(input_ids=torch.tensor(ids[None].astype(np.int64), device=model.device)).logits[0]
    logits: NDArray[np.float32] = out.float().cpu().numpy()
    return logits
