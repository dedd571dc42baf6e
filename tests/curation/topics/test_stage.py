"""Topics in a run: in rows.parquet, in the report, as a stratum of the splits and as a cap of the balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.review.diversity import diversity_sentence
from siftune.curation.review.tables import sources_text, topic_table
from siftune.curation.run.folder import RunFolder
from siftune.curation.topics.diversity import second_moment, vendi_score
from tests.worlds import BagOfWords, bag_encoder, write_recipe, write_source

pytest.importorskip("faiss")

_SUBJECTS = {
    "bake": ["flour", "yeast", "dough", "oven", "bread", "butter"],
    "code": ["python", "list", "loop", "string", "function", "class"],
    "trip": ["train", "hotel", "ticket", "museum", "beach", "map"],
}


def subject_rows(count: int) -> list[dict[str, str | None]]:
    """Rows on three subjects, every tenth a copy of an earlier one, and one that cannot be read."""
    draw = np.random.default_rng(4)
    rows: list[dict[str, str | None]] = []
    for number in range(count):
        words = _SUBJECTS[[*_SUBJECTS][number % 3]]
        prompt = " ".join(draw.permutation(words)[:4]) + f" question {number}"
        rows.append({"instruction": prompt, "output": f"answer {number} " + " ".join(draw.permutation(words))})
        if number % 10 == 9:
            rows.append(dict(rows[-1]))
    return [*rows, {"instruction": "broken", "output": None}]


@pytest.fixture(scope="module")
def topic_run(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("topics")
    write_source(subject_rows(150), folder / "rows.jsonl")
    recipe = write_recipe(
        folder,
        "rows.jsonl",
        encoder="bag",
        topics={"count": 3},
        splits={"test": 0.2, "near": 1.0, "semantic": 1.0, "by_topic": True},
        balance={"max_per_topic": 20},
    )
    with bag_encoder(folder / "cache"):
        yield curate(recipe), recipe


def test_every_row_that_could_be_read_has_the_topic_of_its_subject(topic_run):
    run, _ = topic_run
    rows = run.rows()
    assert rows.filter(pl.col("topic").is_null())["fate"].to_list() == ["quarantined"]
    texts = pl.read_parquet(run.texts).select("id", "prompt").join(rows, on="id", how="inner")
    by_subject = texts.with_columns(
        subject=pl.when(pl.col("prompt").str.contains("flour|yeast|dough|oven|bread"))
        .then(0)
        .when(pl.col("prompt").str.contains("python|list|loop|string|function"))
        .then(1)
        .otherwise(2)
    )
    assert by_subject.group_by("subject").agg(pl.col("topic").n_unique())["topic"].to_list() == [1, 1, 1]
    assert by_subject["topic"].n_unique() == 3
    words = set().union(*(name.split(", ") for name in by_subject["topic"].unique()))
    assert words <= set().union(*_SUBJECTS.values())


def test_the_measure_has_a_place_for_each_row_and_is_used_again(topic_run):
    run, recipe = topic_run
    measured = pl.read_parquet(run.file("topics"))
    assert measured.schema == schema.ROW_TOPICS
    assert measured["id"].to_list() == pl.read_parquet(run.examples)["id"].to_list()
    before = run.file("topics").stat().st_mtime_ns
    again = curate(recipe)
    assert again.file("topics").stat().st_mtime_ns == before
    assert {record.stage: record.reused for record in again.manifest.stages}["topics"]


def test_the_splits_follow_the_topics_and_the_cap_holds(topic_run):
    run, _ = topic_run
    rows = run.rows()
    held = rows.filter(pl.col("split") == "test", pl.col("fate") == "kept")["topic"].value_counts()["count"].to_list()
    assert len(held) == 3
    assert max(held) - min(held) <= 1
    trained = rows.filter(pl.col("split") == "train", pl.col("fate") == "kept")["topic"].value_counts()
    assert trained["count"].max() == 20
    assert "balance_topic" in rows["reason"].to_list()


def test_the_diversity_is_that_of_the_input_and_of_the_training_rows(topic_run):
    run, _ = topic_run
    texts = pl.read_parquet(run.texts).select("id", "core")
    trained = run.rows().filter(pl.col("split") == "train", pl.col("fate") == "kept")

    def score(frame: pl.DataFrame) -> float:
        return vendi_score(second_moment(BagOfWords().encode(frame["core"].to_list()).astype(np.float16))[0])

    record = run.manifest.diversity
    assert record is not None
    assert (record.rows_before, record.rows_after) == (texts.height, trained.height)
    assert record.before == pytest.approx(score(texts))
    assert record.after == pytest.approx(score(texts.join(trained, on="id", how="semi")))
    assert f"{record.before:,.1f}" in (diversity_sentence(run) or "")


def test_the_report_counts_topics_by_source_and_fate(topic_run):
    run, _ = topic_run
    rows = run.rows()
    table = topic_table(rows)
    assert table["rows"].sum() == rows.height - 1
    assert table["kept"].sum() == (rows["fate"] == "kept").sum()
    for line in table.to_dicts():
        of_topic = rows.filter(pl.col("topic") == line["topic"])
        assert (line["rows"], line["dropped"]) == (of_topic.height, (of_topic["fate"] == "dropped").sum())
        assert line["sources"] == [{"source": "s", "rows": of_topic.height, "kept": line["kept"]}]
        assert f"| {line['topic']} | {line['rows']} |" in run.report_markdown.read_text()
        assert line["topic"] in run.report_html.read_text()
    many = [{"source": f"s{number}", "rows": 2_000, "kept": 1} for number in range(6)]
    assert sources_text(many, most=2) == "s0 1 of 2,000, s1 1 of 2,000, 4 more"


def test_a_run_of_an_earlier_version_has_no_topics(topic_run, tmp_path):
    run, _ = topic_run
    old = RunFolder(tmp_path)
    write_parquet(run.rows().drop("topic"), old.rows_path)
    assert old.rows()["topic"].to_list() == [None] * run.rows().height
    assert topic_table(old.rows()).is_empty()


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"encoder": None, "topics": {}}, "topics need an encoder"),
        ({"splits": {"by_topic": True}}, "splits.by_topic needs topics"),
        ({"balance": {"max_per_topic": 3}}, "balance.max_per_topic needs topics"),
        ({"compare": {"by_topic": True}}, "compare.by_topic needs topics"),
        ({"topics": {"count": 1}}, "topics.count"),
    ],
)
def test_what_needs_topics_says_so(sections, complaint):
    document = {"sources": [{"path": "rows.jsonl"}], **sections}
    with pytest.raises(UserError, match=complaint):
        parse_recipe(yaml.safe_dump(document))


def test_pacmap_places_every_row_and_refuses_too_few(tmp_path: Path):
    pytest.importorskip("pacmap")
    from siftune.curation.topics.projection import pacmap

    vectors = np.repeat(np.eye(6), 20, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(120, 6))
    points = pacmap(vectors, seed=1)
    assert points.shape == (120, 2)
    assert np.isfinite(points).all()
    centres = points.reshape(6, 20, 2).mean(axis=1)
    spread = np.abs(points.reshape(6, 20, 2) - centres[:, None]).max()
    assert spread < np.linalg.norm(centres[:, None] - centres[None], axis=2)[~np.eye(6, dtype=bool)].max()
    with pytest.raises(UserError, match="more than 10 rows"):
        pacmap(vectors[:10], seed=1)
