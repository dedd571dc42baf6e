"""The result of a training run: what is on disk stays readable, and what is damaged is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from siftune.curation.errors import UserError
from siftune.training.result import RESULT_FILE, finished_trainings, read_result, write_result
from tests.training.worlds import training_result

#: As siftune 0.1 wrote it, with a key that this version does not know.
DOCUMENT = """{
  "key": "4f", "arm": "curated", "seed": 1, "data": "ab",
  "model": {"name": "smollm2", "identity": "cd", "origin": "a file"},
  "load": {"load": "nf4", "device": "cpu", "compute": "bfloat16", "why": "the recipe says nf4"},
  "budget": {"tokens": 12000}, "steps": 36, "tokens": 11927, "rows": 286, "epochs": 0.0414, "seconds": 150.0,
  "minutes": 2.5, "truncated_rows": 623, "arm_rows": 6900, "arm_tokens": 270000,
  "planned": {"steps": 36, "tokens": 11927}, "tokens_per_second": 79.5, "last_loss": 2.7,
  "memory": {"weights": 106, "adapter": 75, "activations": 900, "free": 20000, "total": 1781, "unit": "MiB",
             "checkpointing": false},
  "threads": 2, "versions": {"python": "3.11.9", "torch": "2.9.0"}, "adapter_hash": "ef", "later": [1]
}"""


def test_a_result_of_an_earlier_run_is_read_and_written_alike(tmp_path: Path) -> None:
    (tmp_path / RESULT_FILE).write_text(DOCUMENT)
    result = read_result(tmp_path, key="4f")
    assert result is not None
    assert (result.arm, result.seed, result.budget, result.memory.total) == ("curated", 1, {"tokens": 12000}, 1781)
    write_result(result, tmp_path)
    document = json.loads(DOCUMENT)
    del document["later"]
    assert json.loads((tmp_path / RESULT_FILE).read_text()) == document
    assert read_result(tmp_path, key="another job") is None
    assert read_result(tmp_path / "nothing") is None


@pytest.mark.parametrize(("text", "says"), [("{", "JSON"), ('{"key": "4f"}', r"arm: Field required")])
def test_a_damaged_result_is_reported(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(UserError, match=rf"done\.json is not a training result of this version \(.*{says}"):
        read_result(tmp_path)


def test_finished_trainings_come_by_arm_then_seed(tmp_path: Path) -> None:
    for arm, seed in [("random", 0), ("curated", 10), ("curated", 2), ("raw", 0), ("mine", 0)]:
        write_result(training_result(arm=arm, seed=seed), tmp_path / "training" / arm / f"seed-{seed}")
    (tmp_path / "training" / "raw" / "seed-1").mkdir()
    assert [(result.arm, result.seed) for _, result in finished_trainings(tmp_path)] == [
        ("raw", 0),
        ("curated", 2),
        ("curated", 10),
        ("random", 0),
        ("mine", 0),
    ]
