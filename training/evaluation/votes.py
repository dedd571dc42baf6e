"""Blind votes and finished chat turns, kept in the run folder in SQLite: two browser tabs may write at once."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation import statistics
from siftune.training.evaluation.statistics import VoteResult

VoteChoice = Literal["left", "right", "tie", "both bad"]

_TABLES = """
CREATE TABLE IF NOT EXISTS turns(
    round TEXT NOT NULL, arm TEXT NOT NULL, conversation TEXT NOT NULL, turn INTEGER NOT NULL, time REAL NOT NULL,
    prompt TEXT NOT NULL, answer TEXT NOT NULL, facts TEXT NOT NULL, live INTEGER NOT NULL, PRIMARY KEY (round, arm));
CREATE INDEX IF NOT EXISTS turns_of ON turns(conversation, turn);
CREATE TABLE IF NOT EXISTS votes(
    round TEXT PRIMARY KEY, left_arm TEXT NOT NULL, right_arm TEXT NOT NULL, choice TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS continued(round TEXT PRIMARY KEY, arm TEXT NOT NULL);
"""


#: For another process to finish writing.
_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class StoredTurn:
    """One prompt with the answer of one arm. Answers side by side share a `round`; asking again makes a new one.

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
class PairVotes:
    """All votes between two arms: wins of `result` are votes for `first`, its ties include the `both_bad` votes."""

    first: str
    second: str
    both_bad: int
    result: VoteResult


@dataclass(frozen=True)
class VotedRound:
    """The two answers that a person voted on, to the first prompt of a conversation."""

    round: str
    prompt: str
    left_arm: str
    right_arm: str
    left_answer: str
    right_answer: str
    choice: VoteChoice


def _write_ahead(db: sqlite3.Connection) -> None:
    """Let readers and a writer work at the same time. SQLite does not wait for the lock that the first change takes."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def _database(run: RunFolder) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(run.votes_path, timeout=_PATIENCE_SECONDS)) as db:
        _write_ahead(db)
        with db:
            db.executescript(_TABLES)
        with db:
            yield db


def store_turn(run: RunFolder, turn: StoredTurn) -> None:
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


def read_turns(run: RunFolder, conversation: str) -> list[StoredTurn]:
    """The finished answers of a conversation that were not replaced, in order of turns."""
    if not run.votes_path.is_file():
        return []
    with _database(run) as db:
        rows = db.execute(
            "SELECT round, arm, conversation, turn, prompt, answer, facts FROM turns"
            " WHERE conversation = ? AND live ORDER BY turn, time",
            (conversation,),
        ).fetchall()
    return [
        StoredTurn(round_, arm, conversation_, turn, prompt, answer, json.loads(facts))
        for round_, arm, conversation_, turn, prompt, answer, facts in rows
    ]


def replace_turns(run: RunFolder, conversation: str, *, since: int) -> None:
    """Take turn `since` and all later ones out of a conversation; they and their votes stay in the database."""
    with _database(run) as db:
        db.execute("UPDATE turns SET live = 0 WHERE conversation = ? AND turn >= ?", (conversation, since))


def continue_with(run: RunFolder, round_: str, arm: str | None) -> None:
    """Let every arm continue a conversation with the answer of one of them in a round; None: each with its own."""
    with _database(run) as db:
        db.execute("DELETE FROM continued WHERE round = ?", (round_,))
        if arm is not None:
            db.execute("INSERT INTO continued VALUES (?, ?)", (round_, arm))


def read_continued(run: RunFolder, conversation: str) -> dict[str, str]:
    """The rounds of a conversation that all arms continue with one answer, and the arm that gave it."""
    if not run.votes_path.is_file():
        return {}
    with _database(run) as db:
        rows = db.execute(
            "SELECT DISTINCT continued.round, continued.arm FROM continued"
            " JOIN turns ON turns.round = continued.round WHERE conversation = ?",
            (conversation,),
        ).fetchall()
    return dict(rows)


def store_vote(run: RunFolder, *, round_: str, left: str, right: str, choice: VoteChoice) -> bool:
    """Count a vote, once for each round: False when this round has been voted on already, in whatever tab.

    Args:
        run: the run whose arms answered.
        round_: what the two answers share.
        left, right: the arms that answered on either side.
        choice: what the user chose.
    """
    with _database(run) as db:
        inserted = db.execute(
            "INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?)", (round_, left, right, choice, time.time())
        )
        return inserted.rowcount == 1


def read_choice(run: RunFolder, round_: str) -> VoteChoice | None:
    """The vote on a round; None when nobody has voted on it."""
    if not run.votes_path.is_file():
        return None
    with _database(run) as db:
        row = db.execute("SELECT choice FROM votes WHERE round = ?", (round_,)).fetchone()
    return row[0] if row else None


def voted_rounds(run: RunFolder) -> list[VotedRound]:
    """The votes on answers to the first prompt of a conversation, oldest first: what they are about is one prompt."""
    if not run.votes_path.is_file():
        return []
    with _database(run) as db:
        rows = db.execute(
            "SELECT votes.round, l.prompt, left_arm, right_arm, l.answer, r.answer, choice FROM votes"
            " JOIN turns AS l ON l.round = votes.round AND l.arm = left_arm"
            " JOIN turns AS r ON r.round = votes.round AND r.arm = right_arm"
            " WHERE l.turn = (SELECT MIN(turn) FROM turns WHERE conversation = l.conversation) ORDER BY votes.time"
        ).fetchall()
    return [VotedRound(*row) for row in rows]


def votes_by_pair(run: RunFolder) -> list[PairVotes]:
    """All votes, by pair of arms in alphabetical order, whichever side they stood on."""
    if not run.votes_path.is_file():
        return []
    with _database(run) as db:
        votes = db.execute("SELECT left_arm, right_arm, choice FROM votes").fetchall()

    # Count each outcome by the arm it is for: an arm's name, "tie" or "both bad".
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for left, right, choice in votes:
        first, second = sorted((left, right))
        counts[first, second][{"left": left, "right": right}.get(choice, choice)] += 1

    return [
        PairVotes(
            first,
            second,
            both_bad=pair["both bad"],
            result=statistics.vote_result(pair[first], pair[second], pair["tie"] + pair["both bad"]),
        )
        for (first, second), pair in sorted(counts.items())
    ]
