"""Splits of whole runs: what stands inside a held-out row, or holds it, is not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from tests.curation.splits import brute_force
from tests.worlds import many

QUESTION = "Which river runs through the old town of the capital?"


def dialogue(*texts: str, **columns: Any) -> dict[str, Any]:
    """Turns of a user and an assistant in turn."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return {"messages": turns, **columns}


def run_over(folder: Path, rows: list[dict[str, Any]], **sections: Any) -> RunFolder:
    folder.mkdir(exist_ok=True)
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {"sources": [{"path": "s.jsonl"}], "encoder": None, "run": "run"}
    (folder / "r.yaml").write_text(yaml.safe_dump(document | sections), encoding="utf-8")
    return curate(folder / "r.yaml")


def fillers(count: int) -> list[dict[str, Any]]:
    return [dialogue(row["instruction"], row["output"], split="train") for row in many(count)[::3]]


def test_a_training_row_that_holds_a_held_out_prompt_is_evicted_and_certified(tmp_path: Path) -> None:
    longer = (QUESTION, "The Elbe.", "And how long is it from its spring down to the sea?", "About 1,094 kilometres.")
    rows = [
        dialogue(*longer[:2], split="test"),
        dialogue("Tell me about rivers please.", f"Let us begin. {QUESTION} Many do.", split="train"),
        dialogue(*longer, split="train"),
        dialogue("Something else is asked at length in this row, is it not?", "It is.", split="train"),
        # The reverse: the training row stands inside the held-out one.
        dialogue("Name the tallest mountain of Europe.", "Mont Blanc.", split="train"),
        dialogue(
            "Name the tallest mountain of Europe. Then say in which year it was first climbed.", "1786", split="test"
        ),
        *fillers(30),
    ]
    run = run_over(tmp_path, rows, splits={})
    leaks = run.ledger().filter(reason="leak").select("id", "witness", "detail").rows()
    detail = "containment, train row stands inside test row, or the reverse"
    assert leaks == [("s:1", "s:0", detail), ("s:2", "s:0", detail), ("s:4", "s:5", detail)]
    certificate = run.manifest.certificate
    assert certificate.passed
    assert certificate.thresholds == {"exact": 1.0, "near": 0.8, "containment": 1.0}
    assert "containment" in {check.measure for check in certificate.checks}
    assert brute_force.leaks(run.path) == []
    # The script sees the leak where the evicted row is trained on all the same.
    arm = run.path / "arms" / "curated.parquet"
    trained = pl.read_parquet(arm, columns=["id"])
    pl.concat([trained, pl.DataFrame({"id": ["s:2"]})]).write_parquet(arm)
    assert brute_force.leaks(run.path) == [("s:0", "s:2", 1.0)]


def test_an_item_of_a_benchmark_that_is_called_like_a_row_ties_nothing(tmp_path: Path) -> None:
    rows = [dialogue(row["instruction"], row["output"]) for row in many(60)[::3]]
    tmp_path.mkdir(exist_ok=True)
    items = [{"question": "Which stone is the hardest of all?", "answer": "Diamond"}]
    items += [{"question": turn["content"]} for turn in rows[5]["messages"][:1]]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    contamination = {"references": [{"path": "bench.jsonl", "name": "s"}], "rules": ["layered"]}
    run = run_over(tmp_path, rows, splits={"test": 4}, contamination=contamination)
    assert run.ledger().filter(action="drop", stage="contamination").select("id", "witness").rows() == [("s:5", "s:1")]
    assert run.rows()["group"].to_list() == list(range(len(rows)))


@pytest.mark.parametrize("leaks", ["prompt", "dialogue"])
def test_rows_inside_one_another_and_rows_with_one_prompt_are_on_one_side(tmp_path: Path, leaks: str) -> None:
    rows = []
    for row in many(60)[::3]:
        prompt, answer = row["instruction"], row["output"]
        rows += [dialogue(prompt, answer), dialogue(prompt, " ".join(reversed(answer.split())))]
        rows += [dialogue(f"{answer} velvet. {prompt} {answer} walnut {answer}", prompt[::-1])]
    run = run_over(tmp_path, rows, splits={"test": 6}, keys={"leaks": leaks})
    groups = run.rows()["group"].to_list()
    assert groups == [3 * (at // 3) for at in range(len(rows))]
    split = dict(run.rows().select("id", "split").iter_rows())
    assert all(len({split[f"s:{3 * at + step}"] for step in range(3)}) == 1 for at in range(len(rows) // 3))
    assert run.ledger().filter(reason="leak").is_empty()
    assert run.manifest.certificate.passed
    assert brute_force.leaks(run.path) == []
    leaked = {record.measure: record.share for record in run.manifest.naive_split}
    assert leaked["containment"] > 0.9


def test_a_prompt_that_is_nothing_but_a_template_is_not_held_out(tmp_path: Path) -> None:
    task = "Answer the question below in one short sentence of plain English."
    rows = [dialogue(task, "Which question?")]
    rows += [dialogue(f"{task} {row['instruction']}", row["output"]) for row in many(400)[::3]]
    run = run_over(tmp_path, rows, splits={"test": 130})
    split = dict(run.rows().select("id", "split").iter_rows())
    assert split["s:0"] == "train"
    assert sum(name == "test" for name in split.values()) == 130
    assert run.manifest.certificate.passed
