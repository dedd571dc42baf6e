"""Training and evaluation run in processes of their own; this module is both ends of the pipe between them and us.

Why: on processors with avx512_bf16, bitsandbytes repacks 4-bit weights at the first forward pass in `eval()` mode and
gradients below them are silently zero from then on. A process that only trains, or only evaluates, cannot fall into it,
and its memory is given back whole.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from siftune.curation.child_process import module_command, module_environment
from siftune.curation.errors import UserError
from siftune.curation.progress import Progress

#: Exit code of a worker that reported a `UserError`.
_USER_ERROR = 2
#: Lines of the log that a crash shows.
_LOG_LINES = 12
#: The worker's environment where the user's own sets nothing else.
VARIABLES = {
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # One arm trains on one GPU.
    "CUDA_VISIBLE_DEVICES": "0",
    # Threads that wait for work sleep. By default OpenMP's spin, and beside another busy process they take its cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Nothing here is compiled, and bitsandbytes would import the compiler: two of the nine seconds of all imports.
    "TORCHDYNAMO_DISABLE": "1",
}


class WorkerError(RuntimeError):
    """A worker ended before its work did, for a reason that it could not name: a crash, or no memory."""


class WorkerKilledError(WorkerError, UserError):
    """The system killed a worker, as it does where memory runs out: the user can mend that."""


def start(module: str, *, log: IO[str]) -> subprocess.Popen[str]:
    """Start `module` as a worker with pipes to its standard input and output; its messages go to `log`."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        module_command("siftune.training.worker", module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        env=module_environment(**VARIABLES),
    )


def hand_over(job: str, pipe: IO[str]) -> None:
    """Give a worker its job, one line of JSON, and leave the pipe open."""
    pipe.write(job + "\n")
    pipe.flush()


def call(module: str, job: str, *, log: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run a worker, hand it a job and return its last answer. Raises like `answers`.

    Args:
        module, job, log, progress: as of `answers`.
    """
    *_, answer = answers(module, job, log=log, progress=progress)
    return answer


def answers(module: str, job: str, *, log: Path, progress: Progress | None = None) -> Iterator[dict[str, Any]]:
    """Run a worker, hand it a job and yield each answer as it comes. The process ends with the iterator.

    Args:
        module: The worker's module, which ends in `serve` or `serve_all`.
        job: JSON that the worker understands.
        log: The file for what the process and its libraries print.
        progress: Called whenever the worker reports progress.

    Raises:
        UserError: what the worker raised as such, word for word.
        WorkerKilledError: the system killed the worker.
        WorkerError: the worker ended before its work did; the message ends with the last lines of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    finished = False
    with log.open("w", encoding="utf-8") as sink:
        process = start(module, log=sink)
        try:
            # The job goes in, and messages come out until the process ends. The pipe stays open: its end tells the
            # worker that we are gone.
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):  # it died before it had read the job
                hand_over(job, process.stdin)
            for line in process.stdout:
                message = json.loads(line)
                if "progress" in message and progress is not None:
                    label, done, total = message["progress"]
                    progress(label, done, total)
                if "fault" in message:
                    raise UserError(message["fault"])
                if "answer" in message:
                    yield message["answer"]
                finished = finished or "finished" in message
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.close()
    if code == -signal.SIGKILL and not finished:
        raise WorkerKilledError(
            f"The system killed {module}, most likely because memory ran out. Close other programs, or lower "
            "training.batch_rows or training.max_length, and run the same command again: it goes on from what is "
            f"finished. Its messages are in {log}."
        )
    if not finished:
        with log.open(encoding="utf-8", errors="replace") as lines:
            end = "".join(deque(lines, maxlen=_LOG_LINES))
        raise WorkerError(f"{module} ended with code {code}. The end of {log}:\n{end}")


def serve(work: Callable[[str, Progress], Mapping[str, Any]]) -> int:
    """The side of a worker with one answer: read the job, do the work, send progress and the answer. Returns the exit
    code."""
    return serve_all(lambda job, progress: iter([work(job, progress)]))


def serve_all(work: Callable[[str, Progress], Iterator[Mapping[str, Any]]]) -> int:
    """The side of a worker with several answers, each sent as soon as it is there. Returns the exit code."""
    # Libraries print as they like; only our messages may reach the pipe, so standard output is moved to the log.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as pipe:
        os.dup2(2, 1)

        def send(message: Mapping[str, Any]) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        try:
            for answer in work(received_job(), lambda label, done, total: send({"progress": [label, done, total]})):
                send({"answer": dict(answer)})
        except UserError as fault:
            send({"fault": str(fault)})
            return _USER_ERROR
        send({"finished": True})
    return 0


@cache
def received_job() -> str:
    """The job, read once. A thread then waits for the end of the pipe, and ends this process with its parent."""
    job = sys.stdin.readline()

    def end_with_parent() -> None:
        while os.read(0, 1):  # nothing more is sent: it returns when the other end is closed
            pass
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    return job


def main() -> None:
    """A worker's process. The job is received first: its module takes seconds to import, and the parent can go then."""
    from siftune.training import worker  # under its own name: the module asks that one for the job

    worker.received_job()
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
