"""The recipe that is written for data: it says what was measured, curates them, and holds whatever the data hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.app.cli.commands import main
from siftune.curation.pipeline import curate
from siftune.curation.recipe.loading import load_recipe, parse_recipe
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Source
from siftune.curation.recipe.starting_recipe import starting_recipe, yaml_value
from siftune.curation.review.inspect import DuplicateCounts, Inspection, inspect
from siftune.curation.review.suggested_recipe import suggested_recipe
from tests.worlds import many, write_source

CASES = Path(__file__).parents[4] / "shared" / "cases"


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(*inspections: Inspection, folder: str = ".", **options: dict[str, str]) -> str:
    return suggested_recipe(inspections, data_folder=Path(), recipe_folder=Path(folder), **options)


@pytest.fixture(scope="module")
def inspection(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    """Of 330 rows, every third a near copy, with two data sets in a column."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [row | {"source": "ab"[number % 2]} for number, row in enumerate(many(330))]
    write_source(rows, folder / "rows.jsonl")
    return inspect(Source(path="rows.jsonl"), base=folder)


def with_duplicates(inspection: Inspection, **counts: object) -> Inspection:
    assert inspection.duplicates is not None
    return replace(inspection, duplicates=replace(inspection.duplicates, **counts))


def test_the_recipe_curates_and_its_figures_are_those_of_the_run(tmp_path: Path, inspection: Inspection) -> None:
    rows = [row | {"source": "ab"[number % 2]} for number, row in enumerate(many(330))]
    write_source(rows, tmp_path / "rows.jsonl")
    (tmp_path / "rows.yaml").write_text(written(inspection) + "encoder: null\n")
    run = curate(tmp_path / "rows.yaml")
    dropped = run.ledger().filter(action="drop")["stage"].value_counts().rows()
    near = dict(dropped)["near"]
    assert near > 10
    assert f"near: {{threshold: 0.6}}  # rows dropped: {near:,} (" in written(inspection)
    assert run.manifest.counts is not None
    assert run.manifest.counts.test == round(0.05 * (330 - sum(dict(dropped).values())))
    assert set(run.rows()["source"].unique()) == {"rows/a", "rows/b"}


def test_figures_at_other_thresholds_are_those_of_other_runs(inspection: Inspection) -> None:
    counts = inspection.duplicates
    assert counts is not None
    assert counts.near_at[0.6] == counts.near
    assert list(counts.near_at.values()) == sorted(counts.near_at.values(), reverse=True)
    assert counts.near_at[0.9] < counts.near_at[0.6]


def test_a_threshold_that_drops_more_than_a_third_is_not_suggested(inspection: Inspection) -> None:
    many_near = with_duplicates(inspection, near=200, near_at={0.6: 200, 0.7: 111, 0.8: 110, 0.9: 3})
    text = written(many_near)
    assert parse_recipe(text).duplicates.near.threshold == 0.8
    assert "stricter than the default, which drops more than a third of the rows: rows dropped: 110" in text
    all_near = with_duplicates(inspection, near=300, near_at={0.6: 300, 0.7: 300, 0.8: 300, 0.9: 300})
    assert parse_recipe(written(all_near)).duplicates.near.threshold == 0.9


def test_splits_of_the_data_are_kept_and_few_rows_are_not_split(inspection: Inspection) -> None:
    found = parse_recipe(written(replace(inspection, splits={"train_sft": 300, "dev": 30})))
    assert found.splits is not None
    assert "the data have splits (train 300, validation 30)" in written(
        replace(inspection, splits={"train_sft": 300, "dev": 30})
    )
    assert parse_recipe(written(replace(inspection, splits={"train": 330}))).splits.test == 0.05
    assert parse_recipe(written(with_duplicates(inspection, exact=200))).splits is None
    huge = replace(inspection, source=inspection.source.model_copy(update={"rows": 10**6, "examples": 10**6}))
    assert parse_recipe(written(huge)).splits.test == 1000
    assert parse_recipe(written(huge)).encoder is None


def test_unusually_long_texts_get_a_limit(inspection: Inspection) -> None:
    sizes = dict.fromkeys(("min", "p10", "p50", "p90", "p99"), 30)
    lengths = {"prompt_words": sizes | {"max": 30}, "answer_words": sizes | {"max": 301}}
    assert parse_recipe(written(replace(inspection, lengths=lengths))).checks.max_words == 300
    lengths["answer_words"]["max"] = 300
    assert parse_recipe(written(replace(inspection, lengths=lengths))).checks.max_words == 4096


_NAMES = st.text(min_size=1, max_size=12).filter(lambda name: not set(name) & set("/\0") and name[0] not in "~.")


@settings(max_examples=25)
@given(name=_NAMES, column=st.text(max_size=12), warning=st.text(max_size=30))
def test_no_text_of_the_data_leaves_its_place(inspection: Inspection, name: str, column: str, warning: str) -> None:
    record = inspection.source.model_copy(update={"path": name, "warnings": [warning]})
    hostile = replace(inspection, source=record, text_columns={column: warning}, parts={column: 2} if column else {})
    read = parse_recipe(written(hostile, columns={"instruction": column}))
    usual = parse_recipe(written(inspection))
    (source,) = read.sources
    assert (source.path, source.columns) == (name, {"instruction": column})
    assert source.source_column == (column or None)
    assert read.model_dump(exclude={"sources"}) == usual.model_dump(exclude={"sources"})
    assert parse_recipe(starting_recipe([name])).sources[0].path == name
    assert len(yaml_value([name, column]).splitlines()) == 1


def test_several_sources_are_summed_and_paths_start_from_the_recipe(inspection: Inspection) -> None:
    text = written(inspection, inspection, folder="recipes/mine")
    read = parse_recipe(text)
    assert [source.path for source in read.sources] == ["../../rows.jsonl"] * 2
    near = re.search(r"rows dropped: ([\d,]+)", text)
    assert near is not None
    assert inspection.duplicates is not None
    assert int(near[1]) == 2 * (inspection.duplicates.near or 0)
    hub = replace(inspection, source=inspection.source.model_copy(update={"path": "hf://owner/name"}))
    assert parse_recipe(written(hub, folder="recipes")).sources[0].path == "hf://owner/name"


def test_nothing_measured_leaves_the_defaults(inspection: Inspection) -> None:
    unmeasured = DuplicateCounts(exact=0, near=None, answers=None, conflicts=0, near_threshold=0.6)
    read = parse_recipe(written(replace(inspection, duplicates=unmeasured)))
    assert read.duplicates == Recipe(sources=[Source(path="a")]).duplicates


@pytest.mark.skipif(not CASES.is_dir(), reason="the problem files are not on this machine")
@pytest.mark.parametrize(
    "path",
    [
        "24-columns-change/merged.jsonl",
        "30-split-folders/named",
    ],
)
def test_a_recipe_reads_what_was_inspected(path: str) -> None:
    before = inspect(Source(path=str(CASES / path)), base=Path())
    (source,) = parse_recipe(written(before)).sources
    after = inspect(source, base=Path())
    assert after.source.examples == before.source.examples
    assert (after.samples, after.splits) == (before.samples, before.splits)


def test_the_command_writes_a_file_once_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"query text": row["instruction"], "reply": row["output"]} for row in many(6)]
    write_source(rows, tmp_path / "odd.jsonl")
    (tmp_path / "sub").mkdir()
    assert "--column instruction=COLUMN" in call("recipe", "new", "odd.jsonl").stderr
    roles = ("--column", "instruction=query text", "--column", "output=reply")
    done = call("recipe", "new", "odd.jsonl", *roles, "--out", "sub/odd.yaml")
    assert done.exit_code == 0, done.output
    assert "siftune curate sub/odd.yaml" in done.stdout
    assert call("curate", "sub/odd.yaml").exit_code == 0
    before = (tmp_path / "sub" / "odd.yaml").read_bytes()
    for words, message in (
        (["odd.jsonl", *roles, "--out", "sub/odd.yaml"], "sub/odd.yaml exists and is left as it is"),
        (["odd.jsonl", "--out", "gone/odd.yaml"], "no folder gone"),
        (["odd.json"], "Did you mean 'odd.jsonl'"),
        (["odd.jsonl", "--column", "instruction=gone"], "there is no column 'gone'"),
        (["odd.jsonl", "--column", "nothing"], "ROLE=COLUMN"),
    ):
        refused = call("recipe", "new", *words)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert message in refused.stderr
    assert (tmp_path / "sub" / "odd.yaml").read_bytes() == before
    assert call("recipe", "new", "odd.jsonl", "--full", "--out", "sub/full.yaml").exit_code == 0
    assert load_recipe(tmp_path / "sub" / "full.yaml").sources[0].path == "../odd.jsonl"


def test_rows_that_cannot_be_used_give_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_source([{"question": "q", "answer": ""}], tmp_path / "blank.jsonl")
    done = call("recipe", "new", "blank.jsonl", "--out", "r.yaml")
    assert done.exit_code == 2
    assert "none of the 1 rows can be used (empty_answer 1)" in done.stderr
    assert not (tmp_path / "r.yaml").exists()
