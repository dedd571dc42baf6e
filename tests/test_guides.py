"""The guides in docs/: their commands run, their recipes are accepted, and what cannot be run here says why."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from siftune.app.cli.commands import main
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.recipe.reference import recipe_reference

ROOT = Path(__file__).parents[1]
#: A block of a document: the comment before it, its language, its text.
BLOCK = re.compile(r"(?:^<!-- ([^>]*) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(mark, language, text, id=f"{path.stem}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, (mark, language, text) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("mark", "language", "text"), BLOCKS)
def test_every_block_of_the_guides_is_what_it_says(
    mark: str, language: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if language in ("sh", "python", "yaml") and mark.startswith("not run: needs "):
        assert len(mark) > len("not run: needs ")
    elif language == "yaml":
        needed = {"sources": [{"path": "rows.jsonl"}], "splits": {}}
        parse_recipe(yaml.safe_dump(needed | yaml.safe_load(text)))
    elif mark.startswith("run"):
        shutil.copy(ROOT / "data" / "sample.jsonl", tmp_path)
        monkeypatch.chdir(tmp_path)
        for line in text.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "siftune"
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, (line, result.output)
    else:
        assert language not in ("sh", "python"), f"a block without a mark that says why it is not run: {text}"


def test_the_recipe_reference_is_the_present_one() -> None:
    stored = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert stored == recipe_reference(), "run `siftune recipe reference > docs/recipe.md`"


def test_every_link_between_the_documents_leads_to_a_heading() -> None:
    for path in sorted((ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            linked = (path.parent / name).resolve() if name else path
            assert linked.exists(), (path.name, target)
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, (path.name, target)
