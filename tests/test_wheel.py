"""An installed wheel holds one package, `siftune`, with everything that a checkout has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("curation", "training", "app", "data")
IGNORED = shutil.ignore_patterns("__pycache__", "built")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheel, as pip lays them into site-packages."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*ROOMS, "siftune"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    wheels = tmp_path_factory.mktemp("wheels")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(wheels),
        ".",
    ]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    target = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_wheel_adds_one_package_to_site_packages(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert names - {name for name in names if name.endswith(".dist-info")} == {"siftune"}


def test_the_wheel_holds_every_file_of_the_rooms(installed: Path) -> None:
    files = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()]
    shipped = [path for path in files if not {"__pycache__", "built"} & set(path.parts)]
    assert len(shipped) > 150
    assert not [path for path in shipped if not (installed / "siftune" / path).is_file()]


def test_the_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert python("-c", "import siftune; print(siftune.__file__)").startswith(str(installed))
    assert python("-m", "siftune", "recipe", "new", "--full").startswith("# A siftune recipe")
    loaded = python(
        "-c",
        "from siftune.curation.recipe.loading import load_recipe; import sys, pathlib\n"
        "print(load_recipe(pathlib.Path(sys.argv[1])).name)",
        str(installed / "siftune/data/demo.yaml"),
    )
    assert loaded == "demo\n"
