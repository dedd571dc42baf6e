"""What a run hands over: it opens elsewhere, and every input row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from siftune.curation import schema
from siftune.curation.pipeline import curate, index_texts
from siftune.curation.review.search import TextIndex
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, write_override
from tests.worlds import jaccard, many, write_recipe, write_source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("outputs")
    rows: list[dict[str, Any]] = many(90)
    rows[3]["output"] = None
    rows[4]["unusual"] = {"deep": ["ü", 1]}
    write_source(rows, folder / "s.jsonl")
    return curate(write_recipe(folder, "s.jsonl", splits={"test": 6, "validation": 4, "near": 0.6}))


def test_the_curated_set_opens_with_datasets(run: RunFolder, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    opened = datasets.load_dataset(str(run.path / "curated"), cache_dir=str(tmp_path))
    assert datasets.get_dataset_config_names(str(run.path / "curated")) == ["default"]
    counts = run.manifest.to_json()["counts"]
    assert {name: part.num_rows for name, part in opened.items()} == {
        name: counts[name] for name in ("train", "test", "validation")
    }
    assert opened["train"].column_names == ["id", "source", "messages", "meta"]
    row = next(row for part in opened.values() for row in part if row["id"] == "s:4")
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert json.loads(row["meta"])["unusual"] == {"deep": ["ü", 1]}


def test_the_search_index_is_made_with_the_run_and_stays_while_the_texts_do(run: RunFolder) -> None:
    index = TextIndex.open(run)
    assert index is not None
    texts = pl.read_parquet(run.texts)
    word = texts["answer"][0].split()[0]
    expected = texts.filter(pl.concat_str("prompt", "answer", separator=" ").str.contains(rf"(?i)\b{word}\b")).height
    assert len(index.search(word)) == expected > 0
    made = index.path.stat().st_mtime_ns
    run.rows_path.touch()  # the run was copied, or decided again
    index_texts(run, None)
    assert index.path.stat().st_mtime_ns == made


def test_the_card_is_one_the_hub_understands(run: RunFolder) -> None:
    text = (run.path / "curated" / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    files = {entry["split"]: entry["path"] for entry in card["configs"][0]["data_files"]}
    assert set(files) == {"train", "test", "validation"}
    assert all((run.path / "curated" / path).is_file() for path in files.values())
    assert card["size_categories"] == ["n<1K"]
    assert "| near | " in body


def test_every_input_row_is_in_one_place(run: RunFolder) -> None:
    rows = run.rows()
    assert rows.schema == schema.ROWS
    assert sorted(rows["id"]) == sorted(f"s:{row}" for row in range(90))
    curated = {path.stem: set(pl.read_parquet(path)["id"]) for path in sorted((run.path / "curated").glob("*.parquet"))}
    assert sum(map(len, curated.values())) == len(set.union(*curated.values()))
    assert set.union(*curated.values()) == set(rows.filter(fate="kept")["id"])
    removals = run.ledger().filter(pl.col("action").is_in(["drop", "quarantine"]))
    assert sorted(removals["id"]) == sorted(rows.filter(pl.col("fate") != "kept")["id"])
    for row in rows.iter_rows(named=True):
        arms = {
            path.stem
            for path in (run.path / "arms").glob("*.parquet")
            if row["id"] in set(pl.read_parquet(path, columns=["id"])["id"])
        }
        assert set(row["arms"]) == arms


def test_held_out_sets_and_arms_have_their_columns(run: RunFolder) -> None:
    for name in ("test", "validation"):
        assert pl.read_parquet(run.path / "heldout" / f"{name}.parquet").schema == schema.HELDOUT
    for name in ("raw", "curated", "random", "balanced-random", "longest"):
        assert pl.read_parquet(run.path / "arms" / f"{name}.parquet").schema == schema.ARM


def test_decisions_by_hand_are_obeyed_and_named(tmp_path: Path) -> None:
    write_source(many(60), tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl")
    before = curate(recipe)
    dropped = before.ledger().filter(stage="near", action="drop")["id"][0]
    kept = before.rows().filter(fate="kept")["id"][0]
    write_override(before, Override(dropped, "restore", "these differ"))
    write_override(before, Override(kept, "drop", "a bad row"))
    write_override(before, Override("s:999", "drop", "no such row"))
    rows = {row["id"]: row for row in curate(recipe).rows().iter_rows(named=True)}
    ledger = before.ledger().filter(stage="overrides")
    assert rows[dropped]["fate"] == "kept"
    assert (rows[kept]["fate"], rows[kept]["stage"], rows[kept]["reason"]) == ("dropped", "overrides", "by_hand")
    assert dict(ledger.select("id", "detail").iter_rows()) == {dropped: "these differ", kept: "a bad row"}
    assert "| overrides | 60 | 1 | 59 |" in (before.curated_folder / "README.md").read_text(encoding="utf-8")


def test_a_restored_row_that_resembles_a_held_out_one_is_dropped_all_the_same(tmp_path: Path) -> None:
    rows = many(40)
    for number, row in enumerate(rows):
        row["split"] = "test" if number < 6 else "train"
    rows[20] = {**rows[2], "split": "train", "output": rows[2]["output"] + " besides"}
    write_source(rows, tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl", duplicates={"exact": True, "near": None}, splits={"near": 0.6})
    first = curate(recipe)
    leaks = first.ledger().filter(id="s:20", action="drop").to_dicts()
    assert [leak["reason"] for leak in leaks] == ["leak"]
    write_override(first, Override("s:20", "restore", "I want it"))
    second = curate(recipe)
    decisions = second.ledger().filter(pl.col("id") == "s:20", pl.col("action") != "report")
    assert decisions["action"].to_list() == ["restore", "drop"]
    assert decisions["reason"].to_list()[-1] == "leak"
    assert second.manifest.certificate.passed
    assert jaccard(rows[20]["instruction"], rows[2]["instruction"], 3) == 1.0


def test_a_second_random_arm_is_written_where_the_recipe_trains_it(tmp_path: Path) -> None:
    write_source(many(30), tmp_path / "s.jsonl")
    training = {"arms": ["raw", "curated", "random", "random-2"]}
    run = curate(write_recipe(tmp_path, "s.jsonl", splits={"test": 6}, training=training))
    assert run.arm("random-2").is_file()
    assert "random-2" in set(run.rows()["arms"].explode())
    without = curate(write_recipe(tmp_path, "s.jsonl", splits={"test": 6}, run="without"))
    assert not without.arm("random-2").exists()
