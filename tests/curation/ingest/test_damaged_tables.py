"""A damaged Arrow file ends in one sentence, and does not end the process; those of polars are read by their index."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest

from siftune.curation.errors import UserError
from siftune.curation.ingest.sources import read_sources
from siftune.curation.recipe.sections import Source

LONG = "a text that is longer than the twelve bytes which a view of Arrow holds in itself"


def read(folder: Path) -> int:
    source, out = Source(path="s.arrow"), folder / "out.parquet"
    return read_sources([source], base=folder, out=out, quarantine=folder / "faults.jsonl").examples


def test_arrow_files_of_polars(tmp_path: Path) -> None:
    frame = pl.DataFrame([{"instruction": f"{LONG} {row}", "output": LONG} for row in range(10)])
    for compat in (pl.CompatLevel.newest(), pl.CompatLevel.oldest()):
        frame.write_ipc(tmp_path / "s.arrow", compat_level=compat)
        assert read(tmp_path) == 10


def test_views_that_point_out_of_their_buffers(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pl.DataFrame([{"instruction": LONG, "output": LONG}]).write_ipc(buffer)
    content = buffer.getvalue()
    view = len(LONG).to_bytes(4, "little") + LONG[:4].encode()
    assert content.count(view) == 2
    (tmp_path / "s.arrow").write_bytes(content.replace(view, view, 1))
    assert read(tmp_path) == 1
    at = content.index(view) + 8  # the number of the buffer, and the offset in it
    (tmp_path / "s.arrow").write_bytes(content[:at] + b"\x00\x00\x00\x00\xff\xff\xff\x7f" + content[at + 8 :])
    with pytest.raises(UserError, match=r"s\.arrow holds a damaged table: .* Fetch or write the file again\."):
        read(tmp_path)
