"""Every command works in a folder of the user's own modules: none of them is imported in place of ours or a library."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from siftune.app.cli.commands import main
from tests.training.worlds import tiny_recipe, write_tiny_llama
from tests.worlds import many, write_source

#: Names of ours, of libraries that we use and of the standard library.
MODULES = [
    *("siftune.py", "training.py", "app.py", "curation/__init__.py", "data/__init__.py"),
    *("datasets.py", "torch.py", "transformers/__init__.py", "trl.py", "polars.py", "numpy/__init__.py", "yaml.py"),
    *("streamlit.py", "altair.py", "pandas.py", "json.py", "logging.py", "types.py", "random.py", "sitecustomize.py"),
]
MARKER = "imported.txt"
SIFTUNE = Path(sys.executable).with_name("siftune")
#: Runs commands one after the other as the installed script does, whose own folder is not the user's.
SEVERAL = """
import json, sys
from pathlib import Path
from siftune.app.cli.commands import main
for command in json.loads(sys.argv[2]):
    main(command, prog_name="siftune", standalone_mode=False)
    assert not Path(sys.argv[1]).exists(), f"{command} imported the user's {Path(sys.argv[1]).read_text()}"
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose modules leave a mark and raise when they are imported."""
    folder = tmp_path / "hostile"
    for module in MODULES:
        path = folder / module
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = f"open({str(folder / MARKER)!r}, 'a').write({module!r} + ' ')"
        path.write_text(f"{mark}\nraise ImportError('the module of the user was imported: {module}')\n")
    return folder


def environment() -> dict[str, str]:
    """Ours, for tiny tensors."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SIFTUNE_CACHE": "cache"}


def siftune(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run a command from inside `folder` that ends with this exit code; returns what it printed."""
    process = subprocess.run(
        [SIFTUNE, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert process.returncode == code, (arguments, process.stdout[-2000:], process.stderr[-3000:])
    return process.stdout


def serve_the_app(folder: Path) -> None:
    """Start the app's server, wait until it answers, and end it with everything that it started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    with log.open("w") as sink:
        server = subprocess.Popen(
            [SIFTUNE, "app", "run", "--headless", "--port", str(port)],
            cwd=folder,
            env=environment(),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.1)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


@pytest.mark.slow
def test_every_command_works_in_a_folder_of_the_users_own_modules(hostile: Path, tmp_path: Path) -> None:
    if not SIFTUNE.is_file():
        pytest.skip("the siftune command is not installed beside this Python")
    rows = write_source(many(24), hostile / "rows.jsonl")
    model = write_tiny_llama(tmp_path / "model", layers=1)
    recipe = {
        # One step of a tiny model in float32: what is trained does not matter here, only what is imported.
        **tiny_recipe(model, arms=["curated"], budget={"steps": 1}, batch_rows=2, max_length=512),
        "model": {"name": str(model), "load": "fp32"},
        "name": "hostile",
        "run": "run",
        "sources": [{"path": rows.name, "name": "s"}],
        "encoder": None,
        "splits": {"test": 3},
        "fail_if": {"leaked": 0},
    }
    recipe["compare"] |= {"default_prompts": False, "prompts": [{"text": "What is a list?"}], "max_new_tokens": 1}
    (hostile / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (hostile / "plan.yaml").write_text(yaml.safe_dump({"questions": 0, "seeds": [0]}))

    several = tmp_path / "several.py"
    several.write_text(SEVERAL)
    row_id = "s:0"

    def together(*commands: list[str]) -> None:
        """One process for several commands, whose imports take longer than their work."""
        process = subprocess.run(
            [sys.executable, several, str(hostile / MARKER), json.dumps(commands)],
            cwd=hostile,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, (process.stdout[-3000:], process.stderr[-3000:])

    alone = [
        ["inspect", "rows.jsonl"],
        ["curate", "recipe.yaml"],
    ]
    light = [
        ["check", "run"],
        ["explain", "run", row_id],
        ["push", "run", "hf://me/set", "--dry-run"],
        ["what-if", "run", "near=0.9"],
        ["diff", "run", "run"],
        ["recipe", "new"],
        ["recipe", "schema"],
    ]
    heavy = [
        ["run", "recipe.yaml"],
        ["train", "run"],
        ["compare", "run"],
        ["prompts", "run"],
        ["sweep", "run", "plan.yaml"],
        ["mask", "run", row_id],
        ["ifd", "run"],
        ["export", "run", "--to", "merged"],
    ]
    # `map` needs topics, and `index` a Redis server: they end with a message, after they were imported.
    refused = [["map", "run", "map.parquet"], ["index", "run", "redis://127.0.0.1:1/0"]]
    commands = {command[0] for command in (*alone, *light, *heavy, *refused)}
    assert commands | {"app"} == set(main.commands), "a command is missing here"
    for command in (*alone, *refused):
        siftune(hostile, *command, code=2 if command in refused else 0)
        assert not (hostile / MARKER).exists(), f"{command} imported the user's {(hostile / MARKER).read_text()}"
    together(*light)
    together(*heavy)
    serve_the_app(hostile)
    assert not (hostile / MARKER).exists(), f"the app imported the user's {(hostile / MARKER).read_text()}"
    assert json.loads((hostile / "run" / "verdict.json").read_text())["comparisons"]
