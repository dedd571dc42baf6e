"""How close an exported model is to the adapter it came from: next-token predictions on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.checksums import whole
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training import models
from siftune.training.evaluation.statistics import Floats
from siftune.training.library_output import silence_llamacpp, silence_transformers
from siftune.training.masks import tokenise

ExportForm = Literal["merged", "gguf"]
#: Token ids, int32 (tokens,), to the logits after each of them, float32 (tokens, vocabulary).
LogitFunction = Callable[[NDArray[np.int32]], NDArray[np.float32]]

#: Held-out rows that are compared, and their greatest length in tokens.
_ROWS = 16
_MAX_TOKENS = 256


@dataclass(frozen=True)
class ParityLimits:
    """An export passes with at least this top-1 agreement (a share) and at most this mean KL divergence (nats)."""

    agreement: float
    divergence: float


#: Measured on SmolLM2-135M (agreement, divergence): bf16 97.4 %, 0.0014; Q8_0 95.9 %, 0.0056; Q4_K_M 91.0 %, 0.047.
#: Small models lose more than large ones. Types below 4 bits have the limits of 4 bits.
_LIMITS_16_BITS = ParityLimits(0.95, 0.01)
_LIMITS_8_BITS = ParityLimits(0.93, 0.02)
_LIMITS_4_BITS = ParityLimits(0.80, 0.20)


def parity_limits(quant: str | None) -> ParityLimits:
    """The limits of a llama.cpp type; None is 16 bits."""
    if quant is None or quant.upper() in {"BF16", "F16"}:
        return _LIMITS_16_BITS
    return _LIMITS_8_BITS if quant.upper() in {"Q8_0", "Q6_K"} else _LIMITS_4_BITS


@dataclass(frozen=True)
class Parity:
    """How close an export is to its adapter, over the answer tokens of held-out rows."""

    rows: int
    tokens: int
    #: Share of tokens for which both predict the same token.
    agreement: float
    #: Mean KL(adapter ‖ export) in nats per token.
    divergence: float
    #: Mean negative log-likelihood of the reference answers in nats per token, of the export and of the adapter.
    loss: float
    adapter_loss: float
    limits: ParityLimits

    @property
    def passed(self) -> bool:
        """Whether both numbers are within their limits; NaN is not."""
        return self.agreement >= self.limits.agreement and self.divergence <= self.limits.divergence

    def __str__(self) -> str:
        return (
            f"Parity check {'passed' if self.passed else 'FAILED'}: top-1 agreement {100 * self.agreement:.1f} % (at "
            f"least {100 * self.limits.agreement:.0f} %), mean KL {self.divergence:.4f} nats (at most "
            f"{self.limits.divergence:g}), over {self.tokens:,} tokens of {self.rows} held-out rows; loss "
            f"{self.loss:.4f}, the adapter's is {self.adapter_loss:.4f}."
        )


@dataclass(frozen=True)
class ExportRecord:
    """What was exported, where to, and how close it is to the adapter."""

    arm: str
    seed: int
    form: ExportForm
    #: The llama.cpp type; None is 16 bits.
    quant: str | None
    path: Path
    parity: Parity

    def __str__(self) -> str:
        return f"Wrote {self.path}\n{self.parity}"


def compare_logits(adapter: NDArray[np.float32], export: NDArray[np.float32], next_tokens: NDArray[np.int32]) -> Floats:
    """Compare the predictions of an adapter and its export, token by token.

    A file may pad its vocabulary; only the tokens that both have are compared.

    Args:
        adapter: Logits of the adapter, (tokens, vocabulary).
        export: Logits of the export, (tokens, its vocabulary).
        next_tokens: The token that follows in the reference answer, (tokens,).

    Returns:
        float64 (4, tokens): 1 where both predict the same token; KL(adapter ‖ export) in nats; the loss of the
        export; the loss of the adapter.
    """
    from scipy.special import log_softmax

    size = min(adapter.shape[1], export.shape[1])
    p, q = (log_softmax(logits[:, :size].astype(np.float64), axis=1) for logits in (adapter, export))
    index = np.arange(len(next_tokens))
    return np.stack(
        [
            p.argmax(1) == q.argmax(1),
            (np.exp(p) * (p - q)).sum(1),
            -q[index, next_tokens],
            -p[index, next_tokens],
        ]
    ).astype(np.float64)


def parity_of_merged(run: RunFolder, adapter: Path, merged: Path, *, limits: ParityLimits) -> Parity:
    """Load the saved folder again, as anybody would, and compare.

    Args:
        run: The run that the arm belongs to.
        adapter: The folder of the trained adapter.
        merged: The exported folder.
        limits: The limits of the check.
    """
    from transformers import AutoModelForCausalLM

    silence_transformers()
    model = AutoModelForCausalLM.from_pretrained(str(merged), dtype="auto", local_files_only=True).eval()
    return measure_parity(run, adapter, lambda ids: _torch_logits(model, ids), limits=limits)


def parity_of_gguf(run: RunFolder, adapter: Path, file: Path, *, limits: ParityLimits) -> Parity:
    """Feed the same token ids to llama.cpp and compare.

    Args:
        run: The run that the arm belongs to.
        adapter: The folder of the trained adapter.
        file: The exported GGUF file.
        limits: The limits of the check.
    """
    import llama_cpp

    silence_llamacpp()
    model = llama_cpp.Llama(str(file), n_ctx=_MAX_TOKENS, logits_all=True, verbose=False)

    def logits(ids: NDArray[np.int32]) -> NDArray[np.float32]:
        model.reset()
        model.eval(ids.tolist())
        return np.array(model.scores[: len(ids)], dtype=np.float32)

    try:
        return measure_parity(run, adapter, logits, limits=limits)
    finally:
        model.close()


def measure_parity(run: RunFolder, adapter: Path, export: LogitFunction, *, limits: ParityLimits) -> Parity:
    """Compare an export with the adapter on held-out rows of the run.

    Args:
        run: The run that the arm belongs to.
        adapter: The folder of the trained adapter.
        export: Computes the export's logits.
        limits: The limits of the check.

    Raises:
        UserError: the run has no held-out rows.
    """
    from peft import PeftModel

    base, tokenizer, _ = models.load_dense(run.recipe.model)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    row_comparisons = []
    for ids, trained in _heldout_tokens(run, tokenizer):
        # Logits at one position predict the token at the next.
        positions = np.flatnonzero(trained[1:])
        adapter_logits, export_logits = _torch_logits(model, ids)[positions], export(ids)[positions]
        row_comparisons.append(compare_logits(adapter_logits, export_logits, ids[1:][positions]))
    by_token = np.concatenate(row_comparisons, axis=1)
    agreement, divergence, loss, adapter_loss = (float(mean) for mean in by_token.mean(1))
    return Parity(len(row_comparisons), by_token.shape[1], agreement, divergence, loss, adapter_loss, limits)


def _heldout_tokens(run: RunFolder, tokenizer: Any) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Token ids and completion masks of held-out rows, taken evenly from the file."""
    path = run.heldout("test")
    heldout = pl.read_parquet(whole(path), glob=False) if path.is_file() else pl.DataFrame()
    if heldout.is_empty():
        raise UserError(f"{run.path} has no held-out rows to check the export on. Add `splits:` and curate again.")
    indices = np.unique(np.linspace(0, heldout.height - 1, min(_ROWS, heldout.height)).round().astype(int))
    rows = tokenise(tokenizer, heldout[indices.tolist()], max_length=_MAX_TOKENS, system=run.recipe.model.system)
    return iter(zip(rows.ids, rows.trained, strict=True))


def _torch_logits(model: Any, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        output = model(input_ids=torch.tensor(ids[None].astype(np.int64), device=model.device)).logits[0]
    logits: NDArray[np.float32] = output.float().cpu().numpy()
    return logits
