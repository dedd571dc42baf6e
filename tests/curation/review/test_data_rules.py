"""Rules of `siftune check`: each measure against a count made by hand or from the files of the run."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from siftune.app.cli.commands import main
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.rule_sections import FailIf
from siftune.curation.recipe.sections import Checks
from siftune.curation.review.data_rules import check_rules
from siftune.curation.run.folder import RunFolder
from tests.worlds import WORDS, write_recipe, write_source


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def task(number: int) -> str:
    """A prompt that shares no three words with that of another number."""
    return " ".join(f"{word}{number}" for word in WORDS[:12])


def answer(number: int) -> str:
    return " ".join(f"{word}{number}" for word in WORDS[8:20])


ROWS = [
    *({"instruction": task(number), "output": answer(number), "split": "train"} for number in range(12)),
    *({"instruction": task(number), "output": answer(number), "split": "test"} for number in range(20, 24)),
    # 3 exact duplicates: one of a test row
    {"instruction": task(0), "output": answer(0), "split": "train"},
    {"instruction": task(1), "output": answer(1), "split": "train"},
    {"instruction": task(20), "output": answer(20), "split": "train"},
    # near duplicates: one of a test row, by one word of twelve
    {"instruction": task(21) + " please", "output": answer(21) + " indeed", "split": "train"},
    {"instruction": task(2) + " please", "output": answer(2) + " indeed", "split": "train"},
    # a leak that is no duplicate: the prompt of a test row with another answer
    {"instruction": task(22), "output": answer(40), "split": "train"},
    # a conflict inside training
    {"instruction": task(3), "output": answer(41), "split": "train"},
    # a refusal, an empty answer and a row that cannot be read
    {"instruction": task(50), "output": "I'm sorry, but as an AI language model I cannot do that.", "split": "train"},
    {"instruction": task(51), "output": "...", "split": "train"},
    {"instruction": task(52), "output": None, "split": "train"},
]
BENCHMARK = [{"question": task(4), "answer": answer(4)}]
#: Rows by rule, counted by hand in ROWS.
EXPECTED = {
    "quarantined_rate": 1,
    "exact_rate": 3,
    "near_rate": 2,
    "duplicate_rate": 5,
    "conflict_rate": 2,
    "dropped_rate": 3 + 2 + 1 + 1 + 1,  # exact, near, the empty answer, the leak, the item of the benchmark
    "checks.refusal": 1,
    "checks.empty_answer": 1,
    "leaked": 3,
    "contaminated": 1,
    "related": 0,
    "kept_below": 26 - 1 - 8,
}


def rules(limit: dict[str, int], change: float = 0) -> dict[str, object]:
    """`fail_if` with a limit at the measure of each rule, plus `change` rows."""
    document: dict[str, object] = {"checks": {}}
    for rule, rows in limit.items():
        is_rate = rule.endswith("_rate")
        value = (rows + change) / len(ROWS) if is_rate or "." in rule else int(rows + change)
        name, _, check = rule.partition(".")
        if check:
            document["checks"][check] = value  # type: ignore[index]
        else:
            document[name] = value
    return document


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("rules")
    write_source(ROWS, folder / "rows.jsonl")
    write_source(BENCHMARK, folder / "bench.jsonl")
    recipe = write_recipe(
        folder,
        "rows.jsonl",
        duplicates={},
        splits={},
        contamination={"references": [{"path": "bench.jsonl"}], "rules": ["gpt3-13gram"]},
        fail_if=rules(EXPECTED) | {"random_split_leak_rate": 1.0},
    )
    return curate(recipe)


def test_every_rule_counts_what_stands_in_the_rows(run: RunFolder) -> None:
    results = {result.rule: result for result in check_rules(run)}
    assert {name: result.rows for name, result in results.items()} == EXPECTED | {"random_split_leak_rate": None}
    for name, rows in EXPECTED.items():
        share = name.endswith("_rate") or "." in name
        assert results[name].measured == (rows / len(ROWS) if share else rows), name
    assert results["random_split_leak_rate"].measured == max(leak.share for leak in run.manifest.naive_split)
    assert all(result.passed for result in results.values())
    assert all(result.meaning for result in results.values())
    ledger = pl.read_parquet(run.ledger_path).filter(action="drop")
    assert ledger.height == EXPECTED["dropped_rate"]


def with_recipe(run: RunFolder, recipe: Recipe) -> RunFolder:
    """The same run, as if it had been made by another recipe."""
    changed = RunFolder(run.path)
    changed.__dict__["recipe"] = recipe
    return changed


def with_rules(run: RunFolder, document: object) -> RunFolder:
    return with_recipe(run, run.recipe.model_copy(update={"fail_if": FailIf.model_validate(document)}))


def test_a_limit_one_row_lower_fails_every_rule(run: RunFolder) -> None:
    strict = rules({name: rows for name, rows in EXPECTED.items() if rows and name != "kept_below"}, change=-1)
    results = check_rules(with_rules(run, strict))
    assert len(results) == len(EXPECTED) - 2
    assert not any(result.passed for result in results)
    (kept,) = check_rules(with_rules(run, {"kept_below": EXPECTED["kept_below"] + 1}))
    assert not kept.passed


def test_the_command_prints_a_table_and_ends_with_1_when_a_rule_fails(run: RunFolder) -> None:
    done = call("check", run.path)
    assert done.exit_code == 0, done.output
    assert f"All {len(EXPECTED) + 1} rules pass." in done.stdout
    recipe = run.path.parent / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("leaked: 3", "leaked: 2"))
    failed = call("check", recipe)
    assert failed.exit_code == 1
    assert "FAIL" in failed.stdout
    assert f"1 of {len(EXPECTED) + 1} rules fail." in failed.stdout
    document = call("check", run.path, "--json")
    assert document.exit_code == 1
    parsed = json.loads(document.stdout)
    assert parsed["passed"] is False
    assert [entry["rule"] for entry in parsed["rules"] if not entry["passed"]] == ["leaked"]


SOURCE = "sources: [{path: rows.jsonl}]\nencoder: null\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE, "the recipe has no rules. Add some, for example: fail_if: {near_rate: 0.1"),
        (SOURCE + "fail_if: {}\n", "Accepted rules: quarantined_rate, exact_rate"),
        (SOURCE + "fail_if: {neer_rate: 0.1}\n", "Did you mean 'near_rate'? Accepted here: quarantined_rate"),
        (SOURCE + "fail_if: {near_rate: 10}\n", "less than or equal to 1. Found: 10"),
        (SOURCE + "fail_if: {leaked: -1}\n", "greater than or equal to 0"),
        (SOURCE + "fail_if: {checks: {refusl: 0.1}}\n", "'refusal'"),
    ],
)
def test_rules_that_are_missing_or_wrong_end_with_2(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    done = call("check", tmp_path / "r.yaml")
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert message in done.stderr
    assert done.stderr.startswith("siftune: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE + "fail_if: {leaked: 0}\n", "fail_if.leaked is not measured: the recipe has no `splits`"),
        (SOURCE + "fail_if: {random_split_leak_rate: 0}\n", "the recipe has no `splits`"),
        (SOURCE + "fail_if: {contaminated: 0}\n", "names no `contamination.references`"),
        (SOURCE + "fail_if: {semantic_rate: 0}\n", "the recipe leaves out `duplicates.semantic`"),
        (SOURCE + "duplicates: {conflicts: off}\nfail_if: {conflict_rate: 0}\n", "`duplicates.conflicts: off`"),
        (SOURCE + "fail_if: {checks: {language: 0}}\n", "the recipe says `checks.language: off`"),
    ],
)
def test_what_is_not_measured_is_an_error_and_no_pass(run: RunFolder, text: str, message: str) -> None:
    with pytest.raises(UserError, match="is not measured") as caught:
        check_rules(with_recipe(run, parse_recipe(text)))
    assert message in str(caught.value)


def test_data_that_came_without_splits_do_not_leak(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "split"} for row in ROWS]
    write_source(rows, tmp_path / "rows.jsonl")
    recipe = write_recipe(tmp_path, "rows.jsonl", splits={"test": 2}, fail_if={"leaked": 0})
    (result,) = check_rules(curate(recipe))
    assert result.passed


def test_every_row_check_has_a_rule() -> None:
    accepted = {name for name, value in Checks().model_dump().items() if isinstance(value, str)}
    schema = FailIf.model_json_schema()["properties"]["checks"]
    assert set(schema["propertyNames"]["enum"]) == accepted
    with pytest.raises(UserError, match="fail_if"):
        parse_recipe(SOURCE + "fail_if: {checks: {max_words: 0.1}}\n")
    assert Recipe(sources=[{"path": "a"}]).fail_if is None
