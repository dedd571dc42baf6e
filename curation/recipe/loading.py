"""Reading and checking a recipe: every error names its line, what was found and what is accepted."""

from __future__ import annotations

import codecs
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from siftune.curation.errors import UserError, did_you_mean
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import FormatName, Section, Source, Splits

AnySection = TypeVar("AnySection", bound=Section)

#: Levels and values of a recipe, far more than one needs.
_DEEPEST, _MOST_VALUES = 50, 100_000
#: What stands in place of pydantic's words for the shape of a value.
_SHAPES = {
    "list_type": "Must be a list: entries on lines of their own that begin with `- `",
    "dict_type": "Must be a section: keys with values, on lines of their own",
    "model_type": "Must be a section: keys with values, on lines of their own",
}
#: What a recipe calls the models that come from packages; never a path.
_MODEL_NAMES = ("auto", "smollm2")


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UserError: the file is missing, is not YAML, or holds a value that is not accepted; every error is named.
    """
    if not path.exists():
        raise UserError(f"There is no recipe at {path}. Write one with: siftune recipe new FILE --out {path.name}")
    return parse_recipe(_read(path, "recipe"), name=str(path))


def load_section(path: Path, section: type[AnySection], *, kind: str) -> AnySection:
    """Read and check a YAML file that holds one section and is no recipe; an empty file is the section's defaults.

    Args:
        path: The file.
        section: What it holds.
        kind: What such a file is called.

    Raises:
        UserError: as for recipes.
    """
    return _parse(_read(path, kind), section, name=str(path), kind=kind)


def _read(path: Path, kind: str) -> str:
    try:
        return recipe_text(path)
    except FileNotFoundError:
        raise UserError(f"There is no {kind} at {path}.") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(f"{path} cannot be read as a {kind}: {fault}") from None


def recipe_text(path: Path) -> str:
    """The text of a recipe: UTF-8, or UTF-16 with the mark at its beginning that editors of Windows write.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is in neither encoding.
    """
    data = path.read_bytes()
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def parse_recipe(text: str, *, name: str = "recipe") -> Recipe:
    """Check the YAML `text` of a recipe; `name` stands in error messages. Raises `UserError` like `load_recipe`."""
    return _parse(text, Recipe, name=name, kind="recipe")


def _parse(text: str, section: type[AnySection], *, name: str, kind: str) -> AnySection:
    try:
        _require_small(yaml.compose(text, yaml.SafeLoader), name)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as fault:  # a date of month 13 and a number of 5,000 digits are a ValueError
        raise UserError(f"{name} is not YAML: {_one_line(fault)}") from None
    except RecursionError:
        raise UserError(f"{name}: brackets are nested too deeply; a {kind} needs {_DEEPEST} levels at most.") from None
    if document is None and section is not Recipe:
        document = {}
    if not isinstance(document, dict):
        type_name = "nothing" if document is None else type(document).__name__
        needed = " with at least `sources:`" if section is Recipe else ""
        raise UserError(f"{name}: a {kind} is a mapping{needed}; found {type_name}.")
    try:
        try:
            return section.model_validate(document)
        except ValidationError as fault:
            if not _write_off(document, fault.errors()):
                raise
        return section.model_validate(document)
    except ValidationError as fault:
        lines = _line_numbers(text)
        faults = [_explain(error, lines, section, kind) for error in fault.errors()]
        raise UserError(f"{name}: " + "\n".join(faults)) from None


def _require_small(root: yaml.Node | None, name: str) -> None:
    """Raise `UserError` for a document whose aliases (`*x`) lead back to themselves, or make it large or deep: forty
    lines of YAML can stand for a thousand billion values.
    """
    sizes: dict[yaml.Node, int] = {}

    def size(node: yaml.Node, above: tuple[yaml.Node, ...]) -> int:
        if node in above:
            raise UserError(f"{name}: an alias in line {node.start_mark.line + 1} leads back to itself.")
        if len(above) > _DEEPEST:
            raise RecursionError
        if node not in sizes:
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            sizes[node] = 1 + sum(size(one, (*above, node)) for one in inner)
        if sizes[node] > _MOST_VALUES:
            raise UserError(
                f"{name}: its aliases (`*x`) stand for more than {_MOST_VALUES:,} values. Write it without."
            )
        return sizes[node]

    if root is not None:
        size(root, ())


def with_model_paths(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with the folders and files of its models in full; relative ones start from `base`, like sources.

    A section that the recipe leaves to its default stays unset.
    """
    model = recipe.model.model_copy(update={"name": _model_path(recipe.model.name, base)})
    encoder = recipe.encoder and _model_path(recipe.encoder, base)
    in_full = {"model": model, "encoder": encoder}
    return recipe.model_copy(update={name: value for name, value in in_full.items() if value != getattr(recipe, name)})


def with_installed_encoder(recipe: Recipe) -> Recipe:
    """The recipe without an encoder where it says `auto`, the extra is not installed, and it can do without.

    The semantic stage and topics cannot; splits, balance and paraphrases of benchmark items compare by words alone.
    """
    if recipe.encoder != "auto" or importlib.util.find_spec("sentence_transformers") is not None:
        return recipe
    is_used = _can_use_encoder(recipe) or recipe.splits is not None
    return recipe.model_copy(update={"encoder": None}) if is_used and not _needs_encoder(recipe) else recipe


def _needs_encoder(recipe: Recipe) -> bool:
    return recipe.duplicates.semantic is not None or recipe.topics is not None or recipe.selects_by_embedding


def _can_use_encoder(recipe: Recipe) -> bool:
    """Whether something besides the splits compares by meaning where there is an encoder, and else by words."""
    searched = recipe.contamination is not None and "layered" in recipe.contamination.rules
    return searched or recipe.balance is not None


def with_splits_of_data(recipe: Recipe) -> Recipe:
    """The recipe for data that came with splits, where it does not say what becomes of them: they are kept apart.

    Rows that leak are found by words, unless the recipe needs an encoder for something else: embeddings of all prompts
    take far longer than everything that a short recipe asks for.
    """
    update: dict[str, Any] = {"splits": Splits()}
    if not _needs_encoder(recipe) and not _can_use_encoder(recipe):
        update["encoder"] = None
    return recipe.model_copy(update=update)


def _model_path(name: str, base: Path) -> str:
    """The full path of a model when `name` is a path, and else the name: a short one, or one of the hub."""
    if name in _MODEL_NAMES:
        return name
    path = base.absolute() / Path(name).expanduser()
    is_path = name.startswith((".", "/", "~")) or name.endswith(".gguf") or path.exists()
    return os.path.normpath(path) if is_path else name


def _write_off(document: Any, errors: Sequence[ErrorDetails]) -> bool:
    """Put the word `off` where YAML read it as false; whether there was any such value."""
    values = [error["loc"] for error in errors if error["input"] is False and "'off'" in error["msg"]]
    for *outer, last in values:
        section = document
        for part in outer:
            section = section[part]
        section[last] = "off"
    return bool(values)


def source_from_command_line(path: str, format_name: str) -> Source:
    """A source of one path, as a command line names it. Raises `UserError` when the format is not known."""
    try:
        return Source.model_validate({"path": path, "format": format_name})
    except ValidationError:
        accepted = get_args(FormatName)
        hint = did_you_mean(format_name, accepted)
        raise UserError(f"There is no format {format_name!r}.{hint} Accepted: {', '.join(accepted)}.") from None


def _explain(error: ErrorDetails, lines: dict[tuple[str | int, ...], int], section: type[Section], kind: str) -> str:
    """One fault as one line: where, what was found, what is accepted, what was perhaps meant."""
    # pydantic names its validators and the members of unions too, which are no keys of the recipe
    location = tuple(part for part in error["loc"] if not str(part).startswith(("function-", "member-")))
    where = ".".join(str(part) for part in location) or kind
    line = next((lines[location[:end]] for end in range(len(location), 0, -1) if location[:end] in lines), None)
    where = f"{where} (line {line})" if line else where
    if error["type"] == "extra_forbidden":
        accepted = _accepted_keys(section, error["loc"][:-1])
        hint = did_you_mean(str(location[-1]), accepted)
        return f"{where}: unknown key.{hint} Accepted here: {', '.join(accepted)}."
    if error["type"] == "missing":
        return f"{where}: is missing."
    message = _SHAPES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    value = "" if error["type"] == "value_error" else f" Found: {_short(error['input'])}."
    hint = ""
    if isinstance(error["input"], bool) and error["type"] in ("string_type", "literal_error"):
        example = "'off'" if "'off'" in error["msg"] else repr("yes" if error["input"] else "no")
        words = "yes, on or true" if error["input"] else "no, off or false"
        hint = f" YAML reads the bare words {words} as a truth value: write the word in quotes, for example {example}."
    if error["input"] is False and _takes_null(section, location):
        hint = f"{hint} To leave it out, write null."
    if error["type"] == "literal_error" and not hint:
        accepted = [
            word.strip("' ") for word in error.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(",")
        ]
        hint = did_you_mean(str(error["input"]), accepted)
    return f"{where}: {message}.{value}{hint}"


def _accepted_keys(section: type[Section], location: tuple[str | int, ...]) -> list[str]:
    """The keys that a section at a place may have: one of a union is known by its word, such as `by: coverage`."""
    candidates = [section]
    for part in location:
        if isinstance(part, int):
            continue
        if part.startswith("member-"):
            word = (part.removeprefix("member-"),)
            named = [
                one for one in candidates if any(get_args(f.annotation) == word for f in one.model_fields.values())
            ]
            candidates = named or candidates
            continue
        fields = [one.model_fields[part] for one in candidates if part in one.model_fields]
        candidates = [inner for field in fields for inner in _sections(field.annotation)] or candidates
    return list(dict.fromkeys(field.alias or name for one in candidates for name, field in one.model_fields.items()))


def _takes_null(section: type[Section], location: Sequence[str | int]) -> bool:
    """Whether `section` accepts null at a place."""
    annotation: Any = None
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        if field is None:
            return False
        annotation = field.annotation
        section = next(iter(_sections(annotation)), section)
    return type(None) in getattr(annotation, "__args__", ())


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections in a type annotation, however deep they stand in lists and unions."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in getattr(annotation, "__args__", ()) for section in _sections(inner)]


def _line_numbers(text: str) -> dict[tuple[str | int, ...], int]:
    """The line number (from 1) of each key and list entry of a YAML document, by its path."""
    lines: dict[tuple[str | int, ...], int] = {}

    def walk(node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, str(key.value))
                lines[inner] = key.start_mark.line + 1
                walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*path, index)] = value.start_mark.line + 1
                walk(value, (*path, index))

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return lines


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).replace('in "<unicode string>", ', "at ").split())
