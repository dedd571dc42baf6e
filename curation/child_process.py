"""Modules of siftune in a process of their own, whatever stands in the user's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` with this interpreter.

    `-P` keeps the present folder off the module path: a user's own `datasets.py` or `training.py` there would be
    imported in place of the real one.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(**variables: str) -> dict[str, str]:
    """This process's environment, with the folder that holds the package `siftune` at the end of the module path.

    Empty entries of the user's PYTHONPATH are left out: to Python they are the present folder. PYTHONSAFEPATH is `-P`
    for the processes that the child starts in its turn. Variables that the user has set win over `variables`.
    """
    package_folder = Path(sys.modules["siftune"].__file__ or "").parent
    entries = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(package_folder.parent)]
    path = os.pathsep.join(filter(None, entries))
    return {**variables, **os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
