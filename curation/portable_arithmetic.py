"""Float sums that are the same on every x86-64 processor with AVX2, whatever else it has and however many threads run.

Libraries choose their code by the processor: the order of a float sum, fused operations and the type (bfloat16) differ,
and so do the last digits of an embedding, a cosine or an estimated chance. With SIFTUNE_PORTABLE=1 in the environment
each library takes the code that all these processors have: MKL its reproducible branch (Intel, "Conditional Numerical
Reproducibility"), which is one only for a fixed number of threads, and PyTorch, oneDNN, OpenBLAS and NumPy that for
AVX2. Embeddings are made in float32 on the CPU and kept apart from others in the cache. docs/same_decisions.md says
what this costs and what differs without it.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from siftune.curation.errors import UserError

#: The environment variable that asks for it: "1", or "0" or nothing.
SWITCH = "SIFTUNE_PORTABLE"
#: What the libraries read when they are imported.
KERNELS = {
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "MKL_DYNAMIC": "FALSE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
_LIBRARIES = ("numpy", "torch")
_PROCESSORS = Path("/proc/cpuinfo")


def is_requested() -> bool:
    """Whether the environment asks for portable arithmetic. Raises `UserError` for a value that is neither 0 nor 1."""
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise UserError(f"{SWITCH} is {value!r}. Accepted: 1 (the same digits on every processor) and 0.")
    return value == "1"


def choose_kernels() -> None:
    """Where it is asked for, set what libraries read when they are imported. Called with `import siftune`."""
    if os.environ.get(SWITCH) == "1" and not any(name in sys.modules for name in _LIBRARIES):
        os.environ.update(KERNELS)


def require() -> None:
    """Raise `UserError` where portable arithmetic is asked for and not to be had."""
    if not is_requested():
        return
    if platform.machine() not in ("x86_64", "AMD64") or "avx2" not in _processor_features():
        raise UserError(
            f"{SWITCH}=1 needs an x86-64 processor with AVX2 under Linux. Unset it: digits are this machine's."
        )
    if any(os.environ.get(name) != value for name, value in KERNELS.items()):
        raise UserError(
            f"{SWITCH}=1 came too late: numpy was there before. Set it before Python starts, or import siftune first."
        )


def _processor_features() -> list[str]:
    text = _PROCESSORS.read_text(encoding="utf-8", errors="replace") if _PROCESSORS.exists() else ""
    return next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
