"""Engine ray without Ray: the same tasks, done in this process, give the bytes of one machine."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from siftune.curation import pipeline
from siftune.curation.cluster.tasks import InlineExecutor
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.dedup import minhash
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from tests.curation.cluster.cluster_world import (
    mixed_rows,
    require_same_run,
    write_files,
    write_marked_dialogues,
    write_recipe,
)
from tests.worlds import rows

RULES = ["layered", "gpt3-13gram", "tulu3-8gram", "palm-8gram", "llama2-skipgram", "qwen2-lcs", "decon"]
CONTAMINATION = {"references": [{"path": "benchmark.jsonl"}], "rules": RULES}


@pytest.fixture(scope="module", autouse=True)
def no_report() -> Iterator[None]:
    """Drawn only where it is looked at: it takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.report, "write", lambda run: None)
        yield


def on_cluster(recipe: Path, work: str) -> tuple[RunFolder, InlineExecutor]:
    executor = InlineExecutor(WorkFolder(work))
    return curate(recipe, executor=executor), executor


def ray(**settings: Any) -> dict[str, Any]:
    return {"ray": settings}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, no_report: None) -> Path:
    """A folder of files and a benchmark of some of their rows, and the run of one machine."""
    folder = tmp_path_factory.mktemp("cluster")
    made = mixed_rows(400)
    write_files(made, folder / "data")
    write_marked_dialogues(folder / "data" / "marked.jsonl")
    items = [{"question": f"{row['instruction']} {row['output']}", "answer": "river"} for row in made[:400:40]]
    pl.DataFrame(items).write_ndjson(folder / "benchmark.jsonl")
    local = curate(write_recipe(folder, "local", contamination=CONTAMINATION))
    dropped = set(local.ledger().filter(pl.col("action") == "drop")["stage"])
    assert dropped >= {"exact", "prefixes", "near", "answers", "conflicts", "contamination"}
    assert {"repair", "mask", "ingest", "checks"} <= set(local.ledger()["stage"])
    return folder


@pytest.mark.parametrize(("partitions", "part_rows"), [(1, 1000), (3, 60)])
def test_the_bytes_are_those_of_one_machine(world: Path, partitions: int, part_rows: int) -> None:
    engine = ray(partitions=partitions, part_rows=part_rows)
    recipe = write_recipe(world, f"ray-{partitions}", contamination=CONTAMINATION, engine=engine)
    run, executor = on_cluster(recipe, str(world / f"work-{partitions}"))
    require_same_run(RunFolder.open(world / "local"), run)
    # Started again, nothing is done twice.
    shutil.rmtree(run.path)
    done = executor.done
    require_same_run(RunFolder.open(world / "local"), curate(recipe, executor=executor))
    assert executor.done == done > 20


def test_files_and_work_may_be_in_an_object_store(world: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(world / "data"), "/bucket/data", recursive=True)
    sources = [{"path": "memory://bucket/data", "name": "s"}]
    recipe = write_recipe(world, "store", sources=sources, contamination=CONTAMINATION, engine="ray")
    run, _ = on_cluster(recipe, "memory://bucket/work")
    local = RunFolder.open(world / "local")
    for name in ("ledger.parquet", "rows.parquet", "curated/train.parquet", "quarantine.jsonl"):
        assert (run.path / name).read_bytes() == (local.path / name).read_bytes()
    assert run.manifest.files == local.manifest.files
    assert run.manifest.inputs[0].files == local.manifest.inputs[0].files
    store.rm("/bucket", recursive=True)


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(data=rows(), partitions=st.integers(1, 5), part_rows=st.integers(1, 30), cut=st.integers(1, 4))
def test_no_result_depends_on_parts_and_partitions(
    tmp_path_factory: pytest.TempPathFactory, data: list[Any], partitions: int, part_rows: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("small")
    (folder / "data").mkdir()
    for number in range(cut):
        lines = "".join(json.dumps(row) + "\n" for row in data[number::cut])
        (folder / "data" / f"{number}.jsonl").write_text(lines or "\n")
    sections = {"splits": None, "balance": None}
    engine = ray(partitions=partitions, part_rows=part_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "LARGE_BUCKET", 2)  # so that the guard splits buckets of these few rows
        local = curate(write_recipe(folder, "local", **sections))
        run, _ = on_cluster(write_recipe(folder, "ray", engine=engine, **sections), str(folder / "work"))
    require_same_run(local, run)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"encoder": "some/model"}, "encoder is 'some/model': set `encoder: null`"),
        ({"against": ["other"]}, "`against` names others"),
        ({"sources": [{"path": "data", "limit": 3}]}, "data has a limit"),
        ({"engine": "rya"}, "there is no engine 'rya'; write `local`, or `ray`"),
        ({"sources": [{"path": "hf://owner/name"}]}, "engine ray reads files"),
        ({"sources": [{"path": "nowhere"}]}, "There is no source at nowhere"),
        ({"sources": [{"path": "nothing://bucket/data"}]}, "nothing://bucket/data cannot be reached"),
        ({"sources": [{"path": "memory://bucket/nowhere"}]}, "There is no source at memory://bucket/nowhere"),
        (
            {"contamination": {**CONTAMINATION, "verify": {"endpoint": "http://127.0.0.1:1/v1", "model": "m"}}},
            "engine ray asks no second opinion",
        ),
    ],
)
def test_what_one_machine_alone_can_do_is_refused_before_any_work(
    world: Path, sections: dict[str, Any], message: str
) -> None:
    recipe = write_recipe(world, "refused", **{"engine": "ray", **sections})
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("(", r"\(")):
        on_cluster(recipe, str(world / "refused-work"))
    assert not (world / "refused").exists()
    assert not (world / "refused-work").exists()


def test_without_ray_no_folder_is_left(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'siftune\[ray\]'"):
        curate(write_recipe(world, "no-ray", engine="ray"))
    assert not (world / "no-ray").exists()


def test_a_curated_set_is_refused_and_a_broken_file_is_one_sentence(world: Path, tmp_path: Path) -> None:
    curated = str(world / "local" / "curated" / "train.parquet")
    recipe = write_recipe(tmp_path, "again", sources=[{"path": curated}], engine="ray")
    with pytest.raises(UserError, match=r"train\.parquet is of a curated set"):
        on_cluster(recipe, str(tmp_path / "work"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    recipe = write_recipe(tmp_path, "broken", sources=[{"path": "broken.parquet"}], engine="ray")
    with pytest.raises(UserError, match=r"broken\.parquet"):
        on_cluster(recipe, str(tmp_path / "work"))


def test_half_a_marker_is_none(world: Path) -> None:
    recipe = write_recipe(world, "ray-torn", splits=None, balance=None, engine="ray")
    run, executor = on_cluster(recipe, str(world / "torn-work"))
    ledger, done = run.ledger_path.read_bytes(), executor.done
    markers = sorted((world / "torn-work").glob("near*/*.json")) + sorted((world / "torn-work").glob("pairs/*.json"))
    markers[0].write_bytes(markers[0].read_bytes()[:-1])
    shutil.rmtree(run.path)
    run = curate(recipe, executor=executor)
    assert executor.done == done + 1
    assert run.ledger_path.read_bytes() == ledger
