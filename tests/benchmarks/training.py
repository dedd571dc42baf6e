# ruff: noqa: E402 - the path comes first
"""Trained tokens per second: ours against a plain SFTTrainer + bitsandbytes script; same rows, model, adapter, batch.

    python tests/benchmarks/training.py [--rows 64] [--model smollm2]

Both train one epoch over the same rows (answers of the standard library's documentation) in 4-bit NF4 with double
quantisation, rank 16 on all linear layers, 8 rows per step. The plain script is TRL's own: prompt/completion rows,
every argument that it does not need left at its default. Counted are completion tokens; loading and tokenising are not
timed. Each runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.stopwatch import timed

MODULES = ["os", "os.path", "json", "re", "random", "statistics", "itertools", "functools", "collections", "pathlib"]
MODULES += ["subprocess", "shutil", "tempfile", "textwrap", "math", "datetime", "argparse", "logging", "inspect", "ast"]
MAX_LENGTH, MAX_WORDS, BATCH, RATE = 256, 90, 8, 3e-4
LORA = {"rank": 16, "alpha": 32, "dropout": 0.05}
TARGET = 1.5


def questions(count: int) -> list[list[dict[str, str]]]:
    """Questions about documented functions, in an order that mixes short and long answers."""
    rows = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, value in sorted(vars(module).items()):
            text = inspect.getdoc(value) if inspect.isroutine(value) and not name.startswith("_") else None
            if text and len(text.split()) >= 4:
                answer = " ".join(text.split()[:MAX_WORDS])
                question = f"What does {module_name}.{name} do in Python?"
                rows.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    step = max(1, len(rows) // count)
    return rows[::step][:count]


def plain(messages: list[list[dict[str, str]]], folder: str) -> dict[str, Any]:
    """The script that TRL's documentation shows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": turns[:-1], "completion": turns[-1:]} for turns in messages])
    trainer = SFTTrainer(
        model=folder,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            num_train_epochs=1,
            learning_rate=RATE,
            max_length=MAX_LENGTH,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=rows,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        peft_config=LoraConfig(
            r=LORA["rank"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], target_modules="all-linear"
        ),
    )
    tokens = sum(sum(label != -100 for label in row["labels"]) for row in trainer.train_dataset)
    run = timed(trainer.train)
    return {"tokens": tokens, "seconds": run.wall, "loss": run.result.training_loss}


def ours(messages: list[list[dict[str, str]]], model: str) -> dict[str, Any]:
    """One arm, as `siftune train` trains it."""
    import polars as pl

    from siftune.curation import schema
    from siftune.curation.recipe.training_sections import Budget, Lora, Model, Training
    from siftune.training import jobs, models, sft

    rows = pl.DataFrame(
        [{"id": f"docs:{number}", "messages": turns} for number, turns in enumerate(messages)],
        schema={"id": pl.String, "messages": pl.List(schema.MESSAGE)},
    )
    folder = Path(tempfile.mkdtemp())
    rows.write_parquet(folder / "rows.parquet")
    training = Training(
        budget=Budget(epochs=1),
        learning_rate=RATE,
        batch_rows=BATCH,
        micro_rows=BATCH,
        max_length=MAX_LENGTH,
        checkpoint_steps=10_000,
        lora=Lora(**LORA),
    )
    job = jobs.TrainJob(
        arm="bench",
        seed=0,
        rows=folder / "rows.parquet",
        folder=folder / "out",
        data=jobs.data_hash(rows, ordered=True),
        model=Model(name=model),
        training=training,
        resolved=models.resolve(model),
    )
    result = sft.train(job, lambda *_: None)
    return {"tokens": result.tokens, "seconds": result.seconds, "loss": result.last_loss}


def measure(contestant: str, rows: int, model: str) -> dict[str, Any]:
    """Run one of the two in a fresh process."""
    command = [sys.executable, __file__, "--rows", str(rows), "--model", model, "--only", contestant]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--only", choices=["plain", "ours"])
    options = parser.parse_args()
    if options.only:
        messages = questions(options.rows)
        if options.only == "ours":
            result = ours(messages, options.model)
        else:
            from siftune.training import models

            result = plain(messages, str(models.resolve(options.model).folder))
        print(json.dumps(result))
        return 0
    speed = {}
    for contestant in ("plain", "ours"):
        result = measure(contestant, options.rows, options.model)
        tokens, seconds = result["tokens"], result["seconds"]
        speed[contestant] = tokens / seconds
        print(f"{contestant:6} {tokens:6} tokens {seconds:7.1f} s  {speed[contestant]:6.1f} tokens/s")
    ratio = speed["ours"] / speed["plain"]
    print(f"ours / plain: {ratio:.2f} (target {TARGET})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
