"""Entries for trainers: every split is named once, every role of the set has its tag, names suit a list with commas."""

from __future__ import annotations

import json

import pytest
import yaml

from siftune.curation.publishing.trainer_entries import axolotl_datasets, entry_name, llama_factory_entries


@pytest.mark.parametrize(
    ("name", "expected"), [("mine", "mine"), ("a, b", "a-b"), ("größe 2", "größe-2"), ("///", "curated")]
)
def test_names_hold_no_comma_and_no_blank(name: str, expected: str) -> None:
    assert entry_name(name, "train") == expected
    assert entry_name(name, "test") == f"{expected}_test"


def test_an_entry_names_the_file_or_the_split_on_the_hub() -> None:
    local = json.loads(llama_factory_entries("mine", ["train", "test"]))
    assert {name: entry["file_name"] for name, entry in local.items()} == {
        "mine": "train.parquet",
        "mine_test": "test.parquet",
    }
    hub = json.loads(llama_factory_entries("mine", ["train"], hub="me/mine"))
    assert (hub["mine"]["hf_hub_url"], hub["mine"]["split"], "file_name" in hub["mine"]) == ("me/mine", "train", False)
    tags = local["mine"]["tags"]
    roles = {tags[name] for name in tags if name not in ("role_tag", "content_tag")}
    assert roles == {"user", "assistant", "system", "tool", "function_call"}


def test_held_out_splits_are_test_data_of_axolotl() -> None:
    local = yaml.safe_load(axolotl_datasets(["train", "test", "validation"]))
    assert [entry["path"] for entry in local["datasets"]] == ["train.parquet"]
    assert [entry["path"] for entry in local["test_datasets"]] == ["test.parquet", "validation.parquet"]
    assert {entry["split"] for entry in (*local["datasets"], *local["test_datasets"])} == {"train"}
    hub = yaml.safe_load(axolotl_datasets(["train", "test"], hub="me/mine"))
    assert [(entry["path"], entry["split"]) for entry in hub["test_datasets"]] == [("me/mine", "test")]
    assert "test_datasets" not in yaml.safe_load(axolotl_datasets(["train"]))
