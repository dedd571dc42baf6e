"""Everything that `siftune compare` does: losses, tasks, the prompt suite and a judge (optional), the verdict."""

from __future__ import annotations

from pathlib import Path

from siftune.curation.progress import Progress
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.evaluate import evaluate
from siftune.training.evaluation.judge_model import judge_answers
from siftune.training.evaluation.prompt_suite import answer_suite
from siftune.training.evaluation.tasks.score_tasks import score_tasks
from siftune.training.evaluation.verdict import DECLARED, Verdict, compute_verdict
from siftune.training.evaluation.verdict_report import write_verdict


def compare(run: RunFolder | Path, *, prompts: bool = False, progress: Progress | None = None) -> Verdict:
    """Evaluate the trained arms of a run and compare them by its recipe; writes verdict.json and verdict.md.

    Args:
        run: a run with trained arms.
        prompts: answer the prompt suite as well, so that the verdict holds what answers repeat of the training data;
            a judge in the recipe needs it and has it answered in any case.
        progress: called while the work goes on.

    Raises:
        UserError: nothing is trained, the run has no held-out rows, or the recipe's judge cannot be asked.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    with folder.locked():
        evaluate(folder, progress=progress)
        score_tasks(folder, progress=progress)
        recipe = folder.recipe
        if prompts or recipe.compare.judge is not None:
            answer_suite(folder, progress=progress)
        judge = judge_answers(folder, recipe, pairs=DECLARED, progress=progress)
        verdict = compute_verdict(
            folder, recipe.compare, training=recipe.training, judge=judge, seed=recipe.seed, progress=progress
        )
        write_verdict(verdict, folder)
        return verdict
