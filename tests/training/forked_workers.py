"""Workers for the tests that begin as forks of one process, which has imported PyTorch and its libraries already.

A worker is the same separate process as always, with its own pipes, log and end; only the eight seconds of imports are
not paid for each of some sixty workers of the suite. `tests/training/test_worker.py`, `tests/test_hostile_folder.py`
and every `siftune` command that a test starts still start workers as users do.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import IO

from siftune.curation.child_process import module_environment
from siftune.training import worker
from siftune.training.evaluation import ifd, loss_worker
from siftune.training.evaluation.tasks import score_tasks
from siftune.training.jobs import WORKER

#: The workers that are forked; any other one is started as usual.
FORKED = (WORKER, loss_worker.WORKER, score_tasks.WORKER, ifd.WORKER, "siftune.training.evaluation.sweep")
_LIBRARIES = (
    *("bitsandbytes", "peft", "trl", "transformers.models.llama.modeling_llama", "transformers.integrations"),
    *("transformers.models.auto.tokenization_auto", "siftune.training.inference.transformers_engine"),
)
_STATUS = struct.Struct("q")
#: Imported anew by no worker; what differs from one to the next (environment, folder, pipes) comes with the order.
_SERVER = """
import importlib, json, os, runpy, signal, socket, struct, sys
orders = socket.socket(fileno=int(sys.argv[1]))
for module in json.loads(sys.argv[2]):
    importlib.import_module(module)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    order, files, _, _ = socket.recv_fds(orders, 1 << 20, 4)
    if not order:
        break
    if os.fork():  # the server goes on
        for file in files:
            os.close(file)
        continue
    orders.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    given, status = json.loads(order), files.pop()
    child = os.fork()
    if child:  # waits for the worker and says how it ended
        for file in (0, 1, 2, *files):
            os.close(file)
        os.write(status, struct.pack("q", child))
        os.write(status, struct.pack("q", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
        os._exit(0)
    os.close(status)
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    del sys.modules[given["module"]]
    try:
        runpy.run_module(given["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


class ForkedProcess:
    """What `worker.start` returns, for a process that is no child of ours."""

    def __init__(self, module: str, log: IO[str]) -> None:
        mine, theirs = os.pipe(), os.pipe()
        self._status, status = os.pipe()
        order = {"module": module, "folder": str(Path.cwd()), "environment": module_environment(**worker.VARIABLES)}
        files = [mine[0], theirs[1], log.fileno(), status]
        socket.send_fds(_server(), [json.dumps(order).encode()], files)
        for file in (mine[0], theirs[1], status):
            os.close(file)
        self.stdin = os.fdopen(mine[1], "w", encoding="utf-8")
        self.stdout = os.fdopen(theirs[0], encoding="utf-8")
        self.returncode: int | None = None
        (self.pid,) = _STATUS.unpack(os.read(self._status, _STATUS.size))

    def wait(self) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        if self.returncode is None:
            (self.returncode,) = _STATUS.unpack(os.read(self._status, _STATUS.size))
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        has_ended = self.returncode is not None or select.select([self._status], [], [], 0)[0]
        return self.wait() if has_ended else None

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(self, *fault: object) -> None:
        self.stdout.close()
        self.stdin.close()
        self.wait()


@cache
def _server() -> socket.socket:
    """The connection to the process that forks; it ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", "-c", _SERVER, str(its.fileno()), json.dumps([*_LIBRARIES, *FORKED])]
    subprocess.Popen(command, pass_fds=[its.fileno()], env=module_environment(**worker.VARIABLES))
    its.close()
    return ours


_start = worker.start


def start(module: str, *, log: IO[str]) -> ForkedProcess | subprocess.Popen[str]:
    """As `siftune.training.worker.start`."""
    return ForkedProcess(module, log) if module in FORKED else _start(module, log=log)
