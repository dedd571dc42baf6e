"""What the system refuses ends in one sentence, never in a traceback."""

from __future__ import annotations

import errno
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from polars.exceptions import ComputeError

from siftune.app.cli import commands
from siftune.app.cli.system_faults import replace_unencodable_output, system_message


def test_characters_that_the_output_does_not_have_are_replaced(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    replace_unencodable_output()
    print("≥ x →")  # noqa: T201
    sys.stdout.flush()
    assert raw.getvalue() == b"? x ?\n"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.parquet"), "the disk is full while writing a.parquet"),
        (OSError("No space left on device (os error 28)"), "the disk is full. Free"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "a.jsonl/b"),
            "a.jsonl/b cannot be used: Not a directory",
        ),
        (OSError(errno.EFBIG, "File too large"), "a file would be larger than the system allows: File too large"),
        (OSError(errno.EIO, "Input/output error"), None),
        (
            ComputeError(
                "parquet: File out of specification: underlying IO error: No space left on device (os error 28)"
            ),
            "the disk is full. Free",
        ),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full. Free"),
        (ComputeError("cannot cast"), None),
    ],
)
def test_faults_of_the_system(fault, message):
    found = system_message(fault)
    assert found is None if message is None else found.startswith(message)


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), ComputeError("No space left on device (os error 28)")]
)
def test_a_full_disk_is_one_sentence_and_exit_code_2(monkeypatch, tmp_path, fault):
    from siftune.curation import pipeline

    def full(*_, **__):
        raise fault

    monkeypatch.setattr(pipeline, "curate", full)
    result = CliRunner().invoke(commands.main, ["curate", str(tmp_path / "r.yaml")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "the disk is full" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["recipe", "new"]])
def test_an_output_that_takes_nothing_is_one_sentence(words):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-P", "-m", "siftune", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the disk is full" in done.stderr


@pytest.mark.parametrize("command", ["inspect", "curate"])
def test_no_usable_row_is_said_and_ends_with_exit_code_2(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": "q", "answer": " "}, {"question": "", "answer": "a"}, {"question": "r", "answer": ""}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text("sources: [{path: a.jsonl}]\nencoder: null\n")
    result = CliRunner().invoke(commands.main, [command, "a.jsonl" if command == "inspect" else "r.yaml"])
    assert result.exit_code == 2
    assert "none of the 3 rows can be used (empty_answer 2, missing_prompt 1)" in result.stderr
    if command == "inspect":
        assert "first: row 1 of a.jsonl" in result.stdout
        assert "to do: fill in the prompt" in result.stdout
