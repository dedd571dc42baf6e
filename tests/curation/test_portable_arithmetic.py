"""Digits that every processor gives alike: which kernels are asked for, and what is said where they cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from siftune.curation import portable_arithmetic
from siftune.curation.errors import UserError

EMBED = """
import hashlib, siftune
from siftune.curation.embeddings.store import load

encoder = load("auto")
texts = [" ".join(f"The row number {row} is kept." for row in range(count)) for count in range(1, 40)]
print(encoder.name, hashlib.sha256(encoder.encode(texts).tobytes()).hexdigest())
"""


def embeddings(**variables: str) -> list[str]:
    """The encoder's name and a hash of embeddings, made in a process of its own."""
    command = [sys.executable, "-c", EMBED]
    process = subprocess.run(command, env=os.environ | variables, check=True, capture_output=True, text=True)
    return process.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="portable arithmetic is for Linux")
def test_embeddings_do_not_depend_on_the_number_of_threads() -> None:
    pytest.importorskip("sentence_transformers")
    if "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("portable arithmetic needs AVX2")
    by_threads = [embeddings(SIFTUNE_PORTABLE="1", OMP_NUM_THREADS=threads) for threads in ("1", "5")]
    assert by_threads[0] == by_threads[1]
    assert "-portable-" in by_threads[0][0]


def test_kernels_are_set_before_libraries_are_imported_and_only_when_asked_for() -> None:
    script = "import os, siftune; print(os.environ.get('MKL_CBWR'), 'numpy' in __import__('sys').modules)"
    for value, expected in (("1", "COMPATIBLE False"), ("0", "None False"), ("", "None False")):
        environment = os.environ | {"SIFTUNE_PORTABLE": value}
        environment.pop("MKL_CBWR", None)
        command = [sys.executable, "-c", script]
        assert (
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()
            == expected
        )


def test_too_late_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIFTUNE_PORTABLE", "1")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(portable_arithmetic, "_processor_features", lambda: ["flags", ":", "avx2"])
    with pytest.raises(UserError, match=r"numpy was there before.*Set it before Python starts"):
        portable_arithmetic.require()
    for name, value in portable_arithmetic.KERNELS.items():
        monkeypatch.setenv(name, value)
    portable_arithmetic.require()


def test_a_processor_without_avx2_and_another_value_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse4_2\n", encoding="utf-8")
    monkeypatch.setattr(portable_arithmetic, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setenv("SIFTUNE_PORTABLE", "1")
    with pytest.raises(UserError, match="needs an x86-64 processor with AVX2"):
        portable_arithmetic.require()
    monkeypatch.setenv("SIFTUNE_PORTABLE", "yes")
    with pytest.raises(UserError, match=r"SIFTUNE_PORTABLE is 'yes'\. Accepted: 1 .* and 0\."):
        portable_arithmetic.require()
    monkeypatch.delenv("SIFTUNE_PORTABLE")
    portable_arithmetic.require()
