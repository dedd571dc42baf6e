"""The figures in the README, in docs/results.md and in the photographed pages are of one run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PAGES = ROOT / "docs" / "screenshots" / "pages.json"


def demo(document: str) -> str:
    (block,) = re.findall(r"<!-- demo -->(.*?)<!-- /demo -->", document, re.DOTALL)
    return str(block)


def figures(text: str) -> set[str]:
    """Numbers, without those in names such as AVX-512."""
    return set(re.findall(r"(?<![\w-])\d[\d,]*(?:\.\d+)?", text))


@pytest.fixture
def pages() -> dict[str, str]:
    """The text of the photographed pages, written by tests/publish_results.py beside the pictures."""
    if not PAGES.is_file():
        pytest.skip("the pictures in docs/screenshots are of an earlier run: no pages.json beside them")
    return dict(json.loads(PAGES.read_text(encoding="utf-8")))


def test_every_figure_of_the_readme_stands_in_the_results() -> None:
    assert len(figures(demo(README))) > 10
    assert not figures(demo(README)) - figures(demo(RESULTS))


def test_the_photographed_verdict_shows_the_losses_of_the_table(pages: dict[str, str]) -> None:
    losses = re.findall(r"^\| (\w+) \| (\d+\.\d{4}) \|$", demo(RESULTS), re.MULTILINE)
    assert {arm for arm, _ in losses} >= {"base", "raw", "curated", "random"}
    assert not {loss for _, loss in losses} - figures(pages["verdict"])


def test_the_photographed_overview_shows_the_rows_of_the_table(pages: dict[str, str]) -> None:
    (stages,) = re.findall(r"^\| stage \|.*?\n\n", demo(RESULTS), re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| [\w/-]+ \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", stages, re.MULTILINE)
    assert len(rows) >= 10
    read, kept = rows[0][0], rows[-1][2]
    assert {read, kept} <= figures(pages["overview"])


@pytest.mark.parametrize("name", re.findall(r"\((docs/screenshots/\w+\.png)\)", README))
def test_every_picture_of_the_readme_exists(name: str) -> None:
    assert (ROOT / name).stat().st_size > 10_000
