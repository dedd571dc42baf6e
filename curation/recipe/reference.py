"""The reference of all settings of a recipe, as Markdown, from the same fields as the starting recipe."""

from __future__ import annotations

from typing import Any

from siftune.curation.markdown import Raw, table
from siftune.curation.recipe.starting_recipe import json_schema, yaml_value

#: How a bound of the JSON Schema is said.
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minItems": "with at least",
}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def recipe_reference() -> str:
    """Every section of a recipe with every setting: what is accepted, the default, what it is for."""
    document = json_schema()
    sections = document.pop("$defs")
    titles = _titles(document, sections)
    introduction = (
        "Every setting, what is accepted, and its default. Only `sources` is required; an unknown key is an error. "
        "`siftune recipe reference` prints this page, `siftune recipe new FILE` writes a recipe for your data."
    )
    lines = ["# The recipe", "", introduction, "", *_settings(document, sections, titles)]
    for name, title in titles.items():
        section = sections[name]
        lines += [f"## {title}", "", section["description"], "", *_settings(section, sections, titles)]
    return "\n".join(lines).rstrip() + "\n"


def _titles(document: dict[str, Any], sections: dict[str, Any], *, prefix: str = "") -> dict[str, str]:
    """The heading of each section by the name of its class: where it stands in a recipe, such as `duplicates.near`."""
    titles: dict[str, str] = {}
    for setting, schema in document["properties"].items():
        inside = _sections_in(schema)
        for name in inside:
            path = f"{prefix}{setting}"
            titles.setdefault(name, path if len(inside) == 1 else f"{path} ({name})")
            for inner, title in _titles(sections[name], sections, prefix=f"{path}.").items():
                titles.setdefault(inner, title)
    return titles


def _sections_in(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for part in schema for name in _sections_in(part)]
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    return [name for key in ("anyOf", "oneOf", "items") for name in _sections_in(schema.get(key))]


def _settings(section: dict[str, Any], sections: dict[str, Any], titles: dict[str, str]) -> list[str]:
    """The table of a section's settings."""
    rows = []
    for name, schema in section["properties"].items():
        inside = _sections_in(schema)
        if name in section.get("required", []):
            default = "required"
        elif inside and isinstance(schema.get("default"), dict):
            default = "as below"
        else:
            default = Raw(f"`{yaml_value(schema.get('default'))}`")
        description = schema.get("description") or sections[inside[0]]["description"]
        cells = [f"`{name}`", _accepted(schema, titles), default, description.replace("|", "\\|")]
        rows.append([Raw(cell) for cell in cells])
    return table(["setting", "accepted", "default", "what it is"], rows)


def _accepted(schema: dict[str, Any], titles: dict[str, str]) -> str:
    """What a setting accepts, in words."""
    if "$ref" in schema:
        title = titles[schema["$ref"].rpartition("/")[2]]
        anchor = "".join(sign for sign in title.lower().replace(" ", "-") if sign.isalnum() or sign in "-_")
        return f"[{title}](#{anchor})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_accepted(choice, titles) for choice in schema[key]))
    bounds = [f"{words} {schema[bound]:g}" for bound, words in _BOUNDS.items() if bound in schema]
    if schema.get("type") == "array":
        return ", ".join([f"list of: {_accepted(schema['items'], titles)}", *bounds])
    if schema.get("type") == "object":
        return f"names, each with: {_accepted(schema['additionalProperties'], titles)}"
    return ", ".join([_TYPES[schema["type"]], *bounds])
