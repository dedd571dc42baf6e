"""What-if must say what a run with the other threshold does: the decisions of every stage, row for row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review.what_if import ThresholdReplays, replay
from siftune.curation.run.folder import RunFolder
from tests.worlds import bag_encoder, many, write_recipe, write_source

DUPLICATES: dict[str, dict[str, Any]] = {
    "near": {"threshold": 0.7, "floor": 0.2, "shingle": 2},
    "answers": {"max_per_answer": 2, "min_words": 3, "threshold": 0.8, "floor": 0.6},
    "semantic": {"threshold": 0.8, "floor": 0.6, "rows": 0.6},
}
#: What `Replay` cannot know: it reads no texts.
SPELLED = "detail"


def data() -> list[dict[str, Any]]:
    rows = many(90)
    answer = rows[0]["output"].split()
    for place in range(0, 60, 7):  # one answer, exactly or nearly, under many prompts
        message = list(answer)
        if place % 3:
            message[6] = f"word{place % 2}"
        rows[place]["output"] = " ".join(message)
    for place in range(61, 90, 4):  # the same words in another order, all of them or but for some
        prompt, answer = (rows[place - 30][side].split()[::-1] for side in ("instruction", "output"))
        answer[: place % 5] = [f"new{'abcde'[number]}{chr(97 + place % 26)}" for number in range(place % 5)]
        rows[place] = {"instruction": " ".join(prompt), "output": " ".join(answer)}
    return rows


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whatif")
    write_source(data(), folder / "s.jsonl")
    with bag_encoder(folder / "cache"):
        yield folder


@pytest.fixture(scope="module")
def run(here: Path) -> RunFolder:
    return curate(write_recipe(here, "s.jsonl", run="first", encoder="bag", duplicates=DUPLICATES))


@pytest.mark.parametrize(
    ("setting", "section", "field"),
    [
        ({"near": 0.9}, "near", "threshold"),
        ({"near": 0.3}, "near", "threshold"),
        ({"answers": 0.65}, "answers", "threshold"),
        ({"max_per_answer": 1}, "answers", "max_per_answer"),
        ({"max_per_answer": 9}, "answers", "max_per_answer"),
        ({"semantic": 0.65}, "semantic", "threshold"),
        ({"semantic": 0.99}, "semantic", "threshold"),
    ],
    ids=str,
)
def test_a_replay_decides_as_a_run_with_that_setting(
    here: Path, run: RunFolder, setting: dict[str, float], section: str, field: str
) -> None:
    found = replay(run, setting)
    (value,) = setting.values()
    changed = {**DUPLICATES, section: {**DUPLICATES[section], field: value}}
    other = curate(
        write_recipe(here, "s.jsonl", run=f"{section}-{field}-{value}", encoder="bag", duplicates=changed)
    ).ledger()
    assert set(found.decisions) == set(run.manifest.files) & set(found.decisions)
    for stage, decisions in found.decisions.items():
        if stage in found.unmeasured:
            break  # rows reach this stage that the first run did not measure there: the replay says so
        real = other.filter(pl.col("stage") == stage).drop("step", "stage", SPELLED).sort("id", "action")
        assert decisions.drop(SPELLED).sort("id", "action").equals(real), stage
        if stage == section:
            break
    else:
        pytest.fail("the stage in question was never compared")
    assert stage == section
    before = run.ledger().filter(stage=section, action="drop")["id"].to_list()
    assert other.filter(stage=section, action="drop")["id"].to_list() != before, "this setting changes nothing"


def test_replaying_the_same_settings_gives_the_run_itself(run: RunFolder) -> None:
    found = replay(run, {"near": 0.7})
    dropped = run.ledger().filter(action="drop").select("id", "stage").sort("id")
    assert found.dropped().sort("id").equals(dropped)
    assert found.left["id"].to_list() == run.rows().filter(fate="kept")["id"].to_list()
    assert not found.unmeasured


def test_one_threshold_after_the_other_is_decided_as_each_by_itself(run: RunFolder) -> None:
    replays = ThresholdReplays.open(run)
    settings: list[dict[str, float]] = [
        {"semantic": 0.65},
        {"near": 0.3},
        {},
        {"semantic": 0.99},
        {"max_per_answer": 1},
    ]
    for setting in [*settings, {"near": 0.9, "answers": 0.65}]:
        one, alone = replays.replay(setting), replay(run, setting)
        assert list(one.decisions) == list(alone.decisions)
        for stage, decisions in alone.decisions.items():
            assert one.decisions[stage].equals(decisions), (setting, stage)
        assert one.unmeasured == alone.unmeasured
        left = sorted([*one.left["row"], *replays.stored.others.tolist()])
        assert left == alone.left["row"].to_list()
    with pytest.raises(UserError, match="the floor of the stored scores"):
        replays.replay({"near": 0.1})


def test_rows_that_a_later_stage_never_measured_are_counted(run: RunFolder) -> None:
    gone = replay(run, {"near": 0.7}).dropped().filter(stage="near").height
    found = replay(run, {"near": 1.0})
    spared = gone - found.dropped().filter(stage="near").height
    assert spared > 0
    assert found.unmeasured["answers"] == spared


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"near": 0.1}, r"Accepted: 0\.2 .* to 1\. For lower ones set duplicates\.near\.floor"),
        ({"near": 1.1}, r"near=1\.1 .*Accepted: 0\.2 \(the floor of the stored scores\) to 1\.$"),
        ({"near": float("nan")}, "the floor of the stored scores"),
        ({"nea": 0.5}, "Did you mean 'near'"),
        ({"contamination": 0.9}, "no contamination stage"),
        ({"max_per_answer": 0}, "whole number"),
        ({"max_per_answer": 1.5}, "whole number"),
    ],
    ids=str,
)
def test_what_cannot_be_replayed_is_refused(run: RunFolder, setting: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replay(run, setting)


def test_a_stage_that_the_run_has_not_cannot_be_replayed(here: Path) -> None:
    without = curate(write_recipe(here, "s.jsonl", run="without"))
    with pytest.raises(UserError, match="no semantic stage"):
        replay(without, {"semantic": 0.9})


def test_a_higher_threshold_spares_look_alikes_of_a_benchmark(here: Path) -> None:
    write_source(data()[:3], here / "quiz.jsonl")
    settings = {"references": [{"path": "quiz.jsonl"}]}
    run = curate(write_recipe(here, "s.jsonl", run="quizzed", contamination=settings))
    one, two, three = run.rows().filter(fate="kept")["id"].head(3)
    stored = [
        (one, "quiz:0", schema.PARAPHRASE, "same", 0.9),
        (one, "quiz:1", "layered/ngram", "same", 0.6),
        (two, "quiz:0", schema.PARAPHRASE, "same", 0.55),
        (three, "quiz:2", schema.PARAPHRASE, "same", 0.8),
        (three, "quiz:1", schema.PARAPHRASE, "decoy", 0.5),
    ]
    lines = pl.DataFrame(stored, schema=["id", "reference", "rule", "outcome", "score"], orient="row")
    write_parquet(schema.conform(lines, schema.MATCHES), run.file("contamination"), checked=True)

    def decided(threshold: float) -> list[tuple[Any, ...]]:
        found = replay(run, {"contamination": threshold}).decisions["contamination"]
        return found.select("id", "action", "reason", "witness", "score", "threshold").rows()

    same, related = ("drop", "contamination"), ("report", "related_item")
    assert decided(0.5) == [
        (one, *same, "quiz:0", 0.9, 0.5),
        (two, *same, "quiz:0", 0.55, 0.5),
        (three, *same, "quiz:2", 0.8, 0.5),
    ]
    assert decided(0.8) == [
        (one, *same, "quiz:0", 0.9, 0.8),
        (two, *related, "quiz:0", 0.55, 0.8),
        (three, *same, "quiz:2", 0.8, 0.8),
    ]
    assert decided(0.95) == [
        (one, *same, "quiz:1", 0.6, None),
        (two, *related, "quiz:0", 0.55, 0.95),
        (three, *related, "quiz:2", 0.8, 0.95),
    ]
    assert run.matches().height == 4
    with pytest.raises(UserError, match=r"Accepted: 0\.5 \(the floor of the stored scores\) to 1"):
        decided(0.4)
