"""A byte that flips in a stored file is noticed: it is made anew, or refused in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from siftune.app.cli.commands import main
from siftune.curation import row_features
from siftune.curation.embeddings.store import embedder
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review.what_if import replay
from siftune.curation.row_features import RowFeatures
from siftune.curation.run.folder import RunFolder
from siftune.training.arms import read_arm, read_heldout
from tests.faults.world import curated_or_refused, damage, require_one_sentence

Same = Callable[[Path], None]


def stored(run: Path) -> Iterator[Path]:
    """Everything that a run keeps to be used again."""
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.stat().st_size and path.parent.name == "measures":
            yield path


def test_every_damaged_measure_is_made_anew(world: Path, same: Same) -> None:
    measures = list(stored(world / "run"))
    assert len(measures) > 35
    for path in measures:
        damage(path)
    curate(world / "tiny.yaml")
    same(world / "run")


def test_damaged_embeddings_are_made_anew(cache: Path, world: Path, same: Same) -> None:
    segments = list(cache.rglob("*.vectors"))
    assert segments
    for path in segments:
        damage(path)
    for path in stored(world / "run"):  # so that the embeddings are needed again
        path.unlink()
    embedder.cache_clear()
    curate(world / "tiny.yaml")
    same(world / "run")


@pytest.mark.parametrize("name", ["examples", "texts", "index", "near", "checks", "contamination", "conflicts"])
def test_no_result_comes_from_a_damaged_measure(world: Path, name: str) -> None:
    run = RunFolder.open(world / "run")
    damage(run.file(name))
    with pytest.raises(UserError, match=rf"{name}-.*parquet is damaged"):
        run.file(name)
    if name == "near":
        with pytest.raises(UserError, match="is damaged"):
            replay(run, {"near": 0.9})


def test_no_result_comes_from_a_damaged_ledger_or_arm(world: Path, same: Same) -> None:
    run = RunFolder.open(world / "run")
    row = str(run.rows().filter(fate="dropped")["id"][0])
    reads: dict[Path, Callable[[], object]] = {
        run.ledger_path: lambda: cli("explain", str(run.path), row),
        run.rows_path: lambda: cli("diff", str(run.path), str(run.path)),
        run.arm("curated"): lambda: read_arm(run.path, "curated"),
        run.heldout("test"): lambda: read_heldout(run.path),
    }
    for path, read in reads.items():
        intact = path.read_bytes()
        damage(path)
        with pytest.raises(UserError, match=rf"{path.name} is damaged.*Delete it and run"):
            read()
        path.write_bytes(intact)
        read()
        damage(path)
    curate(world / "tiny.yaml")
    same(world / "run")


def cli(*arguments: str) -> Result:
    """What a command does; its sentence as the `UserError` that it was."""
    done = CliRunner().invoke(main, arguments)
    if done.exit_code == 2:
        raise UserError(done.output)
    assert done.exit_code == 0, done.output
    return done


def test_a_damaged_manifest_is_one_sentence_and_can_be_moved_away(world: Path, same: Same) -> None:
    manifest = world / "run" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"is damaged\. Move it away and curate again"):
        curate(world / "tiny.yaml")
    manifest.rename(world / "moved.json")
    curate(world / "tiny.yaml")
    same(world / "run")


def test_a_flipped_byte_in_the_manifest_never_ends_in_a_traceback(world: Path, same: Same) -> None:
    manifest = world / "run" / "manifest.json"
    intact = manifest.read_bytes()
    for seed in range(40):
        damage(manifest, seed=seed)
        try:
            run = RunFolder.open(world / "run")
            run.rows()
            replay(run, {"near": 0.9})
        except UserError as fault:
            require_one_sentence(fault)
        manifest.write_bytes(intact)
    damage(manifest)
    if curated_or_refused(world / "tiny.yaml") is None:
        same(world / "run")


def test_a_copy_without_checksums_is_read_and_measured_again(world: Path, same: Same) -> None:
    """As runs of earlier versions are."""
    for path in (world / "run").rglob(".*.xxh3"):
        path.unlink()
    run = RunFolder.open(world / "run")
    assert run.pairs("near").height
    assert run.ledger().height
    curate(world / "tiny.yaml")
    same(world / "run")
    shutil.rmtree(world)


def test_features_of_rows_that_are_damaged_are_computed_again(tmp_path: Path) -> None:
    path, rows = tmp_path / "near.npz", np.arange(9, dtype=np.uint32)
    features = RowFeatures.of_rows(hash=rows * 7)
    for seed in range(20):
        features.write(path, rows)
        stored = row_features._stored(path, rows)
        assert stored is not None
        assert (stored[1].by_row["hash"] == rows * 7).all()
        damage(path, seed=seed)
        assert row_features._stored(path, rows) is None
