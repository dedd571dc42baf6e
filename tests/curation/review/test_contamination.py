"""What a run shows of contamination: items beside rows, pairs on both sides of a threshold, estimates by benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from siftune.app.cli.commands import main
from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.pipeline import curate
from siftune.curation.review import report
from siftune.curation.review.explain import explain
from siftune.curation.review.labels import precision, read_labels, write_label
from siftune.curation.review.matched_items import CONTAMINATION, matched_items
from siftune.curation.review.pairs import ITEM_KINDS, borderline, score_histogram, threshold_stages, with_scores
from siftune.curation.review.samples import threshold_samples
from siftune.curation.review.tables import benchmark_table, duplicate_groups
from siftune.curation.review.what_if import replay
from siftune.curation.run.folder import RunFolder
from tests.worlds import bag_encoder, many, write_recipe, write_source

HOSTILE = "<script>alert(1)</script> ![x](http://attacker.example/p.png) | \u202e \x1b[31m {{ 7*7 }}"
QUESTION = "how many apples does the farmer have after the market when he sold seven of the nineteen"
ITEMS = [
    {"instruction": QUESTION, "output": "twelve"},
    {"instruction": f"{HOSTILE} which planet is the largest of all that circle the sun", "output": "Jupiter"},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Rows of which one is the first item; its benchmark has the name of the source, and is gone afterwards."""
    folder = tmp_path_factory.mktemp("contamination")
    write_source([*many(40), {"instruction": QUESTION, "output": "the answer is twelve"}], folder / "s.jsonl")
    write_source(ITEMS, folder / "quiz.jsonl")
    references = [{"path": "quiz.jsonl", "name": "s", "format": "alpaca"}]
    with bag_encoder(folder / "cache"):
        run = curate(
            write_recipe(
                folder, "s.jsonl", encoder="bag", contamination={"references": references, "max_false_discovery": 0.5}
            )
        )
    (folder / "quiz.jsonl").unlink()
    return run


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(made.path, tmp_path / "run")))


def with_matches(run: RunFolder, *scored: tuple[str, str, str, float]) -> list[str]:
    """Let the run hold these matches (reference, rule, outcome, score) of its first kept rows; returns the rows."""
    ids = run.rows().filter(fate="kept")["id"].head(len(scored)).to_list()
    names = ["id", "reference", "rule", "outcome", "score"]
    frame = pl.DataFrame([(row, *match) for row, match in zip(ids, scored, strict=True)], schema=names, orient="row")
    item = pl.struct(prompt=pl.lit(HOSTILE), answer=pl.lit("Jupiter"), distractors=pl.lit(["Mars"]))
    filled = frame.with_columns(
        field=pl.lit("prompt"), span=pl.lit(HOSTILE), detail=pl.lit(f"shared: planet; {HOSTILE}"), item=item
    )
    write_parquet(schema.conform(filled, schema.MATCHES), run.file(CONTAMINATION), checked=True)
    return ids


def test_an_item_is_shown_when_its_file_is_gone_and_is_no_row_of_the_same_name(run: RunFolder) -> None:
    (item,) = matched_items(run, ["s:0", "s:7"]).values()
    assert (item.prompt, item.answer, item.distractors) == (QUESTION, "twelve", ())
    story = explain(run, "s:40")
    (chapter,) = (chapter for chapter in story.chapters if chapter.decision["stage"] == CONTAMINATION)
    assert chapter.decision["witness"] == "s:0"
    assert chapter.witness_fate is None
    assert chapter.differences is not None
    left, right = ("".join(text for _, text in side) for side in chapter.differences)
    assert left == f"{QUESTION}\nthe answer is twelve"
    assert right == f"{QUESTION}\ntwelve"
    assert [text for kind, text in chapter.differences[0] if kind == "changed"] == ["the answer is "]
    assert [(step["witness"], step["fate"]) for step in story.chain] == [("s:0", None)]
    printed = CliRunner().invoke(main, ["explain", str(run.path), "s:40"]).output
    assert "[the answer is] twelve" in printed


def test_an_item_is_no_kept_row_with_duplicates(run: RunFolder) -> None:
    groups = duplicate_groups(run)
    others = [CONTAMINATION, "conflicts", "splits", "balance"]
    dropped = run.ledger().filter(pl.col("action") == "drop", ~pl.col("stage").is_in(others))
    assert groups["rows"].sum() == dropped.filter(pl.col("witness").is_not_null()).height > 0


def test_the_pairs_on_both_sides_of_the_threshold_of_their_own_benchmark(run: RunFolder) -> None:
    rows = with_matches(
        run,
        ("one:0", schema.PARAPHRASE, "same", 0.95),
        ("one:1", schema.PARAPHRASE, "same", 0.6),
        ("one:2", schema.PARAPHRASE, "related", 0.4),
        ("two:0", schema.PARAPHRASE, "same", 0.9),
        ("two:0", schema.PARAPHRASE, "decoy", 0.8),
        ("two:1", schema.PARAPHRASE, "decoy", 0.8),
        ("two:2", schema.PARAPHRASE, "same", 0.7),
        ("two:3", "layered/ngram", "same", 0.55),
    )
    # The two decoys of `two` raise its threshold to 0.9: at 0.7 they would be more than half of the matches.
    pairs = borderline(run, CONTAMINATION, 0.5)
    assert pairs.select("a", "b", "score", "threshold").rows() == [
        (rows[3], "two:0", 0.9, 0.9),
        (rows[1], "one:1", 0.6, 0.5),
        (rows[2], "one:2", 0.4, 0.5),
        (rows[6], "two:2", 0.7, 0.9),
        (rows[0], "one:0", 0.95, 0.5),
    ]
    assert borderline(run, CONTAMINATION, 0.5, most=2)["b"].to_list() == ["two:0", "one:2"]
    (shown,) = (samples for samples in threshold_samples(run) if samples.stage.name == CONTAMINATION)
    assert [sample.witness for sample in shown.above] == ["two:0", "one:1", "one:0"]
    assert [sample.witness for sample in shown.below] == ["one:2", "two:2"]
    assert "".join(text for _, text in shown.above[0].right) == f"{HOSTILE}\nJupiter\nMars"
    histogram = score_histogram(run, CONTAMINATION).group_by("kind").agg(pl.col("pairs").sum())
    assert dict(histogram.iter_rows()) == {ITEM_KINDS[0]: 5, ITEM_KINDS[1]: 2}
    # What counts in the table counts in a replay.
    table = {line["benchmark"]: line for line in benchmark_table(run).to_dicts()}
    assert {name: (line["same"], line["related"], line["threshold"]) for name, line in table.items()} == {
        "one": (2, 1, 0.5),
        "two": (2, 1, 0.9),
    }
    assert (table["two"]["decoys"], table["two"]["rate"], table["one"]["rate"]) == (0, 0.0, 0.0)
    decided = replay(run, {}).decisions[CONTAMINATION].filter(action="drop")
    assert decided["id"].to_list() == [rows[0], rows[1], rows[3], rows[7]]
    assert benchmark_table(run, 0.93)["same"].sum() == 2
    at_higher = replay(run, {"contamination": 0.93}).decisions[CONTAMINATION].filter(action="drop")
    assert at_higher["id"].to_list() == [rows[0], rows[7]]
    printed = CliRunner().invoke(main, ["what-if", str(run.path), "contamination=0.93"])
    assert printed.exit_code == 0
    assert f"contamination  {rows[7]}" in printed.output
    assert f"contamination  {rows[1]}" not in printed.output


def test_a_benchmark_that_no_threshold_suits_has_pairs_below_only(run: RunFolder) -> None:
    rows = with_matches(
        run,
        ("one:0", schema.PARAPHRASE, "decoy", 0.95),
        ("one:1", schema.PARAPHRASE, "same", 0.6),
        ("one:2", schema.PARAPHRASE, "same", 0.7),
        ("one:3", schema.PARAPHRASE, "decoy", 0.8),
    )
    assert borderline(run, CONTAMINATION, 0.5)["a"].to_list() == [rows[2], rows[1]]
    (line,) = benchmark_table(run).to_dicts()
    assert (line["same"], line["related"]) == (0, 2)
    report.write(run)
    assert "| one | 0 | 2 | none | no row in other words |" in run.report_markdown.read_text(encoding="utf-8")


def test_labels_of_rows_and_items_measure_the_precision(run: RunFolder) -> None:
    scored_items = [(f"one:{number}", schema.PARAPHRASE, "same", 0.9 - number / 10) for number in range(4)]
    rows = with_matches(run, *scored_items)
    for number, same in enumerate([True, True, False]):
        write_label(run, a=rows[number], b=f"one:{number}", measure=CONTAMINATION, same=same)
    scored = with_scores(run, CONTAMINATION, read_labels(run, CONTAMINATION), threshold=0.65)
    measured = precision(scored, 0.65)
    assert (measured.same, measured.labelled) == (2, 3)
    assert precision(scored, 0.75).value == 1.0


def test_report_shows_items_beside_rows_as_text_only(run: RunFolder) -> None:
    with_matches(run, ("one:0", schema.PARAPHRASE, "same", 0.9), ("one:1", schema.PARAPHRASE, "related", 0.4))
    report.write(run)
    page, text = (path.read_text(encoding="utf-8") for path in (run.report_html, run.report_markdown))
    assert "rows: related item" in page
    assert "item: one:1" in page
    assert "shared: planet" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page
    assert "| at or above | 0.9000 | s:0 | one:0 |" in text
    assert "| below | 0.4000 | s:1 | one:1 |" in text
    assert "<script>alert" not in text.replace("\\<", "")
    assert "![x]" not in text
    assert not set(page + text) & {"\u202e", "\x1b"}


@pytest.mark.parametrize(
    ("settings", "listed"), [({"encoder": "bag"}, True), ({"encoder": None}, False), ({"rules": ["palm-8gram"]}, False)]
)
def test_contamination_has_a_threshold_where_items_are_searched_in_other_words(
    tmp_path: Path, settings: dict[str, Any], listed: bool
) -> None:
    write_source(many(4), tmp_path / "s.jsonl")
    write_source(ITEMS, tmp_path / "quiz.jsonl")
    encoder = settings.pop("encoder", "bag")
    contamination = {"references": [{"path": "quiz.jsonl", "format": "alpaca"}], **settings}
    with bag_encoder(tmp_path / "cache"):
        run = curate(write_recipe(tmp_path, "s.jsonl", encoder=encoder, contamination=contamination))
    assert (CONTAMINATION in [stage.name for stage in threshold_stages(run)]) == listed
