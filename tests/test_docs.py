"""The documents say what the program does: every command, stage and file they name exists, and none is left out."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from siftune.app.cli.commands import main
from siftune.curation.recipe.loading import load_recipe, parse_recipe
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.rule_sections import FailIf
from siftune.curation.stages import stages
from siftune.training.evaluation.sweep_plan import load_plan, plan_schema

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SHELL = "\n".join(text for language, text in BLOCKS if language in ("", "sh", "text"))
COMMANDS = re.findall(r"^siftune .*$", SHELL, re.MULTILINE)
FULL = {
    "sources": [{"path": "rows.jsonl"}],
    "duplicates": {"semantic": {}},
    "contamination": {},
}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_exists_with_its_options(line: str) -> None:
    words = shlex.split(line.split("  ")[0], comments=True)[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        name = words.pop(0)
        assert name in command.commands, line
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_stands_in_the_readme_and_helps(name: str) -> None:
    assert any(line.startswith(f"siftune {name}") for line in COMMANDS), name
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert (main.commands[name].help or "no help").splitlines()[0] in result.output


def test_every_stage_stands_in_the_readme() -> None:
    for stage in stages(Recipe.model_validate(FULL), base=ROOT):
        assert f"`{stage.name}`" in README


def test_every_recipe_block_of_the_readme_is_accepted() -> None:
    blocks = [text for language, text in BLOCKS if language == "yaml"]
    assert blocks
    for block in blocks:
        parse_recipe(block)


def test_every_rule_of_fail_if_stands_in_the_document_on_data_checks() -> None:
    text = (ROOT / "docs" / "data_checks.md").read_text(encoding="utf-8")
    assert not [rule for rule in FailIf.model_fields if f"| `{rule}" not in text]
    recipe = re.findall(r"^```yaml\n# recipe\.yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert parse_recipe(recipe[0]).fail_if


def test_shipped_recipes_are_accepted() -> None:
    shipped = sorted((ROOT / "data").rglob("*.yaml"))
    sweeps = [path for path in shipped if path.parent.name == "sweeps"]
    assert len(shipped) >= 4
    assert sweeps
    for path in shipped:
        load_plan(path) if path in sweeps else load_recipe(path)


def test_every_file_that_the_documents_name_exists() -> None:
    named = set(re.findall(r"`((?:curation|training|app|data|tests)/[\w/]+\.\w+)`", README + CONTRIBUTING))
    assert len(named) > 5
    assert not [path for path in sorted(named) if not (ROOT / path).exists() and "NAME" not in path]


def test_every_link_of_the_documents_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README + CONTRIBUTING)
    assert "docs/results.md" in links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_file_map_of_the_readme_names_every_room() -> None:
    file_map = README.split("## File map")[1].split("```")[1]
    rooms = [
        path.parent for folder in ("curation", "training", "app") for path in (ROOT / folder).glob("*/__init__.py")
    ]
    assert not [room.name for room in rooms if not re.search(rf"\b{room.name}/", file_map)]


def test_every_make_target_has_a_help_line() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", makefile, re.MULTILINE)
    assert {"demo", "test", "lint", "app", "bench", "clean"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:.*## .+", makefile, re.MULTILINE), target


def test_ci_runs_lint_before_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 0 < script.index("make lint") < script.index("make test")


def test_the_json_schema_holds_every_section_of_a_recipe() -> None:
    schema = json.loads(CliRunner().invoke(main, ["recipe", "schema"]).output)
    assert set(schema["properties"]) == set(Recipe.model_fields)


def test_the_json_schema_of_sweep_plans_is_printed() -> None:
    assert json.loads(CliRunner().invoke(main, ["recipe", "schema", "--sweep"]).output) == plan_schema()
