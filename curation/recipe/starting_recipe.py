"""A commented recipe to start from, and the JSON Schema of a recipe: both are generated from the sections."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Near, Section, Source, Splits
from siftune.curation.recipe.training_sections import Training


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def short_recipe() -> str:
    """A recipe for a file that is not known yet: the sections that most people change first."""
    return f"""\
# Only `sources` is required. `siftune recipe new FILE` writes a recipe for a file; `--full` prints every setting.

sources:
  - path: data.jsonl  # a file, a folder, a glob or hf://owner/name; relative to this recipe

duplicates:
  near: {{threshold: {Near().threshold:g}}}  # rows are duplicates from this similarity of their words on
{semantic_comment()}

# splits: {{test: {Splits().test:g}}}  # held-out rows that no training row resembles

# contamination:  # rows that hold an item of a benchmark are dropped: name those that you test with
#   references: [{{path: benchmark.jsonl}}]

# balance: {{target: temperature}}  # evens out the lengths of prompts

# training:  # for `siftune run`; needs `splits`
#   budget: {{tokens: {Training().budget.tokens}}}
"""


def semantic_comment() -> str:
    """The commented line that switches the semantic stage on, with what is still to be installed for it."""
    is_installed = importlib.util.find_spec("sentence_transformers") is not None
    needs = "" if is_installed else "; needs: pip install 'siftune[semantic]'"
    return f"  # semantic: {{}}  # duplicates in other words, too{needs}"


def starting_recipe(paths: Sequence[str] = ("data.jsonl",)) -> str:
    """A commented recipe with every field at its default; sections that are off by default are commented out.

    `paths` are those of the sources.
    """
    lines = ["# A siftune recipe. Only `sources` is required; the values below are the defaults.", ""]
    lines += [f"# {Recipe.model_fields['sources'].description}", "sources:"]
    lines += [f"  - {_yaml_line('path', path)}" for path in paths]
    lines += [f"    # {line}" for line in _field_comments(Source, skip={"path"})]
    for name, field in Recipe.model_fields.items():
        if name == "sources":
            continue
        lines += ["", f"# {field.description}"]
        section = _section_of(field.annotation)
        if section is None:
            lines.append(_yaml_line(name, field.default))
        elif field.default is None:
            defaults = section() if not _has_required_field(section) else None
            lines.append(f"# {name}:")
            lines += [f"#   {line}" for line in _section_lines(section, defaults)]
        else:
            lines.append(f"{name}:")
            lines += [f"  {line}" for line in _section_lines(section, field.default)]
    return "\n".join(lines) + "\n"


def _section_lines(section: type[Section], values: Section | None) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        value = getattr(values, name) if values is not None else field.default
        if inner is not None and isinstance(value, Section):
            yield f"{name}:  # {field.description}"
            yield from (f"  {line}" for line in _section_lines(inner, value))
        elif inner is not None and value is None:
            yield f"{name}: null  # {field.description}"
        else:
            yield f"{_yaml_line(name, value)}  # {field.description}"


def _field_comments(section: type[Section], *, skip: set[str]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if name not in skip:
            yield f"{_yaml_line(name, field.default)}  # {field.description}"


def _yaml_line(name: str, value: object) -> str:
    plain = (
        [item.model_dump() if isinstance(item, Section) else item for item in value]
        if isinstance(value, list)
        else value
    )
    return f"{name}: {yaml_value(plain)}"


def yaml_value(value: object) -> str:
    """`value` in YAML on one line, whatever texts it holds."""
    for style in (None, '"'):  # in double quotes a new line is an escape
        text = yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=10**9)
        text = text.removesuffix("...\n").strip()
        if len(text.splitlines()) == 1:
            break
    return text


def _has_required_field(section: type[Section]) -> bool:
    return any(field.is_required() for field in section.model_fields.values())


def _section_of(annotation: Any) -> type[Section] | None:
    candidates = getattr(annotation, "__args__", (annotation,))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate if annotation is candidate or type(None) in candidates else None
    return None
