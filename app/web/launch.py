"""Start the app's server on a run folder, on this machine only unless another address is given."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

from siftune.app.web.theme import THEME
from siftune.curation.child_process import module_command, module_environment
from siftune.curation.errors import missing_extra
from siftune.curation.run.folder import RunFolder

LOCALHOST = "127.0.0.1"


def launch(run: Path, *, address: str = LOCALHOST, port: int | None = None, headless: bool | None = None) -> int:
    """Serve the app until it is stopped. On POSIX systems the server takes the place of this process.

    Args:
        run: a run folder.
        address: where the server listens. Any other address than this machine's own gives a warning: everybody who can
            reach the port can read the data and run the models.
        port: the server's port; the first free one from 8501 on when None.
        headless: whether to open no browser; None: open none when there is no display.

    Returns:
        The server's exit code, elsewhere.

    Raises:
        UserError: streamlit is not installed, or `run` is not a run folder.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise missing_extra("streamlit", "app")
    RunFolder.open(run)
    if address not in (LOCALHOST, "localhost", "::1"):
        warnings.warn(
            f"The app listens on {address}: everybody who can reach this port can read the data of {run}, "
            "change decisions and run the models. There is no password.",
            stacklevel=2,
        )
    command, environment = server(run, address=address, port=port, headless=headless)
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(command[0], command, environment)  # noqa: S606 - the server is this process: who ends one ends it all
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - our interpreter and file


def server(
    run: Path, *, address: str = LOCALHOST, port: int | None = None, headless: bool | None = None
) -> tuple[list[str], dict[str, str]]:
    """The server's command line and its environment.

    Args:
        run: a run folder.
        address: where the server listens.
        port: the server's port; Streamlit's choice when None.
        headless: whether to open no browser; None: open none when there is no display.
    """
    flags = {
        "server.address": address,
        "server.headless": _flag(_no_display() if headless is None else headless),
        "server.enableXsrfProtection": "true",
        "server.enableCORS": "true",
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": "false",
        "server.maxUploadSize": "1",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": address,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        **{f"theme.{name}": value for name, value in THEME.items()},
    }
    if port is not None:
        flags["server.port"] = str(port)
    script = Path(__file__).parent / "entry" / "streamlit_app.py"
    options = [f"--{name}={value}" for name, value in flags.items()]
    command = module_command("siftune.app.web.serve", "run", str(script), *options)
    return command, {**module_environment(), "SIFTUNE_RUN": str(run.resolve())}


def _no_display() -> bool:
    return sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _flag(on: bool) -> str:  # noqa: FBT001 - its only argument
    return "true" if on else "false"
