"""The recorder of a stage: one block times it, counts it and writes it into the manifest."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.recipe_file import RecipeFile
from siftune.curation.run.recorder import RunRecorder


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    (tmp_path / "small.yaml").write_text("sources: [{path: s.jsonl}]\n", encoding="utf-8")
    run = RunFolder.create(tmp_path / "run", recipe_name="small")
    return RunRecorder.begin(run, RecipeFile.read(tmp_path / "small.yaml"), None)


def test_a_stage_is_measured_counted_and_saved(recorder: RunRecorder) -> None:
    alive = schema.conform(pl.DataFrame({"id": ["a", "b", "c"], "row": [0, 1, 2], "pinned": [False] * 3}), schema.INDEX)
    actions = [{"id": "a", "action": "report"}, {"id": "b", "action": "drop"}, {"id": "c", "action": "report"}]
    with recorder.stage("near", rows=3) as record:
        remaining = recorder.decide(record, schema.conform(pl.DataFrame(actions), schema.DECISIONS), alive)
    assert remaining["id"].to_list() == ["a", "c"]
    (saved,) = recorder.run.manifest.stages
    assert saved == record
    assert (saved.stage, saved.rows, saved.kept, saved.removed) == ("near", 3, 2, 1)
    assert saved.actions == {"drop": 1, "report": 2}
    assert saved.seconds > 0
    assert saved.peak_mb > 0


def test_a_stage_that_fails_leaves_no_record(recorder: RunRecorder) -> None:
    with pytest.raises(OSError, match="disk full"), recorder.stage("near", rows=3):
        raise OSError("disk full")
    assert recorder.run.manifest.stages == []
