"""Which arms a selected arm is compared with: its controls, and all rows that it was chosen from."""

from __future__ import annotations

from collections.abc import Container

from siftune.curation.recipe.training_sections import Training
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.stage_contributions import CURATED


def selection_pairs(run: RunFolder, training: Training | None, *, trained: Container[str]) -> list[tuple[str, str]]:
    """For each selected arm, the arm and each of its controls, then the arm and `curated`.

    Of arms with the same rows only one is trained, which stands for the others; an arm is not compared with itself.

    Args:
        run: a curated run.
        training: the section that names the arms.
        trained: the arms that were trained and evaluated.
    """
    counts = run.manifest.counts if run.manifest_path.is_file() else None
    records = counts.arms if counts else {}

    def stand_in(name: str) -> str:
        same = records[name].same_as if name in records else []
        return next((one for one in (name, *same) if one in trained), name)

    pairs = [
        (stand_in(arm.name), stand_in(other))
        for arm in (training.selected_arms if training else [])
        for other in (*arm.control_names, CURATED)
    ]
    return list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))
