"""A new batch against an earlier run or data set: as if both were curated together, and nothing is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from siftune.curation import pipeline
from siftune.curation.embeddings import store
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review import funnel
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.explain import explain
from siftune.curation.review.samples import decision_samples
from siftune.curation.review.tables import duplicates_by_source
from siftune.curation.review.what_if import replay
from siftune.curation.run.folder import RunFolder
from tests.worlds import (
    BagOfWords,
    bag_encoder,
    jaccard,
    kept_rows,
    many,
    rows,
    share_tokenizers,
    write_recipe,
    write_source,
)

EXAMPLES = settings(max_examples=2, phases=[Phase.explicit, Phase.generate])
SECTIONS: dict[str, Any] = {
    "encoder": "bag",
    "duplicates": {
        "near": {"threshold": 0.7, "floor": 0.5, "shingle": 2},
        "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
        "conflicts": "drop",
        "semantic": {"threshold": 0.95, "floor": 0.9},
    },
}
COMPARED = ("exact", "prefixes", "near", "answers", "conflicts", "semantic")
Row = dict[str, Any]
TAIL = "and then some more words so that it is no short answer"


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn only where it is looked at: it takes most of the time."""
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    with bag_encoder(tmp_path_factory.mktemp("cache")):
        yield lambda: tmp_path_factory.mktemp("against")


def curate_rows(folder: Path, data: Sequence[Row], name: str, **sections: Any) -> RunFolder:
    """Curate some rows; afterwards the file that they stood in is gone."""
    source = write_source(list(data), folder / f"{name}.jsonl")
    sections = {"sources": [{"path": source.name, "name": name, "format": "alpaca"}], "name": name, **sections}
    run = curate(write_recipe(folder, source.name, run=f"{name}-run", **sections))
    source.unlink()
    return run


def earlier_run(folder: Path, data: Sequence[Row], **sections: Any) -> RunFolder:
    return curate_rows(folder, data, "old", **{**SECTIONS, **sections})


def drops(run: RunFolder) -> pl.DataFrame:
    return run.ledger().filter(pl.col("action") == "drop", pl.col("stage").is_in(COMPARED))


@st.composite
def dialogues(draw: st.DrawFn) -> list[Row]:
    """Rows of which some continue an earlier one."""
    made = draw(rows())
    for row in made[1:]:
        if draw(st.integers(0, 4)) == 0:
            before = made[draw(st.integers(0, len(made) - 1))]
            row["history"] = [[before["instruction"], before["output"] or "river"]]
    return made


@EXAMPLES
@given(data=dialogues(), cut=st.integers(1, 20))
def test_the_result_is_that_of_both_together_with_the_earlier_rows_first(
    folder: Callable[[], Path], data: list[Row], cut: int
) -> None:
    decides_as_both_together(folder(), data[:cut], data[cut:] or data[:1])


def test_every_stage_drops_a_new_row_for_an_earlier_one(folder: Callable[[], Path]) -> None:
    words = ["river stone garden window", "silver bread winter castle", "forest mirror candle harbour"]
    first, second, third = ({"instruction": text, "output": f"{text} walnut yellow {TAIL}"} for text in words)
    shared = "this answer has words enough to be one that is counted when it repeats"
    repeated = [{"instruction": f"{text} {text} {text} is asked here", "output": shared} for text in words]
    longer = {"instruction": "saddle", "output": "pepper", "history": [["mirror castle", "velvet"]]}
    new = [
        first,
        {**third, "output": "thunder"},
        {"instruction": "window garden stone river", "output": " ".join(reversed(first["output"].split()))},
        repeated[2],
        {"instruction": "mirror castle", "output": "velvet"},
        {**second, "output": second["output"] + " velvet"},
    ]
    run = decides_as_both_together(folder(), [first, second, third, *repeated[:2], longer], new)
    for_earlier = drops(run).filter(pl.col("witness").str.starts_with("old:"))
    assert sorted(for_earlier["stage"]) == sorted(COMPARED)


def decides_as_both_together(world: Path, earlier: list[Row], new: list[Row]) -> RunFolder:
    """A run of new rows against a run of earlier ones, which decides as one over both."""
    old = earlier_run(world, earlier)
    against = curate_rows(world, new, "s", against=["old-run"], **SECTIONS)
    # Both together: the kept rows are a source of their own, more trusted than the new ones.
    kept = old.rows().filter(fate="kept")["id"].to_list()
    write_source([earlier[int(row_id.partition(":")[2])] for row_id in kept], world / "kept.jsonl")
    write_source(new, world / "s.jsonl")
    sources = [{"path": f"{name}.jsonl", "name": name, "format": "alpaca"} for name in ("kept", "s")]
    together = curate(write_recipe(world, "", run="together", **SECTIONS, sources=sources))

    is_new = pl.col("id").str.starts_with("s:")
    gone = together.ledger().filter(pl.col("action") == "drop", ~is_new)
    assert set(gone["reason"]) <= {"dialogue_prefix"}
    if gone.height:  # an earlier row that opens a new dialogue stays in a run against it, and still counts
        return against
    columns = ["id", "stage", "action", "reason", "score", "threshold", "witness", "detail"]
    expected = together.ledger().filter(is_new, pl.col("stage").is_in(COMPARED)).select(columns)
    names = {f"kept:{number}": f"old:{row_id}" for number, row_id in enumerate(kept)}
    expected = expected.with_columns(pl.col("witness").replace(names))
    decided = against.ledger().filter(pl.col("stage").is_in(COMPARED)).select(columns)
    assert decided.sort("id", "stage").to_dicts() == expected.sort("id", "stage").to_dicts()
    fates = ["id", "fate", "stage", "reason"]
    assert against.rows().select(fates).to_dicts() == together.rows().filter(is_new).select(fates).to_dicts()
    return against


BATCH = many(120)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunFolder, RunFolder]]:
    """An earlier run with splits, and a run against it; their report is drawn."""
    world = tmp_path_factory.mktemp("runs")
    with bag_encoder(tmp_path_factory.mktemp("cache")):
        splits = {"splits": {"test": 6, "validation": 4}}
        old = earlier_run(world, BATCH[:80], **splits)
        held_out = [row for split in ("test", "validation") for row in pl.read_parquet(old.heldout(split))["messages"]]
        same_prompts = [{"instruction": row[0]["content"], "output": f"walnut {TAIL}"} for row in held_out]
        new = [*BATCH[60:], *same_prompts]
        yield old, curate_rows(world, new, "s", against=["old-run"], **SECTIONS, **splits)


def test_earlier_rows_are_in_no_file_of_the_run_and_no_count(runs: tuple[RunFolder, RunFolder]) -> None:
    old, new = runs
    counts = new.manifest.finished_counts()
    assert (counts.input, counts.test, counts.validation) == (70, 6, 4)
    assert new.rows()["id"].str.starts_with("s:").all()
    for file in [*(new.path / "arms").glob("*.parquet"), *(new.path / "heldout").glob("*.parquet")]:
        assert pl.read_parquet(file)["id"].str.starts_with("s:").all()
    [record] = new.manifest.against
    assert (record.name, record.kind, record.rows) == ("old", "run", old.manifest.finished_counts().kept)


def test_no_split_resembles_another_one_of_the_earlier_run(runs: tuple[RunFolder, RunFolder]) -> None:
    old, new = runs
    earlier_texts, texts = (
        dict(pl.read_parquet(run.texts, columns=["id", "prompt"]).iter_rows()) for run in (old, new)
    )
    held = {name: pl.read_parquet(old.heldout(name))["id"].to_list() for name in ("test", "validation")}
    held["train"] = pl.read_parquet(old.arm("curated"))["id"].to_list()
    arms = [pl.read_parquet(path)["id"] for path in (new.path / "arms").glob("*.parquet")]
    ours = {name: pl.read_parquet(new.heldout(name))["id"].to_list() for name in ("test", "validation")}
    ours["train"] = pl.concat(arms).unique().to_list()
    assert all(ours.values())
    for name, ids in ours.items():
        for other in held.keys() - {name}:
            for one, two in ((one, two) for one in ids for two in held[other]):
                assert jaccard(texts[one], earlier_texts[two], 2) < 0.6
    # The ten rows with a held-out prompt are in no split, dropped as conflicts before or not.
    assert new.rows().filter(pl.col("split").is_null())["id"].to_list()[-10:] == [f"s:{row}" for row in range(60, 70)]
    leaks = new.ledger().filter(reason="leak", action="drop")
    assert leaks["witness"].str.starts_with("old:old:").all()
    certificate = new.manifest.certificate
    assert certificate is not None
    assert certificate.passed
    assert certificate.rows["earlier test"] == 6
    assert {(check.left, check.right) for check in certificate.checks} >= {
        ("train", "earlier test"),
        ("test", "earlier train"),
    }


def test_witnesses_are_shown_when_the_earlier_run_is_gone(
    runs: tuple[RunFolder, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = runs
    answers = dict(pl.read_parquet(old.texts).select("id", "answer").iter_rows())
    hidden = old.path.with_name("moved")
    old.path.rename(hidden)
    try:
        drop = drops(new).filter(pl.col("witness").str.starts_with("old:"), stage="near").row(0, named=True)
        answer = answers[drop["witness"].removeprefix("old:")]
        story = explain(new, drop["id"])
        assert story.chapters[-1].witness_fate == "kept earlier"
        assert answer in "".join(piece for _, piece in story.chapters[-1].differences[1])
        assert {"id": drop["witness"], "fate": "kept earlier"}.items() <= {
            key: story.neighbours[0][key] for key in ("id", "fate")
        }.items()
        assert explain(new, drop["witness"]).messages[-1]["content"] == answer
        assert Catalogue.load(new).earlier_messages(drop["witness"])[-1]["content"] == answer
        shown = [sample for samples in decision_samples(new).values() for sample in samples if sample.id == drop["id"]]
        assert answer in "".join(piece for _, piece in shown[0].right)
        assert "old (earlier)" in duplicates_by_source(new)["source of the witness"].to_list()
        [sentence] = funnel.against_sentences(new)
        assert sentence.startswith("Compared with ")
        assert " of the run old: " in sentence
        monkeypatch.undo()
        pipeline.report.write(new)
        assert sentence in new.report_html.read_text()
        # Another threshold, without the earlier run.
        again = replay(new, {}).dropped()
        dropped = new.ledger().filter(pl.col("action") == "drop", pl.col("stage").is_in(list(COMPARED)))
        assert again.sort("id").to_dicts() == dropped.select("id", "stage").sort("id").to_dicts()
    finally:
        hidden.rename(old.path)


class CountingEncoder(BagOfWords):
    """Remembers what it encoded."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        self.encoded += texts
        return super().encode(texts, progress)


def test_nothing_of_the_earlier_rows_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Callable[[], Path]
) -> None:
    old = earlier_run(tmp_path, BATCH[:80], splits={"test": 5})
    write_source(BATCH[80:100], tmp_path / "s.jsonl")
    encoder, sketched = CountingEncoder(), [0]
    monkeypatch.setattr(store, "load", lambda name: encoder)

    def curated(name: str) -> tuple[RunFolder, set[str], int]:
        """A run against the earlier one, the texts that it encoded, and the most rows that it sketched at once."""
        store.embedder.cache_clear()
        encoder.encoded.clear()
        sketched[:] = [0]
        recipe = write_recipe(tmp_path, "s.jsonl", run=name, against=["old-run"], splits={"test": 2}, **SECTIONS)
        run = curate(recipe, progress=lambda label, done, _: sketched.append(done if label == "sketching" else 0))
        return run, set(encoder.encoded), max(sketched)

    # On another machine, without the cache of embeddings.
    monkeypatch.setenv("SIFTUNE_CACHE", str(share_tokenizers(tmp_path / "cache")))
    run, encoded, rows_sketched = curated("run")
    prompts = set(pl.read_parquet(old.texts)["prompt"]) - set(pl.read_parquet(run.texts)["prompt"])
    assert encoded
    assert not encoded & prompts
    assert 0 < rows_sketched <= 20

    # What is stored is what would be computed.
    monkeypatch.setenv("SIFTUNE_CACHE", str(share_tokenizers(tmp_path / "second")))
    for path in [*(old.path / "measures").glob("*.npz"), *old.embeddings_folder.glob("*")]:
        path.unlink()
    again, encoded, rows_sketched = curated("again")
    assert encoded & prompts
    assert rows_sketched > 20
    assert again.ledger_path.read_bytes() == run.ledger_path.read_bytes()
    assert again.rows_path.read_bytes() == run.rows_path.read_bytes()


def test_a_data_set_is_treated_as_a_run(folder: Callable[[], Path]) -> None:
    world = folder()
    old = earlier_run(world, BATCH[:60])
    write_source(kept_rows(old.path), world / "kept.jsonl")

    def curated(*against: Any) -> tuple[list[str], pl.DataFrame, pl.DataFrame]:
        run = curate_rows(world, BATCH[50:90], "s", against=list(against), **SECTIONS)
        kinds = [record.kind for record in run.manifest.against]
        return kinds, drops(run), run.rows().select("id", "fate", "stage", "reason")

    _, drops_by_run, rows_by_run = curated("old-run")
    kinds, drops_by_data, rows_by_data = curated({"path": "kept.jsonl"})
    assert kinds == ["data set"]
    assert drops_by_run["witness"].str.starts_with("old:old:").any()
    assert drops_by_data["witness"].str.starts_with("kept:").any()
    assert rows_by_data.equals(rows_by_run)
    # Both at once: every earlier row counts twice, which matters for repeated answers alone.
    kinds, drops_by_both, _ = curated("old-run", {"path": "kept.jsonl"})
    assert kinds == ["run", "data set"]
    nearest = pl.col("stage").is_in(["exact", "near"])
    assert drops_by_both.filter(nearest)["id"].equals(drops_by_run.filter(nearest)["id"])


def test_without_splits_no_row_resembles_a_held_out_row_of_the_earlier_run(folder: Callable[[], Path]) -> None:
    world = folder()
    old = earlier_run(world, BATCH[:60], splits={"test": 5})
    prompt = pl.read_parquet(old.heldout("test"))["messages"][0][0]["content"]
    new = [{"instruction": prompt, "output": f"walnut {TAIL}"}, {"instruction": "saddle", "output": f"pepper {TAIL}"}]
    recipe = {**SECTIONS, "duplicates": {**SECTIONS["duplicates"], "conflicts": "report"}}
    run = curate_rows(world, new, "s", against=["old-run"], **recipe)
    assert run.rows().filter(reason="leak")["id"].to_list() == ["s:0"]
    assert pl.read_parquet(run.arm("curated"))["id"].to_list() == ["s:1"]
    assert run.manifest.certificate is not None
    assert run.manifest.certificate.passed


@pytest.mark.parametrize(
    ("against", "changed", "message"),
    [
        (["nothing"], {}, "nothing"),
        (["empty"], {}, "holds no file that can be read"),
        (
            ["old-run"],
            {"keys": {"duplicates": "prompt"}},
            "was made with other keys (duplicates: dialogue, here prompt)",
        ),
        (["old-run"], {"encoder": "another"}, "are by the encoder bag-of-words, those of this recipe by another"),
        (["old-run", "old-run"], {}, "Give one of them another `name:`"),
        (["unfinished"], {}, "is not finished"),
    ],
)
def test_what_cannot_be_compared_with_is_refused_in_one_sentence(
    runs: tuple[RunFolder, RunFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: Callable[[], Path],
    against: list[str],
    changed: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "old-run").symlink_to(runs[0].path)
    (tmp_path / "unfinished").mkdir()
    for name in ("manifest.json", "recipe.yaml"):
        (tmp_path / "unfinished" / name).write_bytes((runs[0].path / name).read_bytes())
    unfinished = RunFolder(tmp_path / "unfinished")
    unfinished.manifest.model_copy(update={"counts": None}).write(unfinished.manifest_path)

    class Another(BagOfWords):
        name = "another"

    monkeypatch.setattr(store, "load", lambda name: Another() if name == "another" else BagOfWords())
    store.embedder.cache_clear()
    write_source(BATCH[:3], tmp_path / "s.jsonl")
    recipe = write_recipe(tmp_path, "s.jsonl", against=against, **{**SECTIONS, **changed})
    with pytest.raises(UserError) as fault:
        curate(recipe)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_templates_of_an_earlier_source_are_templates_here(folder: Callable[[], Path]) -> None:
    world = folder()
    template = "please answer the following question as well as you possibly can: "
    first = [{"instruction": template + row["instruction"], "output": row["output"]} for row in BATCH[:70]]
    old = curate_rows(world, first, "s")
    assert not pl.read_parquet(old.texts)["core"].str.contains("possibly").any()
    asked = {"instruction": template + "saddle thunder", "output": "pepper"}
    old.path.rename(world / "first")
    run = curate_rows(world, [asked], "s", against=[{"path": "first", "name": "first"}])
    assert pl.read_parquet(run.texts)["core"].to_list() == ["saddle thunder"]
