"""A small run with every stage, what counts as its result, and how files are damaged."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from tests.worlds import many, write_recipe, write_source

#: Files whose bytes are the same whenever the same recipe is curated; hidden ones are checksums and locks.
RESULTS = ("*.parquet", "*.jsonl", "*.json")


def write_world(folder: Path, *, rows: int = 60, encoder: str | None = None, **sections: Any) -> Path:
    """A source, a reference and a recipe with every stage; returns the recipe."""
    made = many(rows)
    made[7] = {"instruction": "a row without an answer", "output": None}
    made[8] = {"instruction": "dÃ©jÃ  vu", "output": "the encoding of this prompt is broken, and it is repaired"}
    write_source(made, folder / "s.jsonl")
    write_source(made[10:14], folder / "reference.jsonl")
    semantic = {"semantic": {"threshold": 0.95, "floor": 0.9}} if encoder else {}
    document: dict[str, Any] = {
        "encoder": encoder,
        "duplicates": {
            "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
            "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
            "conflicts": "drop",
            **semantic,
        },
        "contamination": {"references": [{"path": "reference.jsonl", "name": "exam", "format": "alpaca"}]},
        "splits": {"test": 5, "near": 0.6},
        "keys": {"leaks": "prompt"},
        "balance": {},
        "training": {"arms": ["raw", "curated", {"name": "without-near", "without": ["near"]}]},
    }
    return write_recipe(folder, "s.jsonl", **{**document, **sections})


def write_whole_world(folder: Path) -> Path:
    """A recipe for `siftune run`: every stage, two arms and two seeds of the tiny model, a task and prompts."""
    from tests.training.worlds import tiny_recipe, write_tiny_llama

    model = write_tiny_llama(folder / "model")
    colours = ["red", "green", "blue", "white"]
    quiz = [
        {"question": f"What colour has door {n}?", "choices": colours, "answer": n % 4, "subject": f"part {n % 3}"}
        for n in range(12)
    ]
    write_source(quiz, folder / "quiz.jsonl")
    training = {"arms": ["raw", "curated"], "seeds": [0, 1], "budget": {"steps": 4}, "max_length": 400}
    document = tiny_recipe(model, **training)
    compare = {
        **document["compare"],
        "default_prompts": False,
        "prompts": [{"text": "What colour has the door?", "expect": "red"}, {"text": "Name a river."}],
        "tasks": [{"path": "quiz.jsonl"}],
    }
    return write_world(folder, model=document["model"], training=document["training"], compare=compare)


def result(run: Path) -> dict[str, bytes]:
    """The content of every file of a run that does not depend on when and how often it was curated."""
    found = {}
    for pattern in RESULTS:
        for path in run.rglob(pattern):
            if not path.name.startswith(".") and path.name != "manifest.json":
                found[str(path.relative_to(run))] = path.read_bytes()
    found["manifest.json"] = _without_costs(run / "manifest.json")
    assert not list(run.rglob("*.partial")), "a temporary file was left"
    return found


#: Keys and columns of results that say when and how long, or what the machine had free.
_TIMES = {
    *(
        "seconds",
        "minutes",
        "tokens_per_second",
        "memory",
        "peak_mb",
        "first_token_seconds",
        "reused",
        "created",
        "started",
        "finished",
    ),
}


def whole_result(run: Path) -> dict[str, Any]:
    """The content of every result of `siftune run` but times: what was curated, trained, evaluated and answered."""
    files: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if not path.is_file() or path.name.startswith(".") or "checkpoints" in name.parts:
            continue
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path, glob=False)
            files[str(name)] = frame.drop(_TIMES & set(frame.columns)).write_json()
        elif path.suffix == ".json":
            files[str(name)] = _without_times(json.loads(path.read_bytes()))
            if path.name == "adapter_config.json":  # a set to PEFT, which writes it in any order
                files[str(name)]["target_modules"].sort()
        elif path.suffix in {".safetensors", ".jsonl"}:
            files[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert not list(run.rglob("*.partial")), "a temporary file was left"
    return files


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(entry) for key, entry in value.items() if key not in _TIMES}
    return [_without_times(entry) for entry in value] if isinstance(value, list) else value


def _without_costs(path: Path) -> bytes:
    document = json.loads(path.read_text(encoding="utf-8"))
    for stage in document["stages"]:
        for name in ("seconds", "peak_mb", "reused"):
            del stage[name]
    document.pop("recipe_folder")
    return json.dumps(document, sort_keys=True).encode()


def damage(path: Path, *, seed: int = 0) -> None:
    """Flip one bit of one byte of a file."""
    content = bytearray(path.read_bytes())
    draw = random.Random(f"{path.name}:{seed}")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def require_one_sentence(fault: UserError) -> None:
    """What the command line prints after `siftune: ` is one line."""
    assert "\n" not in str(fault)


def curated_or_refused(recipe: Path) -> UserError | None:
    """Curate; returns the sentence where that is refused. Any other exception is a fault of ours."""
    try:
        curate(recipe)
    except UserError as fault:
        require_one_sentence(fault)
        return fault
    return None
