"""The ledger refuses decisions that would lose or double a row, with Python's asserts on and off."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.child_process import module_environment
from siftune.curation.errors import ConservationError, UserError
from siftune.curation.run.ledger import Ledger

ALIVE = schema.conform(pl.DataFrame({"id": ["a", "b"], "row": [0, 1], "pinned": [False, True]}), schema.INDEX)


def drops(*ids: str, reason: str = "near_duplicate") -> pl.DataFrame:
    rows = [{"id": row_id, "action": "drop", "reason": reason} for row_id in ids]
    return schema.conform(pl.DataFrame(rows), schema.DECISIONS)


@pytest.mark.parametrize(
    ("decisions", "fault"),
    [
        (drops("a", "a"), "dropped a row twice"),
        (drops("unknown"), "rows that were not alive"),
        (drops("b"), "restored by hand"),
    ],
)
def test_a_decision_that_breaks_conservation_is_refused(decisions: pl.DataFrame, fault: str) -> None:
    with pytest.raises(ConservationError, match=f"Stage near .*{fault}"):
        Ledger().enter("near", decisions, ALIVE)


def test_a_restored_row_can_be_dropped_for_a_leak_only() -> None:
    assert Ledger().enter("splits", drops("b", reason="leak"), ALIVE)["id"].to_list() == ["a"]


def test_conservation_is_no_fault_of_the_user() -> None:
    assert not issubclass(ConservationError, UserError)


def test_conservation_is_checked_under_optimised_python() -> None:
    script = "from tests.curation.run.test_ledger import *\nLedger().enter('near', drops('a', 'a'), ALIVE)"
    done = subprocess.run(
        [sys.executable, "-O", "-c", script], capture_output=True, text=True, check=False, env=module_environment()
    )
    assert done.returncode == 1
    assert "ConservationError: Stage near dropped a row twice" in done.stderr
