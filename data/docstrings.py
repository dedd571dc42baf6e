"""Docstrings taken apart: prose, parameters, returns, errors, examples, notes, in numpy, google and reST style."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

_TITLES = {
    "parameters": ("parameters", "args", "arguments", "keyword args", "keyword arguments", "other parameters"),
    "returns": ("returns", "return", "yields"),
    "raises": ("raises", "raise"),
    "example": ("examples", "example", "usage", "example usage"),
    "notes": ("notes", "note", "warning", "warnings"),
    "see_also": ("see also",),
    "other": ("attributes", "methods", "references", "shape", "variables", "inputs", "outputs", "tip", "tips", "warns"),
}
_SECTION_OF = {title: section for section, titles in _TITLES.items() for title in titles}
_GOOGLE_HEADER = re.compile(r"^([A-Z][A-Za-z ]{2,20}?)\s*:{1,2}$")
_ADMONITION = re.compile(r"^\.\. (note|warning|seealso|rubric)::\s*(\w[\w ]*)?$", re.IGNORECASE)
_FIELD = re.compile(r"^:(param|parameter|arg|raises|raise|returns|return|rtype|type)\s*([^:]*):\s*(.*)$")
_ITEM = re.compile(
    r"^(\*{0,2}`{0,2}[A-Za-z_][\w.]*`{0,2}(?:, ?\*{0,2}`{0,2}[A-Za-z_]\w*`{0,2})*)\s*(\(.*?\))?\s*:(?:\s+(.*))?$"
)
_CALL = re.compile(r"(?:[\w.]+\([^\n]*\)(?:\s*(?:->|→|=>)[^\n]*)?\n?)+")
_NUMPY_ITEM = re.compile(r"^(\*{0,2}[A-Za-z_]\w*(?:, ?(?:\*{0,2}[A-Za-z_]\w*|\.\.\.))*)\s*(?::\s*(.*))?$")

_ROLE = re.compile(r":(?:[a-z]+:)?[a-z]+:`([^`]+)`")
# transformers and datasets link as [`~Name`](url) and box remarks in <Tip> … </Tip>.
_HUB_MARKUP = re.compile(r"\[`([^`\]]+)`\](?:\([^)\s]*\))?|^</?Tip[^>]*>\n?", re.MULTILINE)
_TARGET = re.compile(r"\s*<[^<>`]+>$")
_VERSION = re.compile(r"^(\s*)\.\. (versionadded|versionchanged|deprecated)::\s*([\w.]*)", re.MULTILINE)
_VERSION_WORDS = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
}
_DIRECTIVE = re.compile(
    r"^\s*\.\. [\w:-]+\s*::.*\n?|^\s*\.\. (?:\[|_).*\n?|^\s*:(?:members|noindex|[a-z-]+):\s*$\n?", re.MULTILINE
)
_MATH = re.compile(r"^(\s*)\.\. math::[ \t]*", re.MULTILINE)
_OUTPUT_BLOCK = re.compile(r"^[ ]*\.\. output::.*\n(?:[ ]+\S.*(?:\n|\Z))*", re.MULTILINE)
_VERBATIM = re.compile(r"^(?:\s|>>>|\.\.\.|[-*+•|=~^#]|\d+[.)])")


@dataclass(frozen=True, kw_only=True)
class Docstring:
    """The parts of a docstring as plain text; a part that is not there is empty.

    `signature` is the call that C functions write above their prose; `parameters` are (name, type or empty,
    description); `example` is code; everything else is prose.
    """

    signature: str = ""
    summary: str = ""
    description: str = ""
    parameters: tuple[tuple[str, str, str], ...] = ()
    returns: str = ""
    raises: str = ""
    example: str = ""
    notes: str = ""
    see_also: str = ""


def parse(doc: str) -> Docstring:
    """Take apart a docstring whose common indentation is gone (`inspect.cleandoc`)."""
    sections: dict[str, list[str]] = {}
    for name, line in _lines_by_section(doc.split("\n")):
        sections.setdefault(name, []).append(line)
    lines, fields = _take_fields(sections.get("prose", []))
    prose, example = _split_example("\n".join(lines))
    signature, prose = _split_signature(prose)
    description = plain(prose)
    return Docstring(
        signature=signature,
        summary=description.split("\n\n")[0],
        description=description,
        parameters=_parameters(_body(sections, "parameters")) + _field_items(fields["param"]),
        returns=plain(_returns(_body(sections, "returns")) or "\n".join(text for _, text in fields["return"])),
        raises=_listing(_parameters(_body(sections, "raises")) + _field_items(fields["raise"])),
        example=code(_body(sections, "example")) or example,
        notes=plain(_body(sections, "notes")),
        see_also=_listing(_parameters(_body(sections, "see_also"), numpy_style=False)),
    )


def plain(text: str) -> str:
    """`text` without reST markup; hard-wrapped paragraphs are joined, lists and code keep their lines."""
    text = _VERSION.sub(lambda m: f"{m[1]}{_VERSION_WORDS[m[2]]} {m[3]}:", text)
    text = _DIRECTIVE.sub("", _MATH.sub(r"\1", text))
    text = _HUB_MARKUP.sub(lambda m: f"`{m[1].lstrip('~!.')}`" if m[1] else "", text)
    text = _ROLE.sub(lambda m: f"`{_TARGET.sub('', m[1]).lstrip('~!.')}`", text).replace("``", "`")
    text = re.sub(r":{2}$", ":", text, flags=re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", textwrap.dedent(text.expandtabs(4)).strip("\n"))
    return "\n\n".join(_reflow(paragraph) for paragraph in paragraphs if paragraph.strip()).strip("\n").rstrip()


def code(text: str) -> str:
    """The code of an examples section: dedented, without fences and directives, prose between it kept as it is."""
    lines = _OUTPUT_BLOCK.sub("", text).split("\n")
    kept = [line for line in lines if not line.lstrip().startswith(("```", ".. ", ">>> # xdoctest"))]
    return textwrap.dedent("\n".join(kept).expandtabs(4)).strip()


def _reflow(paragraph: str) -> str:
    lines = [line.rstrip() for line in paragraph.strip("\n").split("\n")]
    if any(_VERBATIM.match(line) for line in lines):
        return "\n".join(lines)
    return " ".join(lines)


def _lines_by_section(lines: list[str]) -> Iterator[tuple[str, str]]:
    section, skip = "prose", False
    for number, line in enumerate(lines):
        if skip:
            skip = False
            continue
        following = lines[number + 1] if number + 1 < len(lines) else ""
        underlined = bool(re.fullmatch(r"[-=~]{3,}\s*", following)) and bool(line.strip())
        header = _header(line, following if not underlined else "", underlined=underlined)
        if header:
            section, skip = header, underlined
        elif section != "prose" and not underlined and line and not line[0].isspace() and _ends(section, lines, number):
            section = "prose"
            yield section, line
        else:
            yield section, line


def _header(line: str, following: str, *, underlined: bool) -> str | None:
    if underlined:
        return _SECTION_OF.get(line.strip().lower().rstrip(":"), "other")
    admonition = _ADMONITION.match(line)
    if admonition:
        title = admonition[2] or admonition[1]
        return "see_also" if admonition[1].lower() == "seealso" else _SECTION_OF.get(title.strip().lower(), "notes")
    google = _GOOGLE_HEADER.match(line)
    indented = not following or following[0].isspace() or following.startswith(">>>")
    return _SECTION_OF.get(google[1].lower()) if google and indented else None


def _ends(section: str, lines: list[str], number: int) -> bool:
    """Whether an unindented line leaves a google section: in numpy sections everything is unindented, so only a line
    that follows a blank one and an indented body does."""
    start = number - 1
    while start >= 0 and (not lines[start].strip() or lines[start][0].isspace()):
        start -= 1
    opener = lines[start] if start >= 0 else ""
    return _header(opener, "", underlined=False) is not None and start < number - 1 and section != "prose"


def _body(sections: dict[str, list[str]], name: str) -> str:
    return textwrap.dedent("\n".join(sections.get(name, [])).expandtabs(4)).strip("\n")


def _split_example(prose: str) -> tuple[str, str]:
    """Prose and the doctest that ends it (the standard library has no header above it)."""
    doctest = re.search(r"^\s*>>> ", prose, re.MULTILINE)
    if doctest is None:
        return prose, ""
    return prose[: doctest.start()], code(prose[doctest.start() :].strip("\n"))


def _split_signature(prose: str) -> tuple[str, str]:
    """The call that C functions and ufuncs write as the first paragraph of their docstring, and the rest."""
    first, _, rest = prose.strip("\n").partition("\n\n")
    return (" ".join(first.split()), rest) if rest and _CALL.fullmatch(first.strip()) else ("", prose)


def _parameters(body: str, *, numpy_style: bool | None = None) -> tuple[tuple[str, str, str], ...]:
    """(name, type, description) of each item; items of numpy style have their type behind a colon, others in
    parentheses. What is indented under an item belongs to it."""
    items: list[tuple[str, str, list[str]]] = []
    if numpy_style is None:
        numpy_style = _is_numpy_style(body)
    for line in body.replace("\\*", "*").split("\n"):
        item = None if line[:1].isspace() else (_NUMPY_ITEM if numpy_style else _ITEM).match(line)
        if item and numpy_style:
            items.append((item[1].strip(), (item[2] or "").strip(), []))
        elif item:
            items.append((item[1].strip("`"), (item[2] or "")[1:-1].strip(), [item[3] or ""]))
        elif items:
            items[-1][2].append(line)
    return tuple((name, _flat(kind), _described(lines)) for name, kind, lines in items if "".join(lines).strip())


def _is_numpy_style(body: str) -> bool:
    lines = [line for line in body.split("\n") if line.strip()]
    typed = any((item := _ITEM.match(line)) and item[2] for line in lines)
    return not typed and any(line[0].isspace() for line in lines[1:2])


def _described(lines: list[str]) -> str:
    return plain("\n".join([lines[0].strip(), textwrap.dedent("\n".join(lines[1:]))]).strip("\n"))


def _flat(text: str) -> str:
    return " ".join(plain(text).split())


def _returns(body: str) -> str:
    """Returns sections begin with a line that is only a type or `name : type`: kept on one line with its text."""
    lines = body.split("\n")
    if len(lines) > 1 and lines[1][:1].isspace() and len(lines[0].split()) <= 8:
        return f"{lines[0].rstrip(' .:')}: {plain(textwrap.dedent(chr(10).join(lines[1:])))}"
    return body


def _take_fields(lines: list[str]) -> tuple[list[str], dict[str, list[list[str]]]]:
    """The prose without Sphinx fields (`:param x: …`), and the fields as [name, text]."""
    prose: list[str] = []
    fields: dict[str, list[list[str]]] = {"param": [], "raise": [], "return": []}
    last: list[str] | None = None
    for line in lines:
        field = _FIELD.match(line.strip())
        if field:
            last = [field[2].split()[-1] if field[2].split() else "", field[3]]
            role = {"par": "param", "arg": "param", "rai": "raise", "ret": "return"}.get(field[1][:3])
            if role:
                fields[role].append(last)
        elif last is not None and line[:1].isspace():
            last[1] += "\n" + line.strip()
        else:
            last = None if line.strip() else last
            prose.append(line)
    return prose, fields


def _field_items(fields: list[list[str]]) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, "", plain(text)) for name, text in fields if name and text.strip())


def _listing(items: tuple[tuple[str, str, str], ...]) -> str:
    return "\n".join(f"- `{name}`: {text}" for name, _, text in items)
