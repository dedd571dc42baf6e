from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from curation import recipe
from curation.errors import UserError

SMALLEST = "sources: [{path: rows.jsonl}]\n"


def fault(text: str) -> str:
    with pytest.raises(UserError) as caught:
        recipe.parse(text)
    return str(caught.value)


def test_smallest_recipe_holds_the_defaults_of_its_sections() -> None:
    read = recipe.parse(SMALLEST)
    assert read.sources[0].path == "rows.jsonl"
    assert read.duplicates.near == recipe.Near()
    assert read.splits is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("souces: []", ["souces", "Did you mean 'sources'?", "line 1"]),
        (SMALLEST + "duplicates:\n  near:\n    treshold: 1\n", ["line 4", "Did you mean 'threshold'?", "permutations"]),
        (SMALLEST + "duplicates: {near: {threshold: 1.5}}", ["near.threshold", "less than or equal to 1", "1.5"]),
        (SMALLEST + "duplicates: {near: {threshold: 0.5}}", ["floor (0.65) lies above threshold (0.5)"]),
        (SMALLEST + "duplicates: {near: {shingle: three}}", ["duplicates.near.shingle", "'three'"]),
        (SMALLEST + "keep: [sorce]", ["'sorce'", "Did you mean 'source'?"]),
        (SMALLEST + "training: {}", ["add `splits:`"]),
        (SMALLEST + "splits: {}\ntraining: {budget: {tokens: 5, steps: 5}}", ["exactly one of tokens, steps"]),
        (SMALLEST + "splits: {}\ntraining: {batch_rows: 10, micro_rows: 4}", ["not a multiple"]),
        (SMALLEST + "encoder: null\nduplicates: {semantic: {}}", ["needs an encoder"]),
        (SMALLEST + "balance: {target: reference}", ["needs `reference:`"]),
        ("sources: [{path: a, name: x}, {path: b, name: x}]", ["two sources are called 'x'"]),
        ("sources: []", ["sources", "at least 1"]),
        ("sources: [", ["is not YAML"]),
        ("", ["found nothing"]),
        ("- a", ["found list"]),
    ],
)
def test_what_is_not_accepted_is_named_with_its_mend(text: str, said: list[str]) -> None:
    message = fault(text)
    for part in said:
        assert part in message


def test_every_fault_is_named_at_once() -> None:
    message = fault(SMALLEST + "sed: 1\nkeep: [sorce]\n")
    assert "sed" in message
    assert "sorce" in message


def test_missing_recipe_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="siftune recipe new"):
        recipe.load(tmp_path / "no.yaml")


def test_starting_recipe_is_the_defaults_and_says_every_field() -> None:
    text = recipe.starting_recipe()
    assert recipe.parse(text).model_dump(exclude={"sources"}) == recipe.parse(SMALLEST).model_dump(exclude={"sources"})
    for name, field in recipe.Recipe.model_fields.items():
        assert f"{name}:" in text
        assert field.description
        assert field.description in text


def test_commented_sections_of_the_starting_recipe_parse_when_uncommented() -> None:
    lines = recipe.starting_recipe().splitlines()
    start = lines.index("# splits:")
    end = next(place for place in range(start, len(lines)) if not lines[place])
    section = "\n".join(line.removeprefix("# ") for line in lines[start:end])
    assert recipe.parse(SMALLEST + section).splits == recipe.Splits()


def test_schema_names_every_section_and_forbids_unknown_keys() -> None:
    document = recipe.schema()
    assert set(document["properties"]) == set(recipe.Recipe.model_fields)
    assert document["additionalProperties"] is False
    assert yaml.safe_load(yaml.safe_dump(document)) == document
