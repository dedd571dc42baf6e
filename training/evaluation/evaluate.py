"""Judge the arms of a run on its held-out rows, in a process of its own (see `siftune.training.worker`); keep what is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError
from siftune.curation.progress import Progress
from siftune.curation.run.folder import RunFolder
from siftune.training import jobs, models, truncation, worker
from siftune.training.arm_names import BASE
from siftune.training.arms import read_heldout, training_of
from siftune.training.evaluation.loss_worker import EvaluateJob, Target


def evaluate(
    run: RunFolder | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Judge the base and every trained adapter on run/heldout/test.parquet; returns what evaluation/*.json say.

    Writes evaluation/base and evaluation/ARM-seed-K, each a parquet with id, nll (nats, summed), tokens, group, source,
    length_bin, leaked, mask_hash, and a json. What was judged already, by the same weights on the same rows, is kept.
    Rows that were too long go into the ledger.

    Raises:
        UserError: no held-out rows, or an arm that is not trained.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    settings = training_of(folder)
    resolved = models.resolve(folder.recipe.model.name, revision=folder.recipe.model.revision)
    targets = [Target(name=BASE, adapter=None, digest=resolved.identity), *_trained(folder.path, arms, seeds)]
    heldout = folder.path / "heldout" / "test.parquet"
    limits = [settings.max_length, folder.recipe.compare.max_rows, folder.recipe.seed, folder.recipe.model.load]
    key = json.dumps([jobs.data_hash(read_heldout(folder.path), ordered=True), *limits, resolved.identity])
    _clear_stale(folder.path / "evaluation", key)
    known = {target.name: _judged(folder.path / "evaluation", target, key) for target in targets}
    engines = {facts["engine"] for facts in known.values() if facts}
    job = EvaluateJob(
        heldout=heldout,
        folder=folder.path / "evaluation",
        max_length=settings.max_length,
        max_rows=folder.recipe.compare.max_rows,
        seed=folder.recipe.seed,
        model=folder.recipe.model,
        resolved=resolved,
        targets=[target for target in targets if known[target.name] is None],
        engine=engines.pop() if engines else None,
        key=key,
    )
    if job.targets:
        worker.call(
            "siftune.training.evaluation.loss_worker",
            job.model_dump_json(),
            log=job.folder / "worker.log",
            progress=progress,
        )
    _assert_same_masks(job.folder, [target.name for target in targets])
    if (job.folder / jobs.TRUNCATED).is_file():
        truncation.record(folder.path, truncation.EVALUATION_STAGE, pl.read_parquet(job.folder / jobs.TRUNCATED))
    return [json.loads((job.folder / f"{target.name}.json").read_text(encoding="utf-8")) for target in targets]


def _trained(run: Path, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> list[Target]:
    """Finished adapters under run/training; raises `UserError` for an arm that was asked for and is not there."""
    found: dict[str, list[Target]] = {}
    for path in sorted((run / "training").glob(f"*/seed-*/{jobs.DONE}")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if (arms is None or facts["arm"] in arms) and (seeds is None or facts["seed"] in seeds):
            name = f"{facts['arm']}-seed-{facts['seed']}"
            adapter = Target(name=name, adapter=path.parent / "adapter", digest=facts["adapter_hash"])
            found.setdefault(facts["arm"], []).append(adapter)
    missing = [arm for arm in arms or [] if arm not in found and arm != BASE]
    if missing or not found:
        named = "".join(f" --arm {arm}" for arm in missing)
        what = f"{', '.join(missing)} of {run} is not trained" if missing else f"No arm of {run} is trained"
        raise UserError(f"{what}. Do: siftune train {run}{named}")
    return [target for each in found.values() for target in each]


def _clear_stale(folder: Path, key: str) -> None:
    """Remove what was judged on other rows or by another base: a verdict must not mix the two."""
    for path in folder.glob("*.json"):
        if json.loads(path.read_text(encoding="utf-8")).get("key") != key:
            path.unlink()
            path.with_suffix(".parquet").unlink(missing_ok=True)


def _judged(folder: Path, target: Target, key: str) -> dict[str, Any] | None:
    path = folder / f"{target.name}.json"
    if not (path.is_file() and path.with_suffix(".parquet").is_file()):
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts if facts["digest"] == target.digest and facts["key"] == key else None


def _assert_same_masks(folder: Path, names: Sequence[str]) -> None:
    first = pl.read_parquet(folder / f"{names[0]}.parquet", columns=["id", "mask_hash"])
    for name in names[1:]:
        other = pl.read_parquet(folder / f"{name}.parquet", columns=["id", "mask_hash"])
        if not first.equals(other):
            raise UserError(
                f"{name} and {names[0]} were judged on different tokens. Remove {folder} and evaluate again."
            )
