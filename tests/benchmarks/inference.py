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
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from peft import PeftModel

from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths
from siftune.training import models
from siftune.training.export.export import export
from siftune.training.inference.engine import Engine, Message, Request, Sampling
from siftune.training.inference.factory import gguf_exports, trained_arms
from siftune.training.inference.transformers_engine import TransformersEngine, encode_prompt
from tests.stopwatch import timed
from tests.training.random_adapters import write_adapter, write_trained
from tests.training.worlds import write_tiny_run

PROMPT = (Message("user", "Explain the Doppler effect to a twelve-year-old, with one example from everyday life."),)
ARMS = ("raw", "curated")
#: Answers the prompt and returns how many tokens that made.
Contestant = Callable[[], int]


def run_with_random_adapters(folder: Path) -> Path:
    """A run folder over SmolLM2 with two random adapters."""
    run = write_tiny_run(folder / "run", model="smollm2")
    base = models.resolve("smollm2").folder
    write_trained(run, base)
    for number, arm in enumerate(ARMS, start=1):
        write_adapter(RunPaths(run).adapter(arm, 0), base, seed=number, rank=16, scale=0.004)
    return run


def sequential(run: RunFolder, tokens: int) -> Contestant:
    """Two merged models, `generate` one after the other: what one would write without an engine."""
    adapters = trained_arms(run.path)
    merged = {}
    for arm in ARMS:
        base, tokenizer, _ = models.load_dense(run.recipe.model)
        merged[arm] = PeftModel.from_pretrained(base, str(adapters[arm])).merge_and_unload().eval()
    ids = torch.tensor([encode_prompt(tokenizer, PROMPT)])

    def answer() -> int:
        made = 0
        for model in merged.values():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
            )
            made += out.shape[1] - ids.shape[1]
        return made

    return answer


def streamed(engine: Engine, tokens: int, arms: tuple[str, ...] = ARMS) -> Contestant:
    """An engine that answers for the given arms at once."""
    requests = [Request(arm, PROMPT, Sampling(max_new_tokens=tokens)) for arm in arms]

    return lambda: sum(chunk.stats.tokens for chunk in engine.stream(requests) if chunk.stats)


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each contestant in each round, after one round that does not count."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, answer in contestants.items():
            run = timed(answer)
            if round_:
                speeds[name].append(run.result / run.wall)
    return speeds


def ratio(speeds: dict[str, list[float]], name: str, base: str) -> float:
    """How many times as fast as `base` a contestant is: the median over rounds."""
    return statistics.median(one / other for one, other in zip(speeds[name], speeds[base], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from siftune.training.inference.llamacpp_engine import LlamaCppEngine  # needs the extra gguf

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.open(run_with_random_adapters(Path(folder)))
        for arm in ARMS:
            if arm not in gguf_exports(run.path):
                print(export(run.path, arm, to="gguf", quant="Q4_K_M"))
        adapters: Any = {arm: trained_arms(run.path)[arm] for arm in ARMS}
        local = TransformersEngine(run.recipe.model, adapters)
        files = gguf_exports(run.path)
        llama = LlamaCppEngine({arm: files[arm] for arm in ARMS}, threads=torch.get_num_threads())
        contestants = {
            "generate, one after the other": sequential(run, options.tokens),
            "transformers engine, both arms": streamed(local, options.tokens),
            "transformers engine, one arm": streamed(local, options.tokens, ("raw",)),
            "llama.cpp engine, both arms": streamed(llama, options.tokens),
            "llama.cpp engine, one arm": streamed(llama, options.tokens, ("raw",)),
        }
        speeds = measure(contestants, options.rounds)
        print(f"\n{torch.get_num_threads()} threads; adapters {local.choice}; {options.rounds} rounds\n")
        print("| contestant | tokens/s, median | best | × generate |\n|---|---|---|---|")
        base = next(iter(contestants))
        for name, rounds in speeds.items():
            print(f"| {name} | {statistics.median(rounds):.1f} | {max(rounds):.1f} | {ratio(speeds, name, base):.2f} |")
        both_arms = ratio(speeds, "transformers engine, both arms", base)
        llama_cpp = ratio(speeds, "llama.cpp engine, one arm", base)
        print(f"\nboth arms against two calls of generate: {both_arms:.2f} (target 1.8)")
        print(f"llama.cpp against generate: {llama_cpp:.2f} (target 3)")


if __name__ == "__main__":
    main()
