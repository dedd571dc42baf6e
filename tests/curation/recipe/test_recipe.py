from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from siftune.curation.errors import UserError
from siftune.curation.recipe import sections
from siftune.curation.recipe.loading import load_recipe, parse_recipe
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.starting_recipe import json_schema, starting_recipe

SMALLEST = "sources: [{path: rows.jsonl}]\n"


def fault(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_recipe(text)
    return str(caught.value)


def test_smallest_recipe_holds_the_defaults_of_its_sections() -> None:
    read = parse_recipe(SMALLEST)
    assert read.sources[0].path == "rows.jsonl"
    assert read.duplicates.near == sections.Near()
    assert read.splits is None


@pytest.mark.parametrize(
    ("text", "message_parts"),
    [
        ("souces: []", ["souces", "Did you mean 'sources'?", "line 1"]),
        (SMALLEST + "duplicates:\n  near:\n    treshold: 1\n", ["line 4", "Did you mean 'threshold'?", "permutations"]),
        (SMALLEST + "duplicates: {near: {threshold: 1.5}}", ["near.threshold", "less than or equal to 1", "1.5"]),
        (SMALLEST + "duplicates: {near: {threshold: 0.4}}", ["floor (0.5) is above threshold (0.4)"]),
        (SMALLEST + "duplicates: {near: {shingle: three}}", ["duplicates.near.shingle", "'three'"]),
        (SMALLEST + "keep: [sorce]", ["'sorce'", "Did you mean 'source'?"]),
        (SMALLEST + "training: {}", ["add `splits:`"]),
        (SMALLEST + "splits: {}\ntraining: {budget: {tokens: 5, steps: 5}}", ["exactly one of tokens, steps"]),
        (SMALLEST + "splits: {}\ntraining: {batch_rows: 10, micro_rows: 4}", ["not a multiple"]),
        (SMALLEST + "encoder: null\nduplicates: {semantic: {}}", ["needs an encoder"]),
        (SMALLEST + "balance: {target: reference}", ["needs `reference:`"]),
        ("sources: [{path: a, name: x}, {path: b, name: x}]", ["two sources have the name 'x'"]),
        ("sources: []", ["sources", "at least 1"]),
        ("sources: [", ["is not YAML"]),
        ("", ["found nothing"]),
        ("- a", ["found list"]),
    ],
)
def test_what_is_not_accepted_is_named_with_its_mend(text: str, message_parts: list[str]) -> None:
    message = fault(text)
    for part in message_parts:
        assert part in message


def test_every_fault_is_named_at_once() -> None:
    message = fault(SMALLEST + "sed: 1\nkeep: [sorce]\n")
    assert "sed" in message
    assert "sorce" in message


def test_missing_recipe_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="siftune recipe new"):
        load_recipe(tmp_path / "no.yaml")


def test_starting_recipe_is_the_defaults_and_says_every_field() -> None:
    text = starting_recipe()
    assert parse_recipe(text).model_dump(exclude={"sources"}) == parse_recipe(SMALLEST).model_dump(exclude={"sources"})
    for name, field in Recipe.model_fields.items():
        assert f"{name}:" in text
        assert field.description
        assert field.description in text


def test_commented_sections_of_the_starting_recipe_parse_when_uncommented() -> None:
    lines = starting_recipe().splitlines()
    start = lines.index("# splits:")
    end = next(index for index in range(start, len(lines)) if not lines[index])
    section = "\n".join(line.removeprefix("# ") for line in lines[start:end])
    assert parse_recipe(SMALLEST + section).splits == sections.Splits()


def test_schema_names_every_section_and_forbids_unknown_keys() -> None:
    document = json_schema()
    assert set(document["properties"]) == set(Recipe.model_fields)
    assert document["additionalProperties"] is False
    assert yaml.safe_load(yaml.safe_dump(document)) == document


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_recipe_in_utf_16_or_with_a_mark_at_its_beginning(tmp_path, encoding):
    path = tmp_path / "r.yaml"
    path.write_text("name: größe\nsources: [{path: a}]\n", encoding=encoding)
    assert load_recipe(path).name == "größe"


@pytest.mark.parametrize(
    ("line", "example"),
    [
        ("sources: [{path: a, split: no}]", "'no'"),
        ("sources: [{path: a, roles: {yes: user}}]", "'yes'"),
        ("sources: [{path: a}]\nchecks: {length: on}", "'off'"),
    ],
)
def test_words_that_yaml_reads_as_truth_values(line, example):
    with pytest.raises(UserError, match=f"truth value: write the word in quotes, for example {example}"):
        parse_recipe(line)


def test_off_is_a_word_where_a_word_is_meant_and_null_leaves_out():
    checks = parse_recipe("sources: [{path: a}]\nchecks: {length: off, refusal: no, encoding: report}").checks
    assert (checks.length, checks.refusal, checks.encoding) == ("off", "off", "report")
    for line in ("duplicates: {near: off}", "encoder: no"):
        with pytest.raises(UserError, match="To leave it out, write null"):
            parse_recipe(f"sources: [{{path: a}}]\n{line}")
