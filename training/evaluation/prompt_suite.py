"""The prompt suite: fixed prompts × arms; the cost of each answer, the weights that gave it, and automatic checks.

Writes prompts/answers.parquet, prompts/prompts.md and prompts/prompts.csv into the run folder. Answers that the same
weights gave to the same prompt are kept, so a suite that was interrupted continues, and one more prompt is asked alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.training_sections import Prompt
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import arm_sort_key
from siftune.training.evaluation.answer_checks import check_answer
from siftune.training.evaluation.memorization import longest_shared_runs
from siftune.training.evaluation.prompt_answers import ANSWERS, read_answers, write_answers
from siftune.training.evaluation.prompt_tables import write_tables
from siftune.training.inference.engine import Engine, EngineKind, Message, Request, Sampling
from siftune.training.inference.factory import adapters_of, open_engine
from siftune.training.result import read_result

_SUITE = Path(__file__).with_name("suite.yaml")


@dataclass(frozen=True)
class SuitePrompt:
    """A prompt with its name in the tables, and whether it was added by hand."""

    prompt: Prompt
    name: str
    added: bool


def default_suite() -> list[Prompt]:
    """The ten prompts that ship with siftune."""
    import yaml

    return [Prompt.model_validate(entry) for entry in yaml.safe_load(_SUITE.read_text(encoding="utf-8"))]


def answer_suite(
    run: RunFolder | Path,
    recipe: Recipe | None = None,
    *,
    engine: Engine | None = None,
    kind: EngineKind = "transformers",
    arms: Sequence[str] | None = None,
    added: Sequence[str] = (),
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Answer the suite with the base and every trained arm; returns ANSWERS, prompts in order, then arms.

    Args:
        run: a run with trained arms.
        recipe: the run's own when None.
        engine: one that is open already, e.g. the app's; else one of `kind` is opened when an answer is missing.
        kind: the engine that is opened.
        arms: only these; all by default.
        added: prompts besides the recipe's, kept with the run.
        sampling: greedy up to the recipe's number of tokens by default.
        progress: called before each prompt.

    Raises:
        UserError: nothing is trained, another process writes to the run, or `open_engine` fails.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    with folder.locked():
        recipe = recipe or folder.recipe
        answers = read_answers(folder)
        prompts = suite_prompts(recipe, answers, added)

        def keep(answers: pl.DataFrame) -> None:
            write_answers(answers, folder)

        answers = answer_prompts(
            folder,
            recipe,
            prompts,
            answers,
            keep=keep,
            engine=engine,
            kind=kind,
            arms=arms,
            sampling=sampling,
            progress=progress,
        )
        answers = _merge(_with_memorization(answers, folder), pl.DataFrame(schema=ANSWERS), prompts)
        write_answers(answers, folder)
        write_tables(answers, folder)
        return answers


def answer_prompts(
    folder: RunFolder,
    recipe: Recipe,
    prompts: Sequence[SuitePrompt],
    answers: pl.DataFrame,
    *,
    keep: Callable[[pl.DataFrame], None],
    engine: Engine | None = None,
    kind: EngineKind = "transformers",
    arms: Sequence[str] | None = None,
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """ANSWERS of the arms to prompts, those in `answers` that the same weights gave among them.

    Args:
        folder, recipe: the run and its recipe.
        prompts: what is asked.
        answers: ANSWERS that are known.
        keep: called with all ANSWERS after each prompt, to store them.
        engine, kind, arms, sampling, progress: see `answer_suite`.

    Raises:
        UserError: nothing is trained, or `open_engine` fails.
    """
    sampling = sampling or Sampling(max_new_tokens=recipe.compare.max_new_tokens)
    with ExitStack() as stack:

        def opened() -> Engine:
            return stack.enter_context(closing(open_engine(folder.path, recipe, kind=kind, arms=arms, fixed=True)))

        # A key for each prompt and arm, which changes with the prompt and with the weights.
        if engine is None and kind != "transformers":
            engine = opened()
        weights = _weights(folder, recipe, engine, arms)
        engine_kind = engine.kind if engine else kind
        keys = {
            (prompt.name, arm): _key(prompt.prompt, sampling, engine_kind, weights[arm])
            for prompt in prompts
            for arm in weights
        }

        # Ask what has no answer under its key; every answer is stored at once.
        answered = set(answers["key"])
        pending = [(prompt, [arm for arm in weights if keys[prompt.name, arm] not in answered]) for prompt in prompts]
        pending = [(prompt, missing) for prompt, missing in pending if missing]
        if pending and engine is None:
            engine = opened()
        for index, (prompt, missing) in enumerate(pending):
            assert engine is not None
            if progress:
                progress(f"answering: {prompt.name}", index, len(pending))
            new = _ask(engine, prompt, {arm: keys[prompt.name, arm] for arm in missing}, sampling)
            answers = _merge(answers, new, prompts)
            keep(answers)
    return answers


def suite_prompts(recipe: Recipe, answers: pl.DataFrame, added: Sequence[str] = ()) -> list[SuitePrompt]:
    """The prompts in order, each text once: the suite, the recipe's, those added before, those added now.

    A prompt is named by its own name or its first six words, and by a number behind it when that name is taken.

    Args:
        recipe: says whether the suite is asked, and which prompts besides.
        answers: ANSWERS, with the prompts that were added before.
        added: texts that are added now.
    """
    written = [*(default_suite() if recipe.compare.default_prompts else []), *recipe.compare.prompts]
    before = answers.filter("added")["text"].unique(maintain_order=True).to_list()
    by_hand = [Prompt(text=text, name=None, max_sentences=None, expect=None, forbid=None) for text in [*before, *added]]
    prompts: dict[str, SuitePrompt] = {}
    names: set[str] = set()
    for index, prompt in enumerate([*written, *by_hand]):
        if prompt.text in prompts:
            continue
        base = prompt.name or " ".join(prompt.text.split()[:6])
        numbered = (f"{base} ({number})" for number in itertools.count(2))
        name = next(name for name in itertools.chain([base], numbered) if name not in names)
        names.add(name)
        prompts[prompt.text] = SuitePrompt(prompt, name, added=index >= len(written))
    return list(prompts.values())


def _weights(run: RunFolder, recipe: Recipe, engine: Engine | None, arms: Sequence[str] | None) -> dict[str, str]:
    """The arms that answer, and what identifies their weights: from the run's files where that is enough.

    A trained adapter is known by its hash, so that a finished suite is recognised without loading a model.
    """
    if engine is not None and engine.kind != "transformers":
        return {arm: f"{arm} {engine.fingerprint(arm)}" for arm in arms or engine.arms}
    base = f"{recipe.model.name}@{recipe.model.revision}, {recipe.model.load}"
    weights = {}
    for arm, adapter in adapters_of(run.path, arms or (engine.arms if engine else None)).items():
        result = read_result(adapter.parent) if adapter else None
        weights[arm] = f"{arm} {base} {result.adapter_hash if result else ''}"
    return weights


def _key(prompt: Prompt, sampling: Sampling, engine: str, weights: str) -> str:
    parts = [prompt.model_dump(), vars(sampling), engine, weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _ask(engine: Engine, prompt: SuitePrompt, keys: dict[str, str], sampling: Sampling) -> pl.DataFrame:
    """ANSWERS to one prompt by the arms of `keys`, at the same time, so that they share the machine equally."""
    requests = [Request(arm, (Message("user", prompt.prompt.text),), sampling) for arm in keys]
    texts, stats = [""] * len(requests), {}
    for chunk in engine.stream(requests):
        texts[chunk.request] += chunk.text
        if chunk.stats is not None:
            stats[chunk.request] = chunk.stats
    rows = []
    for index, (arm, key) in enumerate(keys.items()):
        checks, fingerprint = check_answer(prompt.prompt, texts[index]), engine.fingerprint(arm)
        row: dict[str, Any] = {"prompt": prompt.name, "text": prompt.prompt.text, "arm": arm, "answer": texts[index]}
        row |= {**vars(stats[index]), "tokens_per_second": stats[index].tokens_per_second, "engine": engine.kind}
        row |= {"weights": fingerprint.weights, "logits": fingerprint.logits, "added": prompt.added, "key": key}
        row |= {**vars(checks), "notes": str(checks)}
        rows.append(row)
    return pl.DataFrame(rows, schema=ANSWERS)


def _with_memorization(answers: pl.DataFrame, run: RunFolder) -> pl.DataFrame:
    """`answers` with the shared runs of those that lack them: one pass over the data of each arm, whatever its size."""
    parts = [answers.filter(pl.col("repeated_words").is_not_null())]
    for (arm,), part in answers.filter(pl.col("repeated_words").is_null()).group_by(["arm"], maintain_order=True):
        data = run.arm(arm)
        if data.is_file():
            shared = longest_shared_runs(part["answer"].to_list(), data)
            part = part.with_columns(
                pl.Series("repeated_words", [run_.words for run_ in shared], dtype=pl.Int64),
                pl.Series("repeated_share", [run_.share for run_ in shared], dtype=pl.Float64),
                pl.Series("repeated_text", [run_.text for run_ in shared], dtype=pl.String),
            )
        parts.append(part)
    return pl.concat(parts)


def _merge(answers: pl.DataFrame, new: pl.DataFrame, prompts: Sequence[SuitePrompt]) -> pl.DataFrame:
    """The newest answer of each prompt and arm, in the order of the suite; prompts that left the suite are dropped."""
    prompt_ranks = {prompt.name: rank for rank, prompt in enumerate(prompts)}
    newest = pl.concat([answers, new]).unique(["prompt", "arm"], keep="last", maintain_order=True)
    newest = newest.filter(pl.col("prompt").is_in(list(prompt_ranks)))
    arm_ranks = {arm: rank for rank, arm in enumerate(sorted(newest["arm"].unique(), key=arm_sort_key))}
    return newest.sort(
        pl.col("prompt").replace_strict(prompt_ranks, return_dtype=pl.Int64),
        pl.col("arm").replace_strict(arm_ranks, return_dtype=pl.Int64),
        maintain_order=True,
    )
