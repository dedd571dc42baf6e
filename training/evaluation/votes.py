"""Blind votes and finished chat turns, kept in the run folder in SQLite: two browser tabs may write at once."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation import statistics
from siftune.training.evaluation.statistics import VoteResult

Choice = Literal["left", "right", "tie", "both bad"]

_TABLES = """
CREATE TABLE IF NOT EXISTS turns(
    round TEXT NOT NULL, arm TEXT NOT NULL, conversation TEXT NOT NULL, turn INTEGER NOT NULL, time REAL NOT NULL,
    prompt TEXT NOT NULL, answer TEXT NOT NULL, facts TEXT NOT NULL, live INTEGER NOT NULL, PRIMARY KEY (round, arm));
CREATE INDEX IF NOT EXISTS turns_of ON turns(conversation, turn);
CREATE TABLE IF NOT EXISTS votes(
    round TEXT PRIMARY KEY, left_arm TEXT NOT NULL, right_arm TEXT NOT NULL, choice TEXT NOT NULL, time REAL NOT NULL);
"""


@dataclass(frozen=True)
class Turn:
    """One answer of one arm. Answers given side by side to one prompt share a `round`; asking again makes a new one.

    `facts` holds what the engine measured: times, tokens, fingerprint, settings.
    """

    round: str
    arm: str
    conversation: str
    turn: int
    prompt: str
    answer: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Tally:
    """All votes between two arms; wins of `result` are votes for `first`, its ties hold the votes of `both_bad` too."""

    first: str
    second: str
    both_bad: int
    result: VoteResult


def votes_path(run: RunFolder) -> Path:
    """Where votes and turns of a run are kept."""
    return run.path / "votes.sqlite"


@contextmanager
def _database(run: RunFolder) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(votes_path(run), timeout=30)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        with db:
            db.executescript(_TABLES)
        with db:
            yield db


def store_turn(run: RunFolder, turn: Turn) -> None:
    """Keep a finished answer."""
    with _database(run) as db:
        db.execute(
            "INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
            (
                turn.round,
                turn.arm,
                turn.conversation,
                turn.turn,
                time.time(),
                turn.prompt,
                turn.answer,
                json.dumps(turn.facts),
            ),
        )


def read_turns(run: RunFolder, conversation: str) -> list[Turn]:
    """The finished answers of a conversation that were not replaced, in order of turns."""
    if not votes_path(run).is_file():
        return []
    with _database(run) as db:
        found = db.execute(
            "SELECT round, arm, conversation, turn, prompt, answer, facts FROM turns"
            " WHERE conversation = ? AND live ORDER BY turn, time",
            (conversation,),
        ).fetchall()
    return [
        Turn(round_, arm, conversation_, turn, prompt, answer, json.loads(facts))
        for round_, arm, conversation_, turn, prompt, answer, facts in found
    ]


def replace_turns(run: RunFolder, conversation: str, *, since: int) -> None:
    """Take turn `since` and all later ones out of a conversation; they and their votes stay on record."""
    with _database(run) as db:
        db.execute("UPDATE turns SET live = 0 WHERE conversation = ? AND turn >= ?", (conversation, since))


def vote(run: RunFolder, *, round_: str, left: str, right: str, choice: Choice) -> bool:
    """Count a vote, once for each round: False when this round has been voted on already, in whatever tab."""
    with _database(run) as db:
        done = db.execute(
            "INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?)", (round_, left, right, choice, time.time())
        )
        return done.rowcount == 1


def choice_of(run: RunFolder, round_: str) -> Choice | None:
    """What was voted on a round, or None."""
    if not votes_path(run).is_file():
        return None
    with _database(run) as db:
        found = db.execute("SELECT choice FROM votes WHERE round = ?", (round_,)).fetchone()
    return found[0] if found else None


def tallies(run: RunFolder) -> list[Tally]:
    """All votes, by pair of arms in alphabetical order."""
    if not votes_path(run).is_file():
        return []
    with _database(run) as db:
        rows = db.execute("SELECT left_arm, right_arm, choice FROM votes").fetchall()
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for left, right, choice in rows:
        first, second = sorted((left, right))
        won = {"left": left, "right": right}.get(choice, choice)
        pair = counts.setdefault((first, second), {})
        pair[won] = pair.get(won, 0) + 1
    return [_tally(first, second, pair) for (first, second), pair in sorted(counts.items())]


def _tally(first: str, second: str, pair: dict[str, int]) -> Tally:
    bad = pair.get("both bad", 0)
    result = statistics.votes(pair.get(first, 0), pair.get(second, 0), pair.get("tie", 0) + bad)
    return Tally(first, second, bad, result)
