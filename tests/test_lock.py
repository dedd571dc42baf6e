"""The lock file: its versions are those of constraints.txt, it holds what pyproject.toml asks for, all with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
#: Its file differs between the builds for CPU and CUDA, so that it has no hash here.
WITHOUT_HASH = {"torch"}


def locked() -> dict[str, list[Version]]:
    """Versions by name: several where they differ by platform or Python. Every entry has a hash."""
    text = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    versions: dict[str, list[Version]] = {}
    for line in text.splitlines():
        assert re.search(r" --hash=sha256:[0-9a-f]{64}", line), line[:80]
        (specifier,) = (requirement := Requirement(line.partition("--hash")[0])).specifier
        assert specifier.operator == "=="
        versions.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    return versions


def made_from() -> list[str]:
    (extras,) = re.findall(r"^EXTRAS := (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return extras.split()


def test_the_lock_holds_every_requirement_of_the_setup_in_a_version_that_it_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(requirement for extra in made_from() for requirement in extras[extra])]
    versions = locked()
    missing = [
        line
        for requirement in asked
        if (name := canonicalize_name((line := Requirement(requirement)).name)) not in WITHOUT_HASH
        and not any(line.specifier.contains(version) for version in versions.get(name, []))
    ]
    assert not missing, "write the lock anew with: make lock"
    assert not WITHOUT_HASH & versions.keys()
    assert {"gguf", "fuzz"} == extras.keys() - set(made_from())


def test_the_lock_agrees_with_the_constraints() -> None:
    versions = locked()
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    other = [
        (str(pin), versions[name])
        for pin in pins
        if (name := canonicalize_name(pin.name)) in versions
        and not all(pin.specifier.contains(version) for version in versions[name])
    ]
    assert not other, "write the lock anew with: make lock"
