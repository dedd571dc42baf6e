"""Tiny worlds: a tokenizer trained here, a two-layer Llama from a config, toy rows, a run folder that trains at once.

The chat templates are data: what the hub's checkpoints of that family carry, without their tool-calling branches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from siftune.curation import schema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from siftune.training.result import TrainingResult

CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LLAMA32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

TEMPLATES = {"chatml": CHATML, "smollm2": SMOLLM2, "llama-3.2": LLAMA32}
END_OF_TURN = {"chatml": "<|im_end|>", "smollm2": "<|im_end|>", "llama-3.2": "<|eot_id|>"}
_SPECIAL = {
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "smollm2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama-3.2": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}

COLOURS = ["red", "green", "blue", "white", "black", "grey", "pink", "gold"]
THINGS = ["apple", "bridge", "candle", "door", "engine", "flower", "garden", "hammer", "island", "jacket"]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def toy_messages(number: int) -> list[dict[str, str]]:
    """A question and answer that a two-layer model can learn; answers are of uneven length."""
    thing, colour = THINGS[number % len(THINGS)], COLOURS[(number // len(THINGS)) % len(COLOURS)]
    more = f" It was painted by hand in {colour} number {number}." * (number % 4)
    return [
        message("user", f"What colour has {thing} {number}?"),
        message("assistant", f"The {thing} {number} is {colour}.{more}"),
    ]


def arm_frame(messages: Sequence[list[dict[str, str]]], *, prefix: str = "toy", start: int = 0) -> pl.DataFrame:
    """Rows of the ARM columns with ids `prefix:start`, `prefix:start+1`, …; every row is a group of its own."""
    rows = [
        {
            "id": f"{prefix}:{start + index}",
            "source": prefix,
            "messages": turns,
            "meta": "{}",
            "why": "kept",
            "group": start + index,
        }
        for index, turns in enumerate(messages)
    ]
    return pl.DataFrame(rows, schema=schema.ARM)


def heldout_frame(count: int, *, start: int = 1000) -> pl.DataFrame:
    """Rows of the HELDOUT columns; every third row is marked as leaked."""
    frame = arm_frame([toy_messages(start + index) for index in range(count)], start=start)
    leaked = pl.Series("leaked", [index % 3 == 0 for index in range(count)])
    return schema.conform(frame.with_columns(pl.lit("test").alias("split"), leaked), schema.HELDOUT)


def tiny_tokenizer(template: str = "smollm2", *, vocabulary: int = 384) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the toy rows, with the special tokens and chat template of a family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = _SPECIAL[template]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [turn["content"] for number in range(200) for turn in toy_messages(number)]
    tokenizer.train_from_iterator([*texts, "system user assistant You are a helpful AI assistant"], trainer)
    end = END_OF_TURN[template]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=end,
        pad_token=special[1] if "3.2" in template else end,
    )
    fast.chat_template = TEMPLATES[template]
    return fast


def write_tiny_llama(folder: Path, *, template: str = "smollm2", seed: int = 0, layers: int = 2) -> Path:
    """Save a random Llama (64 wide, sizes that NF4 blocks divide) and its tokenizer as a hub checkpoint would be."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    # Embeddings large enough for confident predictions: with the usual 0.02 no adapter could bring the loss below 5.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def training_result(**changes: Any) -> TrainingResult:
    """A plausible result of a training run that never was; `changes` replaces fields."""
    from siftune.training.result import TrainingResult

    document = {
        "key": "k",
        "arm": "raw",
        "seed": 0,
        "data": "d" * 64,
        "model": {"name": "tiny", "identity": "i" * 64, "origin": "a folder"},
        "load": {"load": "nf4", "device": "cpu", "compute": "bfloat16", "why": "the recipe says nf4"},
        "budget": {"steps": 10},
        "steps": 10,
        "tokens": 1000,
        "rows": 40,
        "epochs": 1.6667,
        "seconds": 60.0,
        "minutes": 1.0,
        "truncated_rows": 0,
        "arm_rows": 24,
        "arm_tokens": 800,
        "planned": {"steps": 10, "tokens": 1000},
        "tokens_per_second": 16.67,
        "last_loss": 1.5,
        "memory": {
            "weights": 100,
            "adapter": 10,
            "activations": 50,
            "free": 8000,
            "total": 860,
            "unit": "MiB",
            "checkpointing": False,
        },
        "threads": 1,
        "versions": {"python": "3.11"},
        "adapter_hash": "a" * 64,
    }
    return TrainingResult.model_validate(document | changes)


def tiny_recipe(model: Path | str, **training: Any) -> dict[str, Any]:
    """A recipe document for the tiny model; `training` replaces fields of that section."""
    section = {
        "arms": ["raw", "curated", "random"],
        "budget": {"steps": 6},
        "seeds": [0],
        "learning_rate": 3e-3,
        "batch_rows": 4,
        "micro_rows": 2,
        "max_length": 128,
        "checkpoint_steps": 2,
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
    }
    return {
        "name": "tiny",
        "sources": [{"path": "toy.jsonl"}],
        "splits": {"test": 9},
        "model": {"name": str(model), "load": "nf4"},
        "training": {**section, **training},
        "compare": {"bootstrap": 1000, "permutations": 1000, "max_new_tokens": 8},
    }


def write_tiny_run(folder: Path, *, model: Path | str, **training: Any) -> Path:
    """A run folder as curation leaves it: recipe, manifest, arms raw / curated / random, and a clean held-out set."""
    (folder / "arms").mkdir(parents=True)
    (folder / "heldout").mkdir()
    raw = arm_frame([toy_messages(number) for number in range(24)])
    curated = raw.filter(pl.col("group") % 2 == 0)
    arms = {"raw": raw, "curated": curated, "random": raw.filter(pl.col("group") < curated.height)}
    for name, frame in arms.items():
        frame.write_parquet(folder / "arms" / f"{name}.parquet")
    heldout_frame(9).write_parquet(folder / "heldout" / "test.parquet")
    schema.empty(schema.LEDGER).write_parquet(folder / "ledger.parquet")
    recipe = yaml.safe_dump(tiny_recipe(model, **training))
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    manifest = {"siftune": {"format": 1}, "recipe_name": "tiny", "recipe": recipe, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
