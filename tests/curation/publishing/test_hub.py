"""`siftune push` against a hub on this machine: what arrives, who may read it, what is left alone and never said."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from click.testing import CliRunner, Result

from siftune.app.cli.commands import main
from siftune.curation.pipeline import curate
from siftune.curation.run.folder import RunFolder
from tests.curation.publishing.hub_server import TOKEN, HubServer, Repository, hub_server
from tests.worlds import many, write_recipe, write_source

Push = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("secret-folder")
    write_source(many(40), folder / "s.jsonl")
    sources = [{"path": str(folder / "s.jsonl"), "name": "s", "format": "alpaca"}]
    return curate(write_recipe(folder, "s.jsonl", sources=sources, splits={"test": 4}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def push(run: RunFolder) -> Push:
    return lambda *words: CliRunner().invoke(main, ["push", str(run.path), *words])


def refused(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("siftune: ")
    assert result.stderr.count("\n") == 1
    assert TOKEN not in result.stderr
    return result.stderr


def test_a_push_makes_a_private_set_with_every_file(push: Push, hub: HubServer, run: RunFolder) -> None:
    done = push("hf://me/notes")
    assert done.exit_code == 0, done.output
    assert f"Pushed to {hub.endpoint}/datasets/me/notes (private" in done.stdout
    assert TOKEN not in done.output
    pushed = hub.repositories["me/notes"]
    assert pushed.private
    assert pushed.commits == [f"Curated by siftune {run.manifest.siftune.version}"]
    assert set(pushed.files) == {"README.md", "dataset_info.json", "train.parquet", "test.parquet"}
    for split in ("train", "test"):
        assert pushed.files[f"{split}.parquet"] == run.curated(split).read_bytes()
    card = pushed.files["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"][0]["data_files"] == [
        {"split": "train", "path": "train.parquet"},
        {"split": "test", "path": "test.parquet"},
    ]
    assert 'load_dataset("me/notes")' in card
    assert "secret-folder" not in card
    entries = json.loads(pushed.files["dataset_info.json"])
    assert {name: (entry["hf_hub_url"], entry["split"]) for name, entry in entries.items()} == {
        "tiny": ("me/notes", "train"),
        "tiny_test": ("me/notes", "test"),
    }


def test_a_second_push_replaces_the_files_and_removes_a_split_that_is_gone(
    push: Push, hub: HubServer, run: RunFolder
) -> None:
    files = {"train.parquet": b"old", "validation.parquet": b"old", "README.md": b"---\n", "notes.txt": b"mine"}
    hub.repositories["me/notes"] = Repository(private=True, files=files, tags=["siftune"])
    assert push("hf://me/notes").exit_code == 0
    pushed = hub.repositories["me/notes"].files
    assert set(pushed) == {"README.md", "dataset_info.json", "train.parquet", "test.parquet", "notes.txt"}
    assert pushed["train.parquet"] == run.curated("train").read_bytes()
    assert pushed["notes.txt"] == b"mine"


def test_a_public_set_only_when_it_is_asked_for(push: Push, hub: HubServer) -> None:
    hub.repositories["me/open"] = Repository(private=False)
    assert "exists and is public" in refused(push("hf://me/open"))
    assert not hub.repositories["me/open"].commits
    assert push("hf://me/open", "--public").exit_code == 0
    assert push("hf://me/new", "--public").exit_code == 0
    assert not hub.repositories["me/new"].private
    hub.repositories["me/closed"] = Repository(private=True)
    assert "exists and is private" in refused(push("hf://me/closed", "--public"))


def test_a_set_of_somebody_else_is_left_alone(push: Push, hub: HubServer) -> None:
    hub.repositories["me/other"] = Repository(private=True, files={"README.md": b"mine", "a.csv": b"mine"})
    assert "holds files that siftune did not push (README.md, a.csv)" in refused(push("hf://me/other"))
    assert hub.repositories["me/other"].files == {"README.md": b"mine", "a.csv": b"mine"}


def test_a_token_that_is_missing_or_wrong_is_said_and_never_shown(
    push: Push, hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong-and-secret")
    message = refused(push("hf://me/notes"))
    assert "may write to me: log in with `hf auth login`" in message
    assert "wrong-and-secret" not in message
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    assert "There is no token" in refused(push("hf://me/notes"))
    assert not hub.repositories


def test_without_a_network_there_is_one_sentence(push: Push, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert "hf://me/notes cannot be pushed to. Check the network" in refused(push("hf://me/notes"))


def test_a_dry_run_needs_no_network_and_no_token(push: Push, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the dry run opened a socket"))
    done = push("hf://me/notes", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "Nothing was pushed. To me/notes would go (private" in done.stdout
    assert "# tiny, curated" in done.stdout
    document = json.loads(push("hf://me/notes", "--dry-run", "--json").stdout)
    assert document["address"] is None
    assert document["files"]["train.parquet"] == run.curated("train").stat().st_size


@pytest.mark.parametrize(
    "target", ["me/notes", "hf://notes", "hf://a/b/c", "hf://a/b c", "hf://a/-b", "hf://a/b..c", "hf://ä/b", "gs://a/b"]
)
def test_a_name_that_the_hub_does_not_have_is_refused(push: Push, target: str) -> None:
    assert f"{target} is no place to push to. Write hf://OWNER/NAME" in refused(push(target, "--dry-run"))


def test_a_run_that_keeps_nothing_or_has_lost_files_is_not_pushed(run: RunFolder, tmp_path: Path) -> None:
    write_source([{"instruction": "a", "output": "..."}], tmp_path / "s.jsonl")
    empty = curate(write_recipe(tmp_path, "s.jsonl"))
    assert "keeps no rows" in refused(CliRunner().invoke(main, ["push", str(empty.path), "hf://a/b", "--dry-run"]))
    parts = run.curated("test")
    content = parts.read_bytes()
    parts.unlink()
    try:
        words = ["push", str(run.path), "hf://a/b", "--dry-run"]
        assert "test.parquet is missing" in refused(CliRunner().invoke(main, words))
    finally:
        parts.write_bytes(content)
