"""Curated sets as sources: what a run tells the next one, in the metadata of the files that it publishes.

A second pass over a curated set has fewer rows, in which other text is frequent. So the set brings along what was a
template and what was a common phrase in the whole data, and how its lengths were balanced; and its rows are read back
as they were: with the names of their sources, and with `meta` as it was written.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from siftune.curation.formats.cells import json_text
from siftune.curation.formats.faults import Fault
from siftune.curation.formats.turns import Turn, repair_turns
from siftune.curation.ingest.row_conversion import Example
from siftune.curation.packed_arrays import pack, unpack
from siftune.curation.text.prompt_templates import TemplateCounts

#: The key of the notes in the metadata of a Parquet file.
_KEY = b"siftune"
#: The columns of a published file; see `siftune.curation.outputs.publish`.
_COLUMNS = {"id", "source", "messages", "meta"}
#: The key in `meta` for the id and the source that a row had in the first run.
_FIRST_RUN = "_curated"


@dataclass(frozen=True)
class CuratedNotes:
    """What a curated set tells the next run.

    Attributes:
        templates: what was counted in the whole data to find templates; None where it cannot be handed on.
        common: uint64, the hashes of passages that identify no row; see `siftune.curation.splits.containment`.
        balance: the recipe's `balance` by which the lengths were balanced; None where they were not.
    """

    templates: TemplateCounts | None
    common: NDArray[np.uint64]
    balance: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The notes in a file that a run published; None for any other file."""
        if path.suffix != ".parquet":
            return None
        try:
            file = pq.read_metadata(path)
            if not set(file.schema.to_arrow_schema().names) >= _COLUMNS or _KEY not in (file.metadata or {}):
                return None
            document = orjson.loads(file.metadata[_KEY])
            templates = document["templates"]
            return cls(
                templates=TemplateCounts.from_json(templates) if templates else None,
                common=unpack(document["common"], np.uint64),
                balance=document["balance"],
            )
        except (pa.ArrowInvalid, OSError, ValueError, KeyError, TypeError, zlib.error):
            return None  # what is no file of a run, or was changed, is read as any other file

    def metadata(self) -> dict[str, str]:
        """The notes as metadata of a Parquet file."""
        document = {
            "templates": self.templates and self.templates.to_json(),
            "common": pack(self.common),
            "balance": self.balance,
        }
        return {_KEY.decode(): orjson.dumps(document).decode()}


def published_row(row: Mapping[str, Any], *, split: str | None) -> Example | Fault:
    """The example that a row of a published file was; its turns are judged as those of any other row."""
    try:
        meta = orjson.loads(row["meta"] or "{}")
        fields = meta.pop("_turns", {})
        turns = [
            Turn(turn["role"], turn["content"], fields.get(str(position)))
            for position, turn in enumerate(row["messages"] or [])
        ]
    except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError):
        return Fault("wrong_type", "messages or meta are not as the run wrote them")
    repaired = repair_turns(turns)
    if isinstance(repaired, Fault):
        return repaired
    turns, repairs = repaired
    meta.setdefault(_FIRST_RUN, {"id": row["id"], "source": row["source"]})
    if kept := {str(position): turn.fields for position, turn in enumerate(turns) if turn.fields}:
        meta["_turns"] = kept
    if repairs:
        meta["_repairs"] = [*meta.get("_repairs", []), *repairs]
    return Example(split, turns, json_text(meta))
