"""Curate instruction data, fine-tune a small model on the raw and on the curated data, and measure whether it helped.

The few names that a notebook needs. Everything else is in `siftune.curation`, `siftune.training` and `siftune.app`.

    >>> import siftune
    >>> run = siftune.curate(recipe)
    >>> run.rows()["fate"].value_counts(sort=True).rows()
    [('kept', 55), ('dropped', 8), ('quarantined', 2)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from siftune.curation.errors import UserError
from siftune.curation.portable_arithmetic import choose_kernels

choose_kernels()  # before anything imports numpy

if TYPE_CHECKING:
    import polars as pl

    from siftune.curation.progress import Progress
    from siftune.curation.replay import Replay
    from siftune.curation.review.explain import Story
    from siftune.curation.run.folder import RunFolder
    from siftune.training.evaluation.verdict import Verdict
    from siftune.training.inference.engine import Engine, EngineKind, Message

__all__ = ["Chat", "Run", "UserError", "curate", "open_run"]


def curate(recipe: str | Path, *, progress: Progress | None = None) -> Run:
    """Curate as a recipe says: read, compare, decide, split, balance, write. Stored measures are reused.

    Args:
        recipe: the path of a YAML recipe (`siftune recipe new` writes one).
        progress: called as `progress(label, done, total)` while the work goes on.

    Raises:
        UserError: the recipe, a source, a reference or the run folder is not as it must be.
    """
    from siftune.curation.pipeline import curate as run_pipeline

    return Run(run_pipeline(Path(recipe), progress=progress).path)


def open_run(folder: str | Path) -> Run:
    """Open the folder of a run that `curate` made.

    >>> siftune.open_run(run.path) == run
    True
    >>> siftune.open_run("no/such/folder")
    Traceback (most recent call last):
    siftune.curation.errors.UserError: There is no run folder at no/such/folder.

    Raises:
        UserError: there is no such folder, or it is not the folder of a run.
    """
    from siftune.curation.run.folder import RunFolder

    return Run(RunFolder.open(folder).path)


@dataclass(frozen=True)
class Run:
    """A curated run, and what training and comparison added to its folder. All frames are polars frames."""

    path: Path

    def rows(self) -> pl.DataFrame:
        """The fate of every input row: id, source, fate, stage, split, arms, lengths in words.

        >>> run.rows().filter(fate="kept").height
        55
        """
        return self._folder().rows()

    def ledger(self) -> pl.DataFrame:
        """Every decision of every stage: id, stage, action, reason, score, threshold, witness, detail.

        >>> run.ledger().filter(action="drop")["stage"].unique(maintain_order=True).to_list()
        ['checks', 'exact', 'near']
        """
        return self._folder().ledger()

    def pairs(self, stage: str) -> pl.DataFrame:
        """Verified pairs of a duplicate stage ("exact", "near", "answers", "semantic"): a, b, score, guarded.

        >>> bool((run.pairs("near")["score"] >= 0.6).all())
        True
        """
        return self._folder().pairs(stage)

    def explain(self, row_id: str) -> Story:
        """The history of one row: its text, every decision on it, and what happened to the rows it was compared with.

        >>> dropped = run.ledger().filter(stage="near", action="drop")["id"][0]
        >>> run.explain(dropped).chapters[0].decision["reason"]
        'near_duplicate'

        Raises:
            UserError: the run has no row of this id.
        """
        from siftune.curation.review.explain import explain

        return explain(self._folder(), row_id)

    def what_if(self, **thresholds: float) -> Replay:
        """Decide again with other thresholds, from stored measures; nothing is measured anew or written.

        >>> run.what_if(near=0.95).dropped().filter(stage="near").height
        1

        Raises:
            UserError: a name is not a stage with a threshold, or a value lies below the floor of what was stored.
        """
        from siftune.curation.review.what_if import replay

        return replay(self._folder(), thresholds)

    def train(
        self, *, arms: Sequence[str] | None = None, seeds: Sequence[int] | None = None, progress: Progress | None = None
    ) -> None:
        """Train adapters on the run's arms; what is trained already is kept.

        >>> trained_run.train(arms=["raw", "curated"], seeds=[0])

        Args:
            arms: names such as "raw", "curated", "random"; those of the recipe when None.
            seeds: those of the recipe when None.
            progress: called as `progress(label, done, total)`.

        Raises:
            UserError: the recipe has no `training` section, an arm does not exist, or training cannot start.
        """
        from siftune.training.arms import train

        train(self.path, arms=arms, seeds=seeds, progress=progress)

    def compare(self, *, progress: Progress | None = None) -> Verdict:
        """Measure the held-out loss of every trained arm and of the base, and compare the arms.

        >>> [comparison.name for comparison in trained_run.compare().declared]
        ['curated − raw']

        Raises:
            UserError: nothing is trained, or the run has no held-out rows.
        """
        from siftune.training.evaluation.compare import compare

        return compare(self.path, progress=progress)

    def verdict(self) -> Verdict | None:
        """The verdict of the last comparison; None before the first.

        >>> trained_run.verdict().headline
        'No verdict from one training run of curated: ...'

        Raises:
            UserError: the stored verdict is damaged.
        """
        from siftune.training.evaluation.verdict import Verdict

        return Verdict.read(self._folder())

    def chat(self, arm: str, *, seed: int | None = None, engine: EngineKind = "transformers") -> Chat:
        """A conversation with a trained arm, or with the untrained "base".

        >>> with trained_run.chat("curated") as chat:
        ...     answer = chat.ask("What is a list?", max_new_tokens=4)
        ...     [message.role for message in chat.messages]
        ['user', 'assistant']

        Args:
            arm: the arm's name.
            seed: which of its training runs; the lowest seed when None.
            engine: "transformers", or "llama.cpp" over an exported GGUF file.

        Raises:
            UserError: the arm is not trained (or not exported), or an extra is not installed.
        """
        from siftune.training.inference.factory import open_engine

        return Chat(arm, open_engine(self.path, self._folder().recipe, kind=engine, arms=[arm], seed=seed))

    def _folder(self) -> RunFolder:
        from siftune.curation.run.folder import RunFolder

        return RunFolder.open(self.path)


@dataclass
class Chat:
    """A conversation with one arm. The model stays in memory until `close`, or the end of a `with` block."""

    arm: str
    engine: Engine
    messages: list[Message] = field(default_factory=list)

    def ask(
        self, prompt: str, *, system: str | None = None, max_new_tokens: int = 200, temperature: float = 0.0
    ) -> str:
        """The arm's answer to `prompt`, given the conversation so far; both are added to it.

        Args:
            prompt: the user's turn.
            system: a system prompt; it may open a conversation only.
            max_new_tokens: the answer's length at most, in tokens.
            temperature: 0 is greedy decoding.

        Raises:
            UserError: a sampling value is out of range, or `system` is given later than in the first turn.
        """
        from siftune.training.inference.engine import Message, Request, Sampling

        if system is not None and self.messages:
            raise UserError("A system prompt opens a conversation; this one has begun. Open another: run.chat(arm).")
        opening = [Message("system", system)] if system is not None else []
        messages = [*self.messages, *opening, Message("user", prompt)]
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
        answer = "".join(chunk.text for chunk in self.engine.stream([Request(self.arm, tuple(messages), sampling)]))
        self.messages = [*messages, Message("assistant", answer)]
        return answer

    def close(self) -> None:
        """Free the model's memory."""
        self.engine.close()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
