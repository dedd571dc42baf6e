# ruff: noqa: E402 - the path comes first
"""Answers of two arms: one engine for both, two `generate` calls one after the other, and llama.cpp.

    python tests/benchmarks/inference.py [--tokens 64] [--rounds 5]

Rounds of all contestants alternate, so that whatever else the machine does hits all alike; ratios are medians over
rounds; all use as many threads as torch (OMP_NUM_THREADS). The arms are two random rank-16 adapters of SmolLM2: speed
does not depend on what they learnt, and none ends its answer early and leaves the other alone.
Targets: both arms at once ≥ 1.8 × two calls of `generate`; llama.cpp (Q4_K_M) ≥ 3 × `generate`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch
from peft import PeftModel

from siftune.curation.run.folder import RunFolder
from siftune.training import models
from siftune.training.export.export import export
from siftune.training.inference.engine import Engine, Message, Request, Sampling
from siftune.training.inference.factory import exported, trained_arms
from siftune.training.inference.llamacpp_engine import LlamaCppEngine
from siftune.training.inference.transformers_engine import TransformersEngine, encode, load_dense
from tests.training.random_adapters import write_adapter, write_trained
from tests.training.worlds import write_tiny_run

PROMPT = (Message("user", "Explain the Doppler effect to a twelve-year-old, with one example from everyday life."),)
ARMS = ("raw", "curated")
Contestant = Callable[[], tuple[int, float]]


def made_run(folder: Path) -> Path:
    """A run folder over SmolLM2 with two random adapters."""
    run = write_tiny_run(folder / "run", model="smollm2")
    base = models.resolve("smollm2").folder
    write_trained(run, base)
    for place, arm in enumerate(ARMS):
        write_adapter(run / "training" / arm / "seed-0" / "adapter", base, seed=place + 1, rank=16, scale=0.004)
    return run


def sequential(run: RunFolder, tokens: int) -> Contestant:
    """Two merged models, `generate` one after the other: what one would write without an engine."""
    adapters = trained_arms(run.path)
    merged = {}
    for arm in ARMS:
        base, tokenizer, _ = load_dense(run.recipe.model)
        merged[arm] = PeftModel.from_pretrained(base, str(adapters[arm])).merge_and_unload().eval()
    ids = torch.tensor([encode(tokenizer, PROMPT)])

    def ask() -> tuple[int, float]:
        made, start = 0, time.perf_counter()
        for model in merged.values():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
            )
            made += out.shape[1] - ids.shape[1]
        return made, time.perf_counter() - start

    return ask


def streamed(engine: Engine, tokens: int, arms: tuple[str, ...] = ARMS) -> Contestant:
    """An engine that answers for the given arms at once."""
    requests = [Request(arm, PROMPT, Sampling(max_new_tokens=tokens)) for arm in arms]

    def ask() -> tuple[int, float]:
        start = time.perf_counter()
        made = sum(chunk.stats.tokens for chunk in engine.stream(requests) if chunk.stats)
        return made, time.perf_counter() - start

    return ask


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each contestant in each round, after one round that does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, ask in contestants.items():
            made, seconds = ask()
            if round_:
                speeds[name].append(made / seconds)
    return speeds


def ratio(speeds: dict[str, list[float]], name: str, to: str) -> float:
    return statistics.median(a / b for a, b in zip(speeds[name], speeds[to], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.open(made_run(Path(folder)))
        for arm in ARMS:
            if arm not in exported(run.path):
                print(export(run.path, arm, to="gguf", quant="Q4_K_M"))
        adapters: Any = {arm: trained_arms(run.path)[arm] for arm in ARMS}
        local = TransformersEngine(run.recipe.model, adapters)
        files = exported(run.path)
        llama = LlamaCppEngine({arm: files[arm] for arm in ARMS}, threads=torch.get_num_threads())
        contestants = {
            "generate, one after the other": sequential(run, asked.tokens),
            "transformers engine, both arms": streamed(local, asked.tokens),
            "transformers engine, one arm": streamed(local, asked.tokens, ("raw",)),
            "llama.cpp engine, both arms": streamed(llama, asked.tokens),
            "llama.cpp engine, one arm": streamed(llama, asked.tokens, ("raw",)),
        }
        speeds = measure(contestants, asked.rounds)
        print(f"\n{torch.get_num_threads()} threads; adapters {local.choice}; {asked.rounds} rounds\n")
        print("| contestant | tokens/s, median | best | × generate |\n|---|---|---|---|")
        base = next(iter(contestants))
        for name, each in speeds.items():
            print(f"| {name} | {statistics.median(each):.1f} | {max(each):.1f} | {ratio(speeds, name, base):.2f} |")
        both = ratio(speeds, "transformers engine, both arms", base)
        fast = ratio(speeds, "llama.cpp engine, one arm", base)
        print(f"\nboth arms against two calls of generate: {both:.2f} (target 1.8)")
        print(f"llama.cpp against generate: {fast:.2f} (target 3)")


if __name__ == "__main__":
    main()
