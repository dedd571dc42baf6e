"""Several files with something for every stage to find, and the comparison of two runs of them, byte for byte."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from siftune.curation.run.folder import RunFolder
from tests.worlds import WORDS, many

Row = dict[str, Any]
SECTIONS: dict[str, Any] = {
    "encoder": None,
    "keys": {"template_rows": 10, "template_share": 0.01},
    "checks": {"email": "mask"},
    "duplicates": {
        "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
        "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
        "conflicts": "drop",
    },
    "splits": {"test": 20, "validation": 10},
    "balance": {"bins": 3},
}
_TEMPLATE = "Read the following short passage with great care and then answer"


def mixed_rows(count: int, *, seed: int = 1) -> list[Row]:
    """Random rows with copies of every kind, and rows that are repaired, masked, quarantined or checked."""
    draw = random.Random(seed)
    made: list[Row] = []
    for row in many(count, seed=seed):
        change = draw.randrange(12)
        before = dict(draw.choice(made[-20:])) if made else row
        if change == 0:  # an exact copy but for case
            row = {**before, "instruction": str(before["instruction"]).upper()}
        elif change == 1:  # the same prompt, another answer
            row = {**row, "instruction": before["instruction"]}
        elif change == 2:  # the same answer to another prompt
            row = {**row, "output": before["output"]}
        elif change in (3, 11):  # a dialogue that goes on
            row = {**row, "history": [[before["instruction"], before["output"]]]}
        elif change == 4:
            row = {**before, "instruction": f"{before['instruction']} {draw.randrange(4)}"}
        elif change == 5:
            row = {**row, "output": None}
        elif change == 6:
            row = {**row, "output": f"{row['output']} Itâ€™s done, write to someone{draw.randrange(5)}@acme-river.com"}
        elif change == 7:
            row = {**row, "instruction": f"{_TEMPLATE} {row['instruction']}"}
        elif change == 8:
            row = {"instruction": f"is the {draw.choice(WORDS)} rough?", "output": draw.choice(["no", "yes"])}
        elif change == 9:
            row = {**row, "system": draw.choice(["be brief", "be kind"]), "instruction": before["instruction"]}
        elif change == 10:
            row = {**row, "output": "..."}
        made.append(row)
    return made


def write_files(rows: Sequence[Row], folder: Path, *, files: int = 3) -> None:
    """The rows in several files: JSON Lines, Parquet of messages, CSV."""
    folder.mkdir(parents=True)
    size = -(-len(rows) // files)
    for number in range(files):
        own = rows[number * size : (number + 1) * size]
        if number % 3 == 1:
            turns = [
                [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
                for row in own
            ]
            pl.DataFrame({"messages": turns, "n": range(len(own))}).write_parquet(folder / f"{number}.parquet")
        elif number % 3 == 2:
            with (folder / f"{number}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["instruction", "output"], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(own)
        else:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own)
            (folder / f"{number}.jsonl").write_text(lines, encoding="utf-8")


def write_marked_dialogues(path: Path) -> None:
    """Dialogues of one, two and three answers that begin one another, with every choice of answers that are trained."""
    lines = []
    for number in range(2 + 4 + 8):
        answers = 1 if number < 2 else 2 if number < 6 else 3
        turns = []
        for turn in range(answers):
            turns.append({"role": "user", "content": f"what is the {WORDS[turn]} {WORDS[turn + 7]} of the garden"})
            weight = number >> turn & 1
            turns.append({"role": "assistant", "content": f"it is a {WORDS[turn + 3]}", "weight": weight})
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def write_recipe(folder: Path, name: str, **sections: Any) -> Path:
    """A recipe over `folder/data`, for a run of that name."""
    document = {"name": "cluster", "run": name, "sources": [{"path": "data", "name": "s"}], **SECTIONS, **sections}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def require_same_run(one: RunFolder, other: RunFolder) -> None:
    """Both runs left the same bytes, and the same measures under the same keys."""
    for pattern in ("ledger.parquet", "rows.parquet", "quarantine.jsonl", "arms/*", "heldout/*", "curated/*"):
        files = sorted(path.relative_to(one.path) for path in one.path.glob(pattern))
        assert files == sorted(path.relative_to(other.path) for path in other.path.glob(pattern))
        assert files
        for file in files:
            assert (one.path / file).read_bytes() == (other.path / file).read_bytes(), file
    assert one.manifest.files == other.manifest.files  # the names hold the keys
    for name, file in one.manifest.files.items():
        left, right = (pl.read_parquet(run.path / file, glob=False) for run in (one, other))
        assert left.equals(right), name
    assert one.manifest.counts == other.manifest.counts
    assert one.manifest.inputs == other.manifest.inputs
    assert one.manifest.notes == other.manifest.notes
    assert one.manifest.certificate == other.manifest.certificate
