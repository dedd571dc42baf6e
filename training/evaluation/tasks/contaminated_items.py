"""Items of a task that a trained row already holds: no arm may be credited with what it was shown.

An item is left out where a row of any trained arm is the same item by the default rule of contamination, `layered`,
with the encoder of the recipe (without one, rephrased items are not sought); for all arms alike, so that they are
compared on the same items. Related items (other numbers, a part, a harder variant) stay, and are counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from siftune.curation import schema
from siftune.curation.atomic_files import write_json, write_parquet
from siftune.curation.checksums import is_damaged, whole
from siftune.curation.contamination_outcomes import settle
from siftune.curation.corpus import system_text, turns_text
from siftune.curation.decontamination.matches import LAYERED_VERSION, find_matches
from siftune.curation.embeddings.store import embedder
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Contamination
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs
from siftune.training.arms import read_arm
from siftune.training.evaluation.tasks.items import items_hash

#: One row for each item that is left out: a row that is the same item, the arms that hold such rows, the rule and the
#: text that both have.
CONTAMINATED = pl.Schema(
    {"item": pl.String(), "id": pl.String(), "arms": pl.List(pl.String), "rule": pl.String(), "span": pl.String()}
)
_BATCH_ROWS = 10_000


class ContaminationCheck(BaseModel):
    """What was compared: the document beside CONTAMINATED."""

    model_config = ConfigDict(frozen=True)

    #: The items, the rows of the arms, the rule and the encoder.
    key: str
    encoder: str | None
    #: Distinct rows of all arms.
    rows: int
    #: Items with a related row and none that is the same.
    related: int


def find_contaminated(
    run: RunFolder, items: pl.DataFrame, arms: Sequence[str], *, folder: Path, progress: Progress | None = None
) -> None:
    """Write CONTAMINATED and `ContaminationCheck` of one task, unless they are there.

    Args:
        run: a run with trained arms.
        items: TASK_ITEMS of the task.
        arms: the arms that were trained.
        folder: the folder of the task.
        progress: called while rows are compared.
    """
    frames = {arm: read_arm(run.path, arm).select("id", "messages") for arm in arms}
    encoder = embedder(run.recipe.encoder) if run.recipe.encoder else None
    name = encoder.encoder.name if encoder else None
    hashes = [[arm, jobs.data_hash(frame, ordered=True)] for arm, frame in frames.items()]
    identity = [LAYERED_VERSION, name, items_hash(items), hashes]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    stored = read_check(folder)
    if stored is not None and stored.key == key:
        return

    rows = _texts(run, pl.concat(frames.values()).unique("id", keep="first", maintain_order=True))
    references = items.select(
        reference="item",
        prompt="prompt",
        answer=pl.coalesce(pl.col("choices").list.first(), "answer"),
        distractors=pl.col("choices").list.slice(1),
    )

    def batches() -> Iterator[pl.DataFrame]:
        return rows.iter_slices(_BATCH_ROWS)

    settings = run.recipe.contamination or Contamination.model_validate({})
    matches = find_matches(
        batches, references, rules=["layered"], embed=encoder.embed if encoder else None, progress=progress
    )
    settled = settle(matches, threshold=settings.threshold, most=settings.max_false_discovery)
    same = settled.filter(pl.col("outcome") == "same")
    holders = pl.concat([frame.select("id", arm=pl.lit(arm)) for arm, frame in frames.items()])
    of_arms = same.join(holders, on="id").group_by("reference").agg(arms=pl.col("arm").unique().sort())
    first = same.drop("item").unique("reference", keep="first", maintain_order=True)
    contaminated = first.join(of_arms, on="reference", how="left", maintain_order="left").rename({"reference": "item"})
    related = set(settled.filter(pl.col("outcome") == "related")["reference"]) - set(same["reference"])
    write_parquet(schema.conform(contaminated, CONTAMINATED), folder / "contaminated.parquet", checked=True)
    check = ContaminationCheck(key=key, encoder=name, rows=rows.height, related=len(related))
    write_json(check.model_dump(mode="json"), folder / "contaminated.json")


def read_check(folder: Path) -> ContaminationCheck | None:
    """What was compared; None before it was, when it is damaged, or when an older version wrote it."""
    path = folder / "contaminated.json"
    contaminated = path.with_suffix(".parquet")
    if not (path.is_file() and contaminated.is_file()) or is_damaged(contaminated):
        return None
    try:
        return ContaminationCheck.model_validate_json(path.read_bytes())
    except ValueError:  # what pydantic raises is one
        return None


def read_contaminated(folder: Path) -> pl.DataFrame:
    """CONTAMINATED of one task."""
    return pl.read_parquet(whole(folder / "contaminated.parquet"), glob=False)


def _texts(run: RunFolder, rows: pl.DataFrame) -> pl.DataFrame:
    """id, system, prompt, core and answer of ARM rows; the core is curation's, so that its vectors serve again."""
    texts = rows.select("id", system=system_text(), prompt=turns_text(answers=False), answer=turns_text(answers=True))
    if "texts" not in run.manifest.files:
        return texts.with_columns(core="prompt")
    cores = pl.read_parquet(run.texts, columns=["id", "core"], glob=False)
    return texts.join(cores, on="id", how="left", maintain_order="left").with_columns(
        pl.col("core").fill_null(pl.col("prompt"))
    )
