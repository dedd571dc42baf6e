"""What each stage of curation contributes: curated against the arm that leaves the stage out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from siftune.curation.review.arm_facts import left_out_sentence
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import ArmRecord
from siftune.training.evaluation.differences import Difference
from siftune.training.evaluation.verdict_sentences import Outcome

CURATED = "curated"


@dataclass(frozen=True)
class StageContribution:
    """One stage that an arm leaves out.

    Attributes:
        stage: the stage.
        arm: the arm without it.
        rows: training rows that the arm has more than curated.
        difference: loss of curated minus loss of the arm, as among the comparisons: negative means that the stage
            helps. None where both arms hold the same rows, so that there is nothing to compare.
        outcome: of curated against the arm, exploratory; None without a difference.
        known: what is known and what is not of the rows of the arm.
    """

    stage: str
    arm: str
    rows: int
    difference: Difference | None
    outcome: Outcome | None
    known: str

    @property
    def name(self) -> str:
        """Such as `near: curated − no-near`."""
        return f"{self.stage}: {CURATED} − {self.arm}"


def stage_arms(run: RunFolder) -> dict[str, ArmRecord]:
    """The arms by stage that curation made, by name; empty for a run without a manifest."""
    counts = run.manifest.counts if run.manifest_path.is_file() else None
    return {name: record for name, record in counts.arms.items() if record.left_out} if counts else {}


def stage_contributions(
    run: RunFolder, compared: Mapping[str, tuple[Difference, Outcome]]
) -> tuple[StageContribution, ...]:
    """The contribution of every stage that is the only one that some arm leaves out, in the order of the arms.

    Args:
        run: a curated run.
        compared: by arm, the difference curated − arm and its outcome.
    """
    contributions = []
    for name, record in stage_arms(run).items():
        same = CURATED in record.same_as
        # Of arms with the same rows only one is trained.
        trained = next((arm for arm in (name, *record.same_as) if arm in compared), None)
        if len(record.left_out) != 1 or not (same or trained):
            continue
        difference, outcome = (None, None) if same or trained is None else compared[trained]
        rows = record.rows - run.manifest.finished_counts().arms[CURATED].rows
        known = left_out_sentence(name, record)
        contributions.append(StageContribution(record.left_out[0], name, rows, difference, outcome, known))
    return tuple(contributions)
