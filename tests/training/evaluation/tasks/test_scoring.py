"""Tasks of a run from the recipe to the verdict: real models, real files, a worker of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner
from scipy import stats

from siftune.app.cli.commands import main
from siftune.curation.atomic_files import write_parquet
from siftune.curation.errors import UserError
from siftune.curation.recipe.training_sections import Compare, Task
from siftune.curation.run.folder import RunFolder
from siftune.training import models
from siftune.training.evaluation.compare import compare
from siftune.training.evaluation.statistics import holm
from siftune.training.evaluation.tasks.comparisons import TaskResult, compare_tasks
from siftune.training.evaluation.tasks.contaminated_items import read_check, read_contaminated
from siftune.training.evaluation.tasks.outcomes import TASK_OUTCOMES, TaskEvaluation, write_outcomes
from siftune.training.evaluation.tasks.score_tasks import score_tasks
from siftune.training.evaluation.tasks.task_report import coverage_sentences, markdown_lines
from siftune.training.evaluation.verdict import Verdict
from tests.training.random_adapters import write_trained
from tests.training.worlds import write_tiny_run

ARMS = ("raw", "curated", "random")
PAIRS = [("curated", "raw"), ("curated", "random"), ("random", "raw"), ("curated", "base")]
DECLARED = {("curated", "raw"): 0.02, ("curated", "random"): 0.03}
#: Two questions of their own, and one that the tiny arms were trained on word for word.
QUIZ = [
    {"topic": "a", "question": "Which animal says moo?", "choices": ["a cow", "a loud dog"], "answer": "A"},
    {"topic": "a", "question": "Which animal says miaow?", "choices": ["a grey cow", "a cat", "no"], "answer": "B"},
    {"topic": "b", "question": "Which of them can fly?", "choices": ["the old stone", "a crow"], "answer": "B"},
    {"topic": "b", "question": "What colour has apple 0?", "choices": ["The apple 0 is red.", "blue"], "answer": "A"},
]
SUMS = [{"question": f"How much is {number} and 2?", "answer": str(number + 2)} for number in range(5)]
TOO_LONG = {"question": "How much? " * 300, "answer": "0"}


def write_run(folder: Path, model: Path, tasks: list[dict[str, Any]]) -> RunFolder:
    run = write_trained(write_tiny_run(folder / "run", model=model), model, ARMS)
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUIZ))
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    change_tasks(run, tasks)
    return RunFolder.open(run)


def change_tasks(run: Path, tasks: list[dict[str, Any]]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    recipe = yaml.safe_load(manifest["recipe"]) | {"encoder": None}
    recipe["compare"]["tasks"] = tasks
    manifest |= {"recipe": yaml.safe_dump(recipe), "recipe_folder": str(run.parent)}
    (run / "manifest.json").write_text(json.dumps(manifest))


def answer_one_by_one(model: Path, adapter: Path | None, prompts: Sequence[str], tokens: int) -> list[str]:
    """The oracle: transformers' own generate, one prompt at a time, over the base with its adapter."""
    import torch
    from peft import PeftModel

    resolved = models.resolve(str(model))
    tokenizer = models.load_tokenizer(resolved)
    base = models.load_base(resolved, models.choose_loading("nf4", resolved)).dequantize().eval()
    adapted = base if adapter is None else PeftModel.from_pretrained(base, str(adapter)).eval()
    answers = []
    for prompt in prompts:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        out = adapted.generate(input_ids=ids, max_new_tokens=tokens, do_sample=False)
        answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


def test_a_run_is_scored_once_and_what_changed_is_scored_again(tmp_path: Path, tiny_model: Path) -> None:
    quiz = {"path": "quiz.jsonl", "cluster": "topic"}
    sums = {"path": "sums.jsonl", "kind": "number", "max_new_tokens": 6}
    run = write_run(tmp_path, tiny_model, [quiz, sums])
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*SUMS, TOO_LONG]))
    evaluations = score_tasks(run)
    names = ["base", "raw-seed-0", "curated-seed-0", "random-seed-0"]
    assert [(one.task, one.name) for one in evaluations] == [
        (task, name) for task in ("quiz", "sums") for name in names
    ]
    frames = {
        (one.task, one.name): pl.read_parquet(run.tasks_folder / one.task / f"{one.name}.parquet")
        for one in evaluations
    }
    for one in evaluations:
        frame = frames[one.task, one.name]
        assert frame.schema == TASK_OUTCOMES
        assert (one.outcome, one.accuracy) == (frame["outcome"].mean(), frame["accuracy"].mean())
        assert one.shared_questions is (True if one.task == "quiz" else None)
        assert (one.items, one.left_out) == ((4, 0) if one.task == "quiz" else (5, 1))
    assert len({tuple(frames["quiz", name]["outcome"]) for name in names}) == 4

    # Answers are those of transformers' own generate.
    for name, adapter in (("base", None), ("raw-seed-0", run.adapter("raw", 0))):
        prompts = [row["question"] for row in SUMS]
        assert frames["sums", name]["answer"].to_list() == answer_one_by_one(tiny_model, adapter, prompts, 6)

    # The item that a trained row holds is known, with the arms that hold it.
    contaminated = read_contaminated(run.tasks_folder / "quiz")
    assert contaminated.select("item", "id", "rule").rows() == [("quiz:3", "toy:0", "layered/exact")]
    assert contaminated["arms"].to_list() == [["curated", "random", "raw"]]
    check = read_check(run.tasks_folder / "quiz")
    assert check is not None
    assert (check.rows, check.encoder) == (24, None)

    # Nothing is done twice; a new question is a new task, and the other one stands.
    before = {path: path.stat().st_mtime_ns for path in run.tasks_folder.rglob("*.parquet")}
    assert score_tasks(RunFolder.open(run.path)) == evaluations
    assert before == {path: path.stat().st_mtime_ns for path in run.tasks_folder.rglob("*.parquet")}
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUIZ[:3]))
    again = score_tasks(RunFolder.open(run.path))
    assert [one.items for one in again if one.task == "quiz"] == [3] * 4
    assert [one for one in again if one.task == "sums"] == [one for one in evaluations if one.task == "sums"]
    assert read_contaminated(run.tasks_folder / "quiz").is_empty()


def test_a_run_without_tasks_has_nothing_to_score(tmp_path: Path, tiny_model: Path) -> None:
    run = write_run(tmp_path, tiny_model, [])
    assert score_tasks(run) == []
    assert not run.tasks_folder.exists()
    assert list(markdown_lines([])) == []


def test_answers_without_room_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    run = write_run(tmp_path, tiny_model, [{"path": "sums.jsonl", "kind": "number", "max_new_tokens": 600}])
    with pytest.raises(UserError, match=r"Task sums: no item fits into the model's 512 tokens with 600"):
        score_tasks(run)


def simulated_run(
    path: Path,
    label: str,
    values: dict[str, np.ndarray],
    *,
    clusters: Sequence[str] | None = None,
    kind: str = "choice",
) -> RunFolder:
    """Files as scoring leaves them: `values` by arm, (runs, items); accuracy is whether the outcome is above a half."""
    (path / "run").mkdir(exist_ok=True)
    run = RunFolder(path / "run")
    folder = run.tasks_folder / label
    folder.mkdir(parents=True)
    count = next(iter(values.values())).shape[1]
    items = [f"{label}:{number:03}" for number in range(count)]
    pl.DataFrame({"item": items, "cluster": clusters or items}).write_parquet(folder / "items.parquet")
    for arm, runs in values.items():
        for seed, outcome in enumerate(runs):
            name = "base" if arm == "base" else f"{arm}-seed-{seed}"
            frame = pl.DataFrame({"item": items, "outcome": outcome, "accuracy": (outcome > 0.5).astype(float)})
            document = {"name": name, "task": label, "digest": "d", "key": "k", "items": count, "left_out": 2}
            document |= {"outcome": 0.0, "accuracy": 0.0, "shared_questions": None, "seconds": 1.0, "versions": {}}
            write_outcomes(TaskEvaluation.model_validate(document), frame.with_columns(answer=pl.lit(None)), folder)
    return run


def outcomes(rng: np.random.Generator, *, gain: float, runs: int = 3, items: int = 200) -> dict[str, np.ndarray]:
    """Outcomes of items of their own difficulty; `curated` is better than the others by `gain`."""
    difficulty = rng.uniform(0.2, 0.8, items)
    shift = {"base": -0.1, "raw": 0.0, "curated": gain, "random": 0.0}
    return {
        arm: np.clip(difficulty + by + rng.normal(0, 0.05, (1 if arm == "base" else runs, items)), 0, 1)
        for arm, by in shift.items()
    }


def seeds_of(values: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {arm: tuple(range(len(runs))) for arm, runs in values.items()}


def compared(
    run: RunFolder, values: dict[str, np.ndarray], tasks: list[Task]
) -> tuple[tuple[TaskResult, ...], dict[tuple[str, str], float]]:
    settings = Compare(bootstrap=2000, permutations=2000, tasks=tasks)
    return compare_tasks(run, settings, seeds=seeds_of(values), pairs=PAIRS, declared=DECLARED, seed=0)


def test_differences_are_plain_means_with_the_right_sign(tmp_path: Path) -> None:
    values = outcomes(np.random.default_rng(0), gain=0.03)
    run = simulated_run(tmp_path, "quiz", values)
    (result,), _ = compared(run, values, [Task(path="quiz.jsonl")])
    means = {arm: runs.mean() for arm, runs in values.items()}
    assert result.outcomes == pytest.approx(means)
    assert result.accuracies == pytest.approx({arm: (runs > 0.5).mean() for arm, runs in values.items()})
    assert (result.items, result.clusters, result.left_out, result.contaminated) == (200, 200, 2, 0)
    for comparison in result.comparisons:
        expected = means[comparison.arm] - means[comparison.against]
        difference, accuracy = comparison.difference, comparison.accuracy
        assert difference.value == pytest.approx(expected)
        assert difference.low < expected < difference.high
        assert accuracy is not None
        assert accuracy.value == pytest.approx(
            result.accuracies[comparison.arm] - result.accuracies[comparison.against]
        )
    by_name = {comparison.name: comparison for comparison in result.comparisons}
    assert by_name["curated − raw"].outcome == "better"
    assert by_name["random − raw"].outcome == "not enough evidence"
    assert by_name["curated − base"].outcome == "better"
    assert [comparison.role for comparison in result.comparisons] == ["secondary"] * 2 + ["exploratory"] * 2
    worse = outcomes(np.random.default_rng(1), gain=-0.03)
    run = simulated_run(tmp_path, "worse", worse)
    (result,), _ = compared(run, worse, [Task(path="worse.jsonl")])
    assert result.comparisons[0].outcome == "worse"


def test_the_error_over_items_and_runs_is_that_of_the_paired_differences(tmp_path: Path) -> None:
    values = outcomes(np.random.default_rng(2), gain=0.0, runs=4)
    run = simulated_run(tmp_path, "quiz", values)
    (result,), _ = compared(run, values, [Task(path="quiz.jsonl")])
    per_item = (values["curated"] - values["raw"]).mean(0)
    over_items = stats.sem(per_item)
    per_run = np.stack([values[arm].mean(1) for arm in ("raw", "curated", "random")])
    residuals = per_run - per_run.mean(1, keepdims=True) - per_run.mean(0) + per_run.mean()
    over_runs = np.sqrt((residuals**2).sum() / 6 * 2 / 4)
    assert result.comparisons[0].difference.se == pytest.approx(np.hypot(over_items, over_runs), rel=0.01)


def test_clusters_are_what_is_resampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = outcomes(rng, gain=0.0, items=120)
    subjects = [f"subject {number % 12:02}" for number in range(120)]
    effect = np.repeat(rng.normal(0, 0.1, 12)[None], 10, 0).ravel()  # item n belongs to subject n modulo 12
    values["curated"] = values["curated"] + effect
    run = simulated_run(tmp_path, "clustered", values, clusters=subjects)
    (clustered,), _ = compared(run, values, [Task(path="clustered.jsonl")])
    run = simulated_run(tmp_path, "single", values)
    (single,), _ = compared(run, values, [Task(path="single.jsonl")])
    assert (clustered.clusters, single.clusters) == (12, 120)
    assert clustered.comparisons[0].difference.value == pytest.approx(single.comparisons[0].difference.value)
    assert clustered.comparisons[0].difference.se > 2 * single.comparisons[0].difference.se


def test_secondary_outcomes_are_adjusted_together_and_the_primary_one_by_itself(tmp_path: Path) -> None:
    values = outcomes(np.random.default_rng(4), gain=0.004)
    for label in ("one", "two"):
        run = simulated_run(tmp_path, label, values if label == "one" else outcomes(np.random.default_rng(5), gain=0.0))
    one, two = Task(path="one.jsonl"), Task(path="two.jsonl")
    results, losses = compared(run, values, [one, two])
    ps = [comparison.p for result in results for comparison in result.comparisons if comparison.role == "secondary"]
    adjusted = [c.p_adjusted for result in results for c in result.comparisons if c.role == "secondary"]
    assert adjusted == holm(ps)
    assert list(losses.values()) == holm(list(DECLARED.values()))
    assert all(c.p_adjusted is None for result in results for c in result.comparisons if c.role == "exploratory")

    # A primary task stands alone; held-out loss joins the secondary outcomes.
    results, losses = compared(run, values, [one.model_copy(update={"primary": True}), two])
    primary, secondary = (result.comparisons[:2] for result in results)
    assert [c.p_adjusted for c in primary] == holm([c.p for c in primary])
    family = holm([*DECLARED.values(), *(c.p for c in secondary)])
    assert [*losses.values(), *(c.p_adjusted for c in secondary)] == family
    assert [c.role for c in primary] == ["primary"] * 2


def test_the_report_counts_what_is_left_out(tmp_path: Path) -> None:
    values = outcomes(np.random.default_rng(6), gain=0.0)
    run = simulated_run(tmp_path, "quiz", values)
    folder = run.tasks_folder / "quiz"
    contaminated = pl.DataFrame({"item": ["quiz:001", "quiz:007"]})
    contaminated.write_parquet(folder / "contaminated.parquet")
    (folder / "contaminated.json").write_text('{"key": "k", "encoder": null, "rows": 9, "related": 3}')
    (result,), _ = compared(run, values, [Task(path="quiz.jsonl")])
    kept = np.delete(np.arange(200), [1, 7])
    assert result.outcomes["raw"] == pytest.approx(values["raw"][:, kept].mean())
    expected = (
        "quiz: 198 items in 198 clusters; left out: 2 that a training row of an arm holds and 2 that do not fit into "
        "the model's context; 3 resemble a training row and stay."
    )
    assert coverage_sentences([result]) == [expected]
    text = "\n".join(markdown_lines([result]))
    assert "probability of the right choice" in text
    assert text.count("curated − raw") == 1
    # With nothing left there is nothing to compare, and no p to adjust.
    pl.DataFrame({"item": [f"quiz:{number:03}" for number in range(200)]}).write_parquet(
        folder / "contaminated.parquet"
    )
    (result,), losses = compared(run, values, [Task(path="quiz.jsonl")])
    assert (result.items, result.comparisons, result.outcomes) == (0, (), {})
    assert list(losses.values()) == holm(list(DECLARED.values()))


def test_items_that_nobody_answers_say_nothing_of_the_error(tmp_path: Path) -> None:
    values = {arm: np.zeros((1 if arm == "base" else 3, 40)) for arm in ("base", *ARMS)}
    (result,), _ = compared(simulated_run(tmp_path, "sums", values), values, [Task(path="sums.jsonl", kind="number")])
    assert {one.outcome for one in result.comparisons} == {"not enough evidence"}
    assert {(one.difference.value, one.difference.low, one.difference.high) for one in result.comparisons} == {
        (0.0, None, None)
    }
    assert {one.p for one in result.comparisons} == {1.0}


def test_missing_and_differing_outcomes_are_refused(tmp_path: Path) -> None:
    values = outcomes(np.random.default_rng(7), gain=0.0)
    run = simulated_run(tmp_path, "quiz", values)
    path = run.tasks_folder / "quiz" / "raw-seed-1.parquet"
    write_parquet(pl.read_parquet(path).head(150), path, checked=True)
    with pytest.raises(UserError, match="hold different items"):
        compared(run, values, [Task(path="quiz.jsonl")])
    path.unlink()
    with pytest.raises(UserError, match=r"raw-seed-1 has no outcomes of the task quiz. Score it with: siftune compare"):
        compared(run, values, [Task(path="quiz.jsonl")])


def test_a_task_that_cannot_be_read_is_a_fault_before_the_training(tmp_path: Path, tiny_model: Path) -> None:
    run = write_run(tmp_path, tiny_model, [{"path": "none.jsonl"}])
    result = CliRunner().invoke(main, ["train", str(run.path)])
    assert result.exit_code == 2
    assert "none.jsonl" in result.output
    assert not (run.training("raw", 0) / "worker.log").exists()


def test_a_primary_task_is_what_the_verdict_is_about(tmp_path: Path, tiny_model: Path) -> None:
    quiz = {"path": "quiz.jsonl", "primary": True}
    run = write_run(tmp_path, tiny_model, [quiz])
    write_trained(run.path, tiny_model, ARMS, seed=1)
    verdict = compare(run)
    assert Verdict.read(run) == verdict
    (task,) = verdict.tasks
    assert (task.items, task.contaminated, task.primary) == (3, 1, True)
    assert {name: comparison.runs for name, comparison in zip(("raw", "random"), task.comparisons, strict=False)} == {
        "raw": (2, 2),
        "random": (2, 2),
    }
    assert "on the task quiz" in verdict.headline.replace("On the", "on the")
    assert "held-out loss" not in verdict.headline
    page = run.verdict_markdown.read_text(encoding="utf-8")
    assert "## Tasks" in page
    assert "quiz, the primary outcome: 3 items in 3 clusters; left out: 1 that a training row of an arm holds" in page
    assert task.run_noise is not None
    assert task.run_noise.freedom == 2
