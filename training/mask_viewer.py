"""The tokens of a row as text, each with whether it is trained."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from siftune.curation.checksums import whole
from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.paths import RunPaths
from siftune.curation.split_names import HELD_OUT
from siftune.training import models
from siftune.training.arms import training_of
from siftune.training.masks import tokenise


def row_tokens(run: RunFolder | Path, row_id: str) -> list[tuple[str, bool]]:
    """The tokens of a row of any arm or held-out set, as the model reads them: (text, whether it is trained).

    A character that is split over several tokens shows as `\N{REPLACEMENT CHARACTER}` in each of them.

    Raises:
        UserError: no arm and no held-out set holds the row.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    settings = training_of(folder)
    row = _read_row(folder.path, row_id)
    base = folder.recipe.model
    tokenizer = models.load_tokenizer(models.resolve(base.name, revision=base.revision))
    rows = tokenise(tokenizer, row, max_length=settings.max_length, system=base.system)
    return [
        (tokenizer.decode([int(token)]), bool(trained))
        for token, trained in zip(rows.ids[0], rows.trained[0], strict=True)
    ]


def _read_row(run: Path, row_id: str) -> pl.DataFrame:
    paths = RunPaths(run)
    files = [whole(path) for path in [*map(paths.arm, paths.arms()), *map(paths.heldout, HELD_OUT)] if path.is_file()]
    for path in files:
        row = pl.scan_parquet(path, glob=False).filter(pl.col("id") == row_id).collect()
        if row.height:
            return row
    if not files:
        raise UserError(f"{run} has no arms yet. Curate first: siftune curate RECIPE.yaml")
    ids = (
        pl.concat([pl.scan_parquet(path, glob=False).select("id").head(1000) for path in files])
        .collect()["id"]
        .to_list()
    )
    example = f" An id looks like {ids[0]}." if ids else ""
    raise UserError(
        f"No arm and no held-out set of {run} holds the row {row_id!r}.{did_you_mean(row_id, ids) or example}"
        + (f" For the history of a dropped row: siftune explain {run} {row_id}" if ":" in row_id else "")
    )
