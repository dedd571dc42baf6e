"""Training and evaluation run in processes of their own; this module is both ends of that wire.

Why: on processors with avx512_bf16, bitsandbytes repacks 4-bit weights at the first forward pass in `eval()` mode and
gradients below them are silently zero from then on. A process that only trains, or only evaluates, cannot fall into it,
and its memory is given back whole.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from siftune.curation.child_process import module_command, module_environment
from siftune.curation.errors import UserError
from siftune.curation.progress import Progress

#: (label, done, total), as everywhere in this project.
_USER_FAULT = 2
_LAST_LINES = 12
#: One GPU is visible: one arm trains on one device.
_VARIABLES = {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0", "PYTHONUNBUFFERED": "1"}


def call(module: str, job: str, *, log: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run `python -m module`, hand it the `job` (JSON) and return what it answers.

    What the process and its libraries print goes to the file `log`.

    Raises:
        UserError: what the process raised as such, word for word.
        RuntimeError: it died of something else; the message ends with the last lines of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            module_command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            encoding="utf-8",
            env=module_environment(**_VARIABLES),
        )
        try:
            return _talk(process, job, progress, log, module)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def serve(work: Callable[[str, Progress], Mapping[str, Any]]) -> int:
    """The other end: read the job, do the work, tell progress and the answer. Returns the exit code."""
    # Libraries print as they like; only our messages may reach the pipe, so standard output is moved to the log.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as wire:
        os.dup2(2, 1)

        def tell(message: Mapping[str, Any]) -> None:
            wire.write(json.dumps(message) + "\n")
            wire.flush()

        try:
            answer = work(sys.stdin.read(), lambda label, done, total: tell({"progress": [label, done, total]}))
        except UserError as fault:
            tell({"fault": str(fault)})
            return _USER_FAULT
        tell({"answer": dict(answer)})
    return 0


def _talk(
    process: subprocess.Popen[str], job: str, progress: Progress | None, log: Path, module: str
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    answer: dict[str, Any] | None = None
    process.stdin.write(job)
    process.stdin.close()
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message and progress is not None:
            label, done, total = message["progress"]
            progress(label, done, total)
        if "fault" in message:
            raise UserError(message["fault"])
        answer = message.get("answer", answer)
    code = process.wait()
    if answer is None:
        raise RuntimeError(f"{module} ended with code {code}. The end of {log}:\n{_tail(log)}")
    return answer


def _tail(log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as handle:
        return "".join(deque(handle, maxlen=_LAST_LINES))
