"""The prompt suite: fixed prompts × arms; what each answer cost, which weights gave it, what a machine can check.

Writes prompts/answers.parquet, prompts/prompts.md and prompts/prompts.csv into the run folder. Answers that the same
weights gave to the same prompt are kept, so a suite that was interrupted continues, and one more prompt is asked alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.atomic_files import write_parquet
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Prompt, Recipe
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import arm_sort_key
from siftune.training.evaluation.answer_checks import check
from siftune.training.evaluation.memorization import repeated
from siftune.training.inference.engine import Engine, Kind, Message, Request, Sampling, Stats
from siftune.training.inference.factory import adapters_of, open_engine

#: One row an arm and prompt. `key` names what was asked of which weights; `added` prompts came by hand and stay.
ANSWERS = pl.Schema(
    {
        "prompt": pl.String,
        "text": pl.String,
        "arm": pl.String,
        "answer": pl.String,
        "seconds": pl.Float64,
        "tokens": pl.Int64,
        "tokens_per_second": pl.Float64,
        "first_token_seconds": pl.Float64,
        "prompt_tokens": pl.Int64,
        "stopped": pl.String,
        "weights": pl.String,
        "logits": pl.String,
        "engine": pl.String,
        "sentences": pl.Int64,
        "sentences_kept": pl.Boolean,
        "expected_found": pl.Boolean,
        "forbidden_found": pl.Boolean,
        "notes": pl.String,
        "repeated_words": pl.Int64,
        "repeated_share": pl.Float64,
        "repeated_text": pl.String,
        "added": pl.Boolean,
        "key": pl.String,
    }
)
_SUITE = Path(__file__).with_name("suite.yaml")


@dataclass(frozen=True)
class Asked:
    """A prompt with its name, and whether it was added by hand."""

    prompt: Prompt
    name: str
    added: bool


def default_suite() -> list[Prompt]:
    """The ten prompts that ship with siftune."""
    import yaml

    return [Prompt.model_validate(entry) for entry in yaml.safe_load(_SUITE.read_text(encoding="utf-8"))]


def answer(
    run: Path,
    recipe: Recipe | None = None,
    *,
    engine: Engine | None = None,
    kind: Kind = "transformers",
    arms: Sequence[str] | None = None,
    added: Sequence[str] = (),
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Answer the suite with the base and every trained arm; returns ANSWERS, prompts in order, then arms.

    Args:
        recipe: the run's own when None.
        engine: one that is open already, e.g. the app's; else one of `kind` is opened when something is to be answered.
        arms: only these; all by default.
        added: prompts besides the recipe's, kept with the run.
        sampling: greedy up to the recipe's number of tokens by default.

    Raises:
        UserError: nothing is trained, or what `open_engine` objects to.
    """
    folder = RunFolder.open(run)
    recipe = recipe or folder.recipe
    sampling = sampling or Sampling(max_new_tokens=recipe.compare.max_new_tokens)
    with ExitStack() as stack:

        def opened() -> Engine:
            return stack.enter_context(closing(open_engine(folder.path, recipe, kind=kind, arms=arms)))

        if engine is None and kind != "transformers":
            engine = opened()
        weights = _weights(folder.path, recipe, engine, arms)
        known = read_answers(folder.path)
        asked = list(_asked(recipe, known, added))
        label = engine.kind if engine else kind
        keys = {(one.name, arm): _key(one.prompt, sampling, label, weights[arm]) for one in asked for arm in weights}
        done = set(known["key"].to_list())
        todo = [(one, [arm for arm in weights if keys[one.name, arm] not in done]) for one in asked]
        todo = [(one, missing) for one, missing in todo if missing]
        if todo and engine is None:
            engine = opened()
        for place, (one, missing) in enumerate(todo):
            assert engine is not None
            if progress:
                progress(f"asking: {one.name}", place, len(todo))
            rows = _ask(engine, one, missing, sampling, keys)
            known = _merged(known, rows, asked)
            write_parquet(known, folder.path / "prompts" / "answers.parquet")
    known = _merged(_with_repeated(known, folder.path), [], asked)
    _write(known, folder.path)
    return known


def read_answers(run: Path) -> pl.DataFrame:
    """ANSWERS of a run; empty when the suite was not asked."""
    path = run / "prompts" / "answers.parquet"
    if not path.is_file():
        return pl.DataFrame(schema=ANSWERS)
    return pl.read_parquet(path)


def _asked(recipe: Recipe, known: pl.DataFrame, added: Sequence[str]) -> Iterator[Asked]:
    """The prompts in order, each text once: the suite, the recipe's, those added before, those added now."""
    suite = [*(default_suite() if recipe.compare.default_prompts else []), *recipe.compare.prompts]
    before = known.filter("added").select("text").unique(maintain_order=True)["text"].to_list()
    by_hand = [Prompt(text=text, name=None, max_sentences=None, expect=None, forbid=None) for text in [*before, *added]]
    names: set[str] = set()
    texts: set[str] = set()
    for place, prompt in enumerate([*suite, *by_hand]):
        if prompt.text in texts:
            continue
        wanted = prompt.name or " ".join(prompt.text.split()[:6])
        name = next(each for each in _numbered(wanted) if each not in names)
        names.add(name)
        texts.add(prompt.text)
        yield Asked(prompt, name, place >= len(suite))


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1


def _weights(run: Path, recipe: Recipe, engine: Engine | None, arms: Sequence[str] | None) -> dict[str, str]:
    """The arms that answer, and what tells their weights apart: known from the run's files where that is enough.

    A trained adapter is known by its hash, so that a finished suite is recognised without loading a model.
    """
    if engine is not None and engine.kind != "transformers":
        return {arm: f"{arm} {engine.fingerprint(arm)}" for arm in arms or engine.arms}
    base = f"{recipe.model.name}@{recipe.model.revision}, {recipe.model.load}"
    found = {}
    for arm, adapter in adapters_of(run, arms or (engine.arms if engine else None)).items():
        done = json.loads((adapter.parent / "done.json").read_text(encoding="utf-8")) if adapter else {}
        found[arm] = f"{arm} {base} {done.get('adapter_hash', '')}"
    return found


def _key(prompt: Prompt, sampling: Sampling, engine: str, weights: str) -> str:
    parts = [prompt.model_dump(), vars(sampling), engine, weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _ask(
    engine: Engine,
    one: Asked,
    arms: Sequence[str],
    sampling: Sampling,
    keys: Mapping[tuple[str, str], str],
) -> list[dict[str, Any]]:
    """One prompt to several arms at the same time, so that all of them share the machine alike."""
    requests = [Request(arm, (Message("user", one.prompt.text),), sampling) for arm in arms]
    texts, stats = _collect(engine, requests)
    rows = []
    for arm, text, cost in zip(arms, texts, stats, strict=True):
        notes, print_ = check(one.prompt, text), engine.fingerprint(arm)
        row = {"prompt": one.name, "text": one.prompt.text, "arm": arm, "answer": text, "added": one.added}
        row |= {**vars(cost), "tokens_per_second": cost.tokens_per_second, "engine": engine.kind}
        row |= {"weights": print_.weights, "logits": print_.logits, "key": keys[one.name, arm]}
        row |= {**vars(notes), "notes": str(notes)}
        rows.append(row)
    return rows


def _collect(engine: Engine, requests: Sequence[Request]) -> tuple[list[str], list[Stats]]:
    texts, stats = [""] * len(requests), {}
    for chunk in engine.stream(requests):
        texts[chunk.request] += chunk.text
        if chunk.stats is not None:
            stats[chunk.request] = chunk.stats
    return texts, [stats[place] for place in range(len(requests))]


def _with_repeated(known: pl.DataFrame, run: Path) -> pl.DataFrame:
    """`known` with the repeated text of answers that lack it: one pass over the data of each arm, whatever its size."""
    parts = [known.filter(pl.col("repeated_words").is_not_null())]
    for (arm,), part in known.filter(pl.col("repeated_words").is_null()).group_by(["arm"], maintain_order=True):
        data = run / "arms" / f"{arm}.parquet"
        if data.is_file():
            found = repeated(part["answer"].to_list(), data)
            part = part.with_columns(
                pl.Series("repeated_words", [one.words for one in found], dtype=pl.Int64),
                pl.Series("repeated_share", [one.share for one in found], dtype=pl.Float64),
                pl.Series("repeated_text", [one.text for one in found], dtype=pl.String),
            )
        parts.append(part)
    return pl.concat(parts)


def _merged(known: pl.DataFrame, rows: Sequence[Mapping[str, Any]], asked: Iterable[Asked]) -> pl.DataFrame:
    """The newest answer of each prompt and arm, in the order of the suite; prompts that left the suite are gone."""
    order = {one.name: place for place, one in enumerate(asked)}
    new = pl.DataFrame(list(rows), schema=ANSWERS)
    both = pl.concat([known, new]).unique(["prompt", "arm"], keep="last", maintain_order=True)
    both = both.filter(pl.col("prompt").is_in(list(order)))
    place = pl.col("prompt").replace_strict(order, return_dtype=pl.Int64)
    arms = pl.col("arm").replace_strict(_arm_places(both), return_dtype=pl.Int64)
    return both.sort(place, arms, maintain_order=True)


def _arm_places(frame: pl.DataFrame) -> dict[str, int]:
    return {arm: place for place, arm in enumerate(sorted(frame["arm"].unique(), key=arm_sort_key))}


def _write(answers: pl.DataFrame, run: Path) -> None:
    from siftune.training.evaluation.prompt_tables import write_tables

    write_parquet(answers, run / "prompts" / "answers.parquet")
    write_tables(answers, run / "prompts")
