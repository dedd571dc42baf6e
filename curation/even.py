"""Even out instruction lengths in the training rows, as the recipe's `balance` section wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from curation import balance, ingest
from curation.deciding import embedder
from curation.divide import Division
from curation.job import Job
from curation.meter import Meter
from curation.prepare import Prepared

_ONCE = pl.DataFrame(schema={"id": pl.String, "copies": pl.UInt32})


def even_out(job: Job, prepared: Prepared, division: Division) -> tuple[Division, pl.DataFrame]:
    """Drop training rows so that instruction lengths come close to the target; held-out rows are left alone.

    Returns the division with what is alive afterwards, and (id, copies) of the rows that stand more than once.
    """
    wanted = job.recipe.balance
    if wanted is None:
        return division, _ONCE
    raise NotImplementedError
