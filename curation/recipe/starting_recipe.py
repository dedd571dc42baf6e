"""A commented recipe to start from, and the JSON Schema of a recipe: both are generated from the sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Section, Source


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def starting_recipe() -> str:
    """A commented recipe with every field at its default; sections that are off by default are commented out."""
    lines = ["# A siftune recipe. Only `sources` is required; the values below are the defaults.", ""]
    lines += [f"# {Recipe.model_fields['sources'].description}", "sources:", "  - path: data.jsonl"]
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
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=1000).strip()
    return f"{name}: {text.removesuffix('...').strip()}"


def _has_required_field(section: type[Section]) -> bool:
    return any(field.is_required() for field in section.model_fields.values())


def _section_of(annotation: Any) -> type[Section] | None:
    candidates = getattr(annotation, "__args__", (annotation,))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate if annotation is candidate or type(None) in candidates else None
    return None
