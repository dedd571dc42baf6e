"""CONTRIBUTING's recipes, followed by a script in a copy of the package: how many files an addition touches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from siftune.curation.run.paths import RunPaths
from siftune.training.result import write_result
from tests.training.worlds import training_result, write_tiny_run
from tests.worlds import WORDS, share_tokenizers, write_source

ROOT = Path(__file__).parents[1]


@dataclass
class Checkout:
    """A copy of the package and the documents, and the files that were added or edited in it."""

    root: Path
    touched: set[str] = field(default_factory=set)

    def add(self, path: str, text: str) -> None:
        """Write a new file."""
        assert not (self.root / path).exists()
        (self.root / path).write_text(text, encoding="utf-8")
        self.touched.add(path)

    def edit(self, path: str, *replacements: tuple[str, str]) -> None:
        """Replace pieces of a file, each of which must stand there once."""
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
        self.touched.add(path)

    def python(self, *arguments: str, cwd: Path, **variables: str) -> str:
        """Run Python with this copy first on the path; returns what it printed."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "SIFTUNE_CACHE": str(self.root / "cache")}
        environment |= variables
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy that can be edited; compiled kernels come along."""
    root = tmp_path / "checkout"
    root.mkdir()
    folders = [path for path in (ROOT / "siftune").iterdir() if path.is_symlink()]
    assert len(folders) == 4
    for folder in folders:
        shutil.copytree(folder, root / folder.name)
    (root / "siftune").mkdir()
    for folder in folders:
        (root / "siftune" / folder.name).symlink_to(Path("..") / folder.name)
    for file in (ROOT / "siftune").glob("*.py"):
        shutil.copy2(file, root / "siftune")
    for file in ("README.md", "CONTRIBUTING.md"):
        shutil.copy2(ROOT / file, root)
    share_tokenizers(root / "cache")
    return Checkout(root)


STAGE = '''"""Shared openings: prompts that begin with the same words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.decisions import leader_decisions, pairs_frame
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.measurement import Knob, Measured, Similarity
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Opening
from siftune.curation.schema import Key


@dataclass(frozen=True)
class SharedOpenings:
    """Prompts that begin with the same words: greedy leaders over the share of the longer one."""

    name: ClassVar[str] = "opening"
    title: ClassVar[str] = "Shared openings"
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("opening", ("duplicates", "opening")),)
    compares: ClassVar[Key] = "prompt"
    settings: Opening

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        return cls(recipe.duplicates.opening) if recipe.duplicates.opening else None

    @property
    def similarity(self) -> Similarity:
        return Similarity("share of the words at the beginning", self.settings.threshold, self.settings.floor)

    def depends(self) -> dict[str, Any]:
        return self.settings.model_dump(exclude={"threshold"})

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        batches = corpus.key_texts("prompt", alive["row"].to_numpy())
        words = [text.split() for batch in batches for text in batch]
        a, b = np.triu_indices(len(words), 1)
        score = np.array([shared(words[i], words[j]) for i, j in zip(a, b, strict=True)])
        stored = score >= self.settings.floor
        pairs = Pairs(a[stored].astype(np.uint32), b[stored].astype(np.uint32), score[stored])
        return Measured(pairs_frame(alive, pairs, measure=self.name))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        return leader_decisions(alive, measured, threshold=self.settings.threshold, reason="shared_opening")


def shared(one: list[str], other: list[str]) -> float:
    """How many words both begin with, as a share of the longer one."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return (same.index(False) if False in same else len(same)) / max(len(one), len(other))
'''

OPENING_IMPORT = "from siftune.curation.dedup.opening import SharedOpenings\n"
OPENING_FIELD = "    opening: Opening | None = Field(None, description=Opening.__doc__)\n"
SECTION = '''class Opening(Section):
    """Prompts that begin with the same words."""

    threshold: Threshold = Field(0.7, description="Prompts that share at least this much are duplicates.")
    floor: Threshold = Field(0.5, description="Pairs down to here are stored, for `what-if` and the app.")


class Duplicates(Section):
'''

#: Asserts about a finished run, by the names that CLI, report and app ask for it.
SCRIPT = """
import sys
from pathlib import Path

import polars as pl

import siftune.curation.stages as stages
from siftune.app.web.queries import threshold_effect
from siftune.curation.review import pairs, tables
from siftune.curation.review.catalogue import Catalogue, dossier
from siftune.curation.review.explain import explain
from siftune.curation.review.what_if import ThresholdReplays, replay
from siftune.curation.run.folder import RunFolder

assert Path(stages.__file__).is_relative_to(sys.argv[2]), stages.__file__
run = RunFolder.open(sys.argv[1])

# The ledger has its drops, with a witness and a score.
drops = run.ledger().filter(stage="opening")
assert drops.select("id", "action", "reason", "score", "threshold", "witness").rows() == [
    ("s:1", "drop", "shared_opening", 0.8, 0.7, "s:0")
], drops

# Another threshold is replayed.
dropped = replay(run, {"opening": 0.6}).dropped().filter(stage="opening")["id"].to_list()
assert dropped == ["s:1", "s:2"], dropped

# The story of a row tells of it, and so does what the app gathers.
assert explain(run, "s:1").row["stage"] == "opening"
assert ("s:2", "opening") in [(row["id"], row["measure"]) for row in explain(run, "s:1").neighbours]
catalogue = Catalogue.load(run)
assert "opening" in dossier(catalogue, 1).neighbours["measure"].to_list()

# Splits keep its pairs together: s:2 resembles only the dropped s:1 enough.
groups = dict(run.rows().select("id", "group").iter_rows())
assert groups["s:0"] == groups["s:1"] == groups["s:2"] != groups["s:3"]

# Reports and pages list it.
assert [(stage.name, stage.title) for stage in pairs.threshold_stages(run)][-1] == ("opening", "Shared openings")
assert "opening" in tables.decision_counts(run)["stage"].to_list()
assert pairs.borderline(run, "opening", 0.7).height == 3
assert threshold_effect(Catalogue.load(run), ThresholdReplays.open(run), "opening", 0.6).chosen.dropped == 2
for file in ("report.html", "report.md"):
    assert "shared" in (run.path / file).read_text("utf-8")
assert "Shared openings: threshold 0.7" in (run.path / "report.html").read_text("utf-8")
"""


def test_adding_a_duplicate_stage_with_a_threshold_touches_four_files(checkout: Checkout, tmp_path: Path) -> None:
    checkout.add("curation/dedup/opening.py", STAGE)
    checkout.edit(
        "curation/recipe/sections.py",
        ('"answers", "conflicts", "semantic"', '"answers", "opening", "conflicts", "semantic"'),
        ("class Duplicates(Section):\n", SECTION),
        (
            '    conflicts: Severity = Field("report", description="The same prompt',
            OPENING_FIELD + '    conflicts: Severity = Field("report", description="The same prompt',
        ),
    )
    checkout.edit(
        "curation/stages.py",
        (
            "from siftune.curation.dedup.repeated_answers import",
            OPENING_IMPORT + "from siftune.curation.dedup.repeated_answers import",
        ),
        ("    ConflictingAnswers,\n", "    SharedOpenings,\n    ConflictingAnswers,\n"),
    )
    line = "| `opening` | prompts that begin alike | a kept row |"
    checkout.edit("README.md", ("| `conflicts` |", f"{line}\n| `conflicts` |"))
    assert len(checkout.touched) <= 4

    folder = tmp_path / "data"
    words = iter(f"{one}{other}" for one in WORDS for other in WORDS)
    shared = [next(words) for _ in range(13)]
    prompts = [shared[:8], shared[:10], shared, *([next(words) for _ in range(8)] for _ in range(12))]
    answers = [[next(words) for _ in range(13)] for _ in prompts]
    rows = [{"instruction": " ".join(p), "output": " ".join(a)} for p, a in zip(prompts, answers, strict=True)]
    write_source(rows, folder / "s.jsonl")
    recipe = {
        "run": "run",
        "sources": [{"path": "s.jsonl", "name": "s", "format": "alpaca"}],
        "encoder": None,
        "duplicates": {"opening": {"threshold": 0.7, "floor": 0.5}},
        "splits": {"test": 3, "near": 1.0},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    checkout.python("-m", "siftune", "curate", "r.yaml", cwd=folder)
    checkout.python("-c", SCRIPT, "run", str(checkout.root), cwd=folder)
    assert "opening" in checkout.python("-m", "siftune", "what-if", "run", "opening=0.6", cwd=folder)
    assert "opening: drop, shared opening" in checkout.python("-m", "siftune", "explain", "run", "s:1", cwd=folder)


ENGINE = '''"""An engine that repeats the question: what an interface needs at the least."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence

from siftune.training.inference.engine import Chunk, EngineKind, Fingerprint, Request, Stats, refuse_unknown_arms


class EchoEngine:
    """Answers every arm with its own question."""

    kind: EngineKind = "echo"

    def __init__(self, arms: Sequence[str]) -> None:
        self.arms = tuple(arms)

    def stream(self, requests: Sequence[Request], *, stop: threading.Event | None = None) -> Iterator[Chunk]:
        refuse_unknown_arms(requests, self.arms)
        start = time.perf_counter()
        for index, request in enumerate(requests):
            words = request.messages[-1].content.split()
            seconds = time.perf_counter() - start
            stats = Stats(len(words), len(words), seconds, seconds, "end")
            yield Chunk(index, f"{request.arm}: {' '.join(words)}", len(words), seconds, stats)

    def fingerprint(self, arm: str) -> Fingerprint:
        digest = hashlib.sha256(arm.encode()).hexdigest()
        return Fingerprint(digest, digest)

    def close(self) -> None:
        """Nothing is held."""
'''

ECHO_OPENER = """def _open_echo(options: EngineOptions) -> Engine:
    from siftune.training.inference.echo_engine import EchoEngine

    return EchoEngine(list(adapters_of(options.run, options.arms, seed=options.seed)))


#: Every engine and how it is opened."""

ASK_ECHO = """
import sys

from siftune.curation.run.folder import RunFolder
from siftune.training.inference import factory
from siftune.training.inference.engine import Message, Request

run = RunFolder.open(sys.argv[1])
assert factory.__file__.startswith(sys.argv[2])
engine = factory.open_engine(run.path, run.recipe, kind="echo")
assert engine.kind == "echo"
requests = [Request(arm, (Message("user", "What is a list?"),)) for arm in engine.arms]
print([chunk.text for chunk in engine.stream(requests)], len({str(engine.fingerprint(arm)) for arm in engine.arms}))
"""


def test_adding_an_engine_touches_three_files(checkout: Checkout, tmp_path: Path) -> None:
    checkout.add("training/inference/echo_engine.py", ENGINE)
    checkout.edit("training/inference/engine.py", ('"llama.cpp", "openai"]', '"llama.cpp", "openai", "echo"]'))
    checkout.edit(
        "training/inference/factory.py",
        ("#: Every engine and how it is opened.", ECHO_OPENER),
        ('    "openai": _open_openai,\n', '    "openai": _open_openai,\n    "echo": _open_echo,\n'),
    )
    assert len(checkout.touched) <= 3

    run = write_tiny_run(tmp_path / "run", model=tmp_path / "no-model")
    for arm in ("raw", "curated"):
        write_result(training_result(arm=arm), RunPaths(run).training(arm, 0))
    expected = "['base: What is a list?', 'raw: What is a list?', 'curated: What is a list?'] 3\n"
    assert checkout.python("-c", ASK_ECHO, str(run), str(checkout.root), cwd=tmp_path) == expected


PAGE = '''"""Sources: how many sources the run has."""

from __future__ import annotations

from siftune.app.web import markup, state


def sources() -> None:
    """Draw the page."""
    run = state.open_run()
    markup.draw(markup.headline(f"{len(run.manifest.inputs)} source(s)"))
'''

OPEN_PAGE = """
from streamlit.testing.v1 import AppTest
from siftune.app.web.pages import PAGES

draw_page = PAGES["Sources"]
script = f"from {draw_page.__module__} import {draw_page.__name__} as draw; draw()"
opened = AppTest.from_string(script, default_timeout=60).run()
assert not opened.exception, opened.exception
print(opened.get("html")[0].proto.body)
"""


def test_adding_a_page_touches_two_files(checkout: Checkout, tmp_path: Path) -> None:
    checkout.add("app/web/pages/sources.py", PAGE)
    checkout.edit(
        "app/web/pages/__init__.py",
        ("overview, prompts, thresholds,", "overview, prompts, sources, thresholds,"),
        ('    "Verdict": verdict.verdict,\n', '    "Verdict": verdict.verdict,\n    "Sources": sources.sources,\n'),
    )
    write_source([{"instruction": "what is a?", "output": "A letter."}], tmp_path / "rows.jsonl")
    (tmp_path / "r.yaml").write_text("sources: [{path: rows.jsonl}]\nencoder: null\nrun: run\n")
    checkout.python("-P", "-m", "siftune", "curate", "r.yaml", cwd=tmp_path)
    shown = checkout.python("-P", "-c", OPEN_PAGE, cwd=tmp_path, SIFTUNE_RUN=str(tmp_path / "run"))
    assert "1 source(s)" in shown
    assert len(checkout.touched) == 2
