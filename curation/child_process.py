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

    Variables that the user has set win over `variables`.
    """
    package_folder = Path(sys.modules["siftune"].__file__ or "").parent
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(package_folder.parent)]))
    return {**variables, **os.environ, "PYTHONPATH": path}
