"""Tasks of lm-evaluation-harness by name, from a folder of one's own: no network, a real tiny model, real adapters."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import yaml

from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.recipe.training_sections import Task
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.tasks.harness import harness_outcomes, outcome_measure, read_harness_items
from siftune.training.evaluation.tasks.items import read_items
from siftune.training.evaluation.tasks.score_tasks import score_tasks
from tests.training.evaluation.tasks.test_scoring import write_run
from tests.training.worlds import toy_messages

pytest.importorskip("lm_eval")

SUMS = [
    {"question": f"What is {a} plus 3?", "choices": [str(a + 5), str(a + 3), str(a * 9)], "gold": 1}
    for a in range(2, 8)
]


def write_tasks(folder: Path) -> Path:
    """Two tasks and a group, with their data beside them."""
    folder.mkdir()
    toys = [toy_messages(number) for number in (0, 500, 501)]
    answers = [{"question": prompt["content"], "answer": answer["content"]} for prompt, answer in toys]
    for name, rows in (("sums", SUMS), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{question}}", "metadata": {"version": 1}}
    sums = {
        "task": "my_sums",
        "output_type": "multiple_choice",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    answers_task = {
        "task": "my_answers",
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match"}],
    }
    for name, task in (("sums", sums), ("answers", answers_task)):
        data = {"dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | task | data), encoding="utf-8")
    (folder / "group.yaml").write_text(yaml.safe_dump({"group": "mine", "task": ["my_sums", "my_answers"]}))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests that ask for the harness's own tasks: to list them takes seconds, and is done once."""
    folder = tmp_path_factory.mktemp("harness")
    write_tasks(folder / "tasks")
    return folder


def task(path: str, **fields: object) -> Task:
    return Task.model_validate({"path": path, "kind": "lm-eval", "include": "tasks", **fields})


def test_items_of_a_group_are_read_with_their_tasks_as_clusters(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    items = read_items(task("mine"), base=tmp_path, seed=0)
    assert items["cluster"].to_list() == ["my_sums"] * 6 + ["my_answers"] * 3
    first = items.row(0, named=True)
    assert (first["item"], first["prompt"], first["answer"]) == ("my_sums:0", "What is 2 plus 3?", "5")
    assert first["choices"] == ["5", "7", "18"]
    assert items["choices"][8] is None
    alone = read_items(task("my_sums", max_items=4), base=tmp_path, seed=0)
    assert alone.height == 4
    assert alone["cluster"].to_list() == alone["item"].to_list()
    some = read_items(task("mine", subjects=["my_answers"]), base=tmp_path, seed=0)
    assert some["item"].to_list() == [f"my_answers:{number}" for number in range(3)]


def test_every_arm_is_scored_on_the_chosen_items_as_the_harness_scores_it(tmp_path: Path, tiny_model: Path) -> None:
    write_tasks(tmp_path / "tasks")
    own = {"path": "mine", "kind": "lm-eval", "include": "tasks", "max_items": 7}
    run = write_run(tmp_path, tiny_model, [own])
    evaluations = score_tasks(run)
    assert [one.name for one in evaluations] == ["base", "raw-seed-0", "curated-seed-0", "random-seed-0"]
    items = pl.read_parquet(run.tasks_folder / "mine" / "items.parquet")
    frames = [pl.read_parquet(run.tasks_folder / "mine" / f"{one.name}.parquet") for one in evaluations]
    for frame in frames:
        assert sorted(frame["item"]) == sorted(items["item"])
        assert set(frame["outcome"].unique()) <= {0.0, 1.0}
    assert all(one.items == 7 and one.left_out == 0 for one in evaluations)
    written = [frame.filter(pl.col("item").str.starts_with("my_answers")) for frame in frames]
    assert all(frame["answer"].null_count() == 0 for frame in written)
    assert frames[0].filter(pl.col("item").str.starts_with("my_sums"))["answer"].null_count() > 0
    assert len({tuple(frame["answer"]) for frame in written}) > 1, "the adapters are asked, and not the base four times"
    contaminated = pl.read_parquet(run.tasks_folder / "mine" / "contaminated.parquet")
    expected = {"my_answers:0"} & set(items["item"])
    assert set(contaminated["item"]) == expected
    assert score_tasks(RunFolder.open(run.path)) == evaluations


@pytest.mark.parametrize("path", ["my_sums", "my_answers"])
def test_an_item_that_the_context_has_no_room_for_is_left_out(tmp_path: Path, tiny_model: Path, path: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_tasks(tmp_path / "tasks")
    file = folder / f"{path.removeprefix('my_')}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["question"] += " Think." * 600
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items = read_items(task(path), base=tmp_path, seed=0)
    outcomes = harness_outcomes(
        AutoModelForCausalLM.from_pretrained(tiny_model).eval(),
        AutoTokenizer.from_pretrained(tiny_model),
        items,
        path=path,
        folder=folder,
        label=path,
    )
    assert set(items["item"]) - set(outcomes["item"]) == {f"{path}:1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "my_sum"}, r"has no task 'my_sum'\. Did you mean 'my_sums'\?"),
        ({"path": "mine", "include": "elsewhere"}, "names no folder"),
        ({"path": "arc_easy"}, r"cannot read the data of 'arc_easy' .* is there a network"),
    ],
)
def test_what_is_not_to_be_had_is_one_sentence(
    base: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], message: str
) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as fault:
        read_harness_items(task(**fields), base=base)
    assert "\n" not in str(fault.value)


def test_a_task_that_runs_code_is_refused(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "sums.yaml").write_text((folder / "sums.yaml").read_text() + "process_docs: !function own.docs\n")
    with pytest.raises(UserError, match=r"sums\.yaml has `!function`, which runs code"):
        read_harness_items(task("my_sums"), base=tmp_path)


def test_a_measure_of_which_less_is_better_is_refused(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    document = yaml.safe_load((folder / "sums.yaml").read_text())
    measure = {"metric": "acc", "aggregation": "mean", "higher_is_better": False}
    (folder / "sums.yaml").write_text(yaml.safe_dump(document | {"metric_list": [measure]}))
    with pytest.raises(UserError, match="measured by acc, which is no mean over items of which more is better"):
        read_harness_items(task("my_sums"), base=tmp_path)


def test_a_folder_of_tasks_is_for_the_harness_alone() -> None:
    compare = {"tasks": [{"path": "quiz.jsonl", "kind": "exact", "include": "tasks"}]}
    with pytest.raises(UserError, match="include"):
        parse_recipe(yaml.safe_dump({"sources": [{"path": "a.jsonl"}], "compare": compare}))


def test_the_outcome_is_the_normalised_accuracy_where_there_is_one() -> None:
    class OfHarness:
        task_name = "some"

        def __init__(self, *measures: str) -> None:
            self.measures = measures

        def higher_is_better(self) -> dict[str, bool]:
            return dict.fromkeys(self.measures, True)

        def aggregation(self) -> dict[str, object]:
            from lm_eval.api.metrics import mean

            return dict.fromkeys(self.measures, mean)

    assert outcome_measure(OfHarness("acc", "acc_norm")) == "acc_norm"
    assert outcome_measure(OfHarness("f1", "exact_match")) == "exact_match"
    assert outcome_measure(OfHarness("f1")) == "f1"
