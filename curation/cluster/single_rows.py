"""What looks at each row by itself: checks, and the comparison with benchmarks."""

from __future__ import annotations

import copy
import io
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.cluster.parts import Parts, part_corpus
from siftune.curation.cluster.tasks import Result
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.decontamination.matches import LAYERED_VERSION, WordMatches
from siftune.curation.measurement import TEXT_COLUMNS
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Checks, Rule
from siftune.curation.row_checks.checks import findings
from siftune.curation.row_checks.personal_data import detector_versions, kinds_with


def row_findings(
    parts: Parts, rows: NDArray[np.uint32], settings: Checks, *, progress: Progress | None = None
) -> pl.DataFrame:
    """FINDINGS of the checks of a recipe, in the order of the rows.

    Args:
        parts: the run.
        rows: ascending positions of the rows that are checked.
        settings: the recipe's checks.
        progress: called as tasks end.
    """
    kinds = kinds_with(settings, "report", "drop")  # says what is not installed before anything is checked
    on = {"checks": settings.model_dump(), "detectors": detector_versions(kinds)}
    checking = parts.of_rows("checks", check_rows, rows, on)
    parts.done(checking, title="checking rows", progress=progress)
    frames = [schema.empty(schema.FINDINGS)]
    for task in checking:
        with parts.folder.reading(f"{task.name}.parquet") as path:
            frames.append(pl.read_parquet(path, glob=False))
    return pl.concat(frames, rechunk=False)


def check_rows(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,  # noqa: ARG001 - every task over a part has it
    checks: dict[str, Any],
    detectors: dict[str, str],  # noqa: ARG001 - the result depends on it
    rows: NDArray[np.uint32],
) -> Result:
    """`.parquet`: FINDINGS of a part's rows.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        checks: the recipe's section.
        detectors: versions of what finds personal data.
        rows: the rows of the part, ascending.
    """
    settings = Checks.model_validate(checks)
    with part_corpus(folder, examples, texts) as corpus:
        frames = [findings(frame, settings) for frame in corpus.frames(TEXT_COLUMNS, rows)]
    with folder.writing(f"{name}.parquet") as path:
        pl.concat([schema.empty(schema.FINDINGS), *frames]).write_parquet(path)
    return {}


def item_matches(
    parts: Parts,
    alive: pl.DataFrame,
    items: pl.DataFrame,
    *,
    rules: list[Rule],
    token_ratios: dict[str, float],
    progress: Progress | None = None,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """MATCHES of rows with benchmark items by words, and the notes of the published rules.

    Args:
        parts: the run.
        alive: INDEX of the rows that are compared.
        items: REFERENCE.
        rules: the rules.
        token_ratios: as in the recipe.
        progress: called as tasks end.
    """
    search = WordMatches(items, rules=rules, token_ratios=token_ratios)
    buffer = io.BytesIO()
    items.write_parquet(buffer)
    stored = f"items/{xxhash.xxh3_128_hexdigest(buffer.getvalue())}.parquet"
    with parts.folder.writing(stored) as path:
        path.write_bytes(buffer.getvalue())
    on = {"items": stored, "rules": rules, "token_ratios": token_ratios, "version": LAYERED_VERSION}
    searching = parts.of_rows("matches", search_items, alive["row"].to_numpy(), on)
    results = parts.done(searching, title="searching runs", progress=progress)
    for task, result in zip(searching, results, strict=True):
        frames = []
        for number in range(result["frames"]):
            with parts.folder.reading(f"{task.name}-{number}.parquet") as path:
                frames.append(pl.read_parquet(path, glob=False))
        search.add(frames, rows=len(task.arrays["rows"]))
    return search.joined(alive["id"]), search.notes


def search_items(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    texts: str,
    start: int,  # noqa: ARG001 - every task over a part has it
    items: str,
    rules: list[Rule],
    token_ratios: dict[str, float],
    version: int,  # noqa: ARG001 - the result depends on it
    rows: NDArray[np.uint32],
) -> Result:
    """`-K.parquet`: what was read of a part's rows, as `WordMatches.gathered` gives it.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part's EXAMPLES.
        texts: the part's TEXTS.
        start: the rows before the part.
        items: the file of the benchmark items.
        rules: the rules.
        token_ratios: as in the recipe.
        version: of the rule `layered`.
        rows: the rows of the part, ascending.
    """
    search = copy.deepcopy(_prepared_search(folder, items, tuple(rules), tuple(token_ratios.items())))
    with part_corpus(folder, examples, texts) as corpus:
        for frame in corpus.frames([*TEXT_COLUMNS, "system"], rows):
            search.read(frame)
    frames = search.gathered()
    for number, frame in enumerate(frames):
        with folder.writing(f"{name}-{number}.parquet") as path:
            frame.write_parquet(path)
    return {"frames": len(frames)}


@lru_cache(maxsize=1)
def _prepared_search(
    folder: WorkFolder, items: str, rules: tuple[Rule, ...], token_ratios: tuple[tuple[str, float], ...]
) -> WordMatches:
    """A search that has read no row; its indices of the items take seconds, so a worker makes them once."""
    with folder.reading(items) as path:
        return WordMatches(pl.read_parquet(path, glob=False), rules=rules, token_ratios=dict(token_ratios))
