from __future__ import annotations

from pathlib import Path

import pytest

from siftune.curation.cache_folder import cache_folder


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("/data/cache", Path("/data/cache")),
        ("~/models", Path("/home/ann/models")),
        ("", Path("/home/ann/.cache/siftune")),
        (None, Path("/home/ann/.cache/siftune")),
    ],
)
def test_the_cache_folder_follows_the_environment_and_knows_the_home_folder(
    variable: str | None, expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("SIFTUNE_CACHE", raising=False)
    if variable is not None:
        monkeypatch.setenv("SIFTUNE_CACHE", variable)
    assert cache_folder() == expected
