"""The quiz of the embedded default: questions that a program can check, about objects that no row asks about.

    python -m siftune.data.quiz_items ROWS.jsonl OUT.jsonl

`python_quiz` runs this module in a process of its own.

Every question has its choices, so that it can be scored in cloze form, and a right one that is a short text or a
sentence of a docstring. It is made from an object that `rows` did not draw. What inherited and copied docstrings would
give away is left out as well: the name of the object is the last name of no object in ROWS, and no eight consecutive
words of what the question takes from its docstring stand in ROWS.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from siftune.data import python_objects
from siftune.data.docstrings import Docstring, parse
from siftune.data.rows import WEIGHTS

QUESTIONS = 300
#: Wrong choices of a question.
_WRONG = 3
#: Questions about members of one module or class, and of one kind in all.
_MOST_OF_OWNER = 4
_MOST_OF_KIND = 90
_GRAM = 8
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z`])")
_RAISED = re.compile(r"^- `(\w+(?:Error|Exception|Warning|Interrupt|Iteration))`: (.+)$", re.MULTILINE)
#: Defaults that stand beside a right one.
_DEFAULTS = ("None", "True", "False", "0", "1", "-1", "10", "''")
#: Errors that stand beside a right one.
_ERRORS = ("ValueError", "TypeError", "KeyError", "RuntimeError", "IndexError", "OSError", "AttributeError")


@dataclass(frozen=True, kw_only=True)
class QuizRow:
    """One question; `answer` is the letter of the right choice, `owner` what holds the object: the cluster."""

    question: str
    choices: list[str]
    answer: str
    kind: str
    owner: str
    object: str
    package: str


@dataclass(frozen=True)
class Subject:
    """An object that may be asked about: its docstring taken apart, and the objects beside it of the same kind."""

    item: python_objects.PythonObject
    parts: Docstring
    siblings: tuple[python_objects.PythonObject, ...]

    @property
    def owner(self) -> str:
        """The module or class that holds it."""
        return self.item.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Its last name."""
        return _last_name(self.item.path)


class SeenRows:
    """What the rows of the training data ask about and say."""

    def __init__(self, rows: Sequence[dict[str, str]]) -> None:
        self.objects = {row["object"] for row in rows}
        self.names = {_last_name(path) for path in self.objects}
        self.grams = {
            gram for row in rows for field in ("instruction", "input", "output") for gram in grams(row[field])
        }

    def says(self, text: str) -> bool:
        """Whether eight consecutive words of `text` stand in a row; a shorter text is one run of words."""
        return not self.grams.isdisjoint(grams(text))


def grams(text: str) -> Iterator[int]:
    """A number for every eight consecutive words of a text."""
    words = [word.lower() for word in _WORD.findall(text)]
    for start in range(len(words) - _GRAM + 1):
        yield int.from_bytes(hashlib.blake2b(" ".join(words[start : start + _GRAM]).encode(), digest_size=8).digest())


def quiz(rows: Sequence[dict[str, str]], packages: Sequence[str]) -> list[QuizRow]:
    """At most QUESTIONS questions over these packages, in the order of a hash of the objects' names.

    Args:
        rows: the rows of the training data.
        packages: `python` and names of installed packages.
    """
    seen = SeenRows(rows)
    total = sum(WEIGHTS[name] for name in packages)
    chosen: list[QuizRow] = []
    kinds: Counter[str] = Counter()
    for package in packages:
        quota = max(1, round(QUESTIONS * WEIGHTS[package] / total))
        owners: Counter[str] = Counter()
        count = 0
        for subject in subjects(package, seen):
            if count == quota:
                break
            if owners[subject.owner] == _MOST_OF_OWNER:
                continue
            row = _ask(subject, seen, kinds)
            if row is not None:
                chosen.append(row)
                kinds[row.kind] += 1
                owners[row.owner] += 1
                count += 1
    return sorted(chosen, key=lambda row: row.object)


def subjects(package: str, seen: SeenRows) -> Iterator[Subject]:
    """The objects of a package that may be asked about, in the order of a hash of their names."""
    objects = python_objects.walk(package)
    beside: dict[tuple[str, str], list[python_objects.PythonObject]] = defaultdict(list)
    for item in objects:
        beside[item.path.rpartition(".")[0], item.kind].append(item)
    for item in sorted(objects, key=lambda item: _hash(item.path)):
        owner, _, name = item.path.rpartition(".")
        if owner and item.kind != "module" and item.path not in seen.objects and name not in seen.names:
            siblings = [other for other in beside[owner, item.kind] if other.path != item.path]
            siblings.sort(key=lambda other: _hash(item.path + other.path))
            yield Subject(item, parse(item.doc), tuple(siblings))


def _ask(subject: Subject, seen: SeenRows, kinds: Counter[str]) -> QuizRow | None:
    """One question about an object, of the first kind in the object's own order that it allows."""
    for kind in sorted(_SHAPES, key=lambda kind: _hash(subject.item.path + kind)):
        asked = _SHAPES[kind](subject, seen) if kinds[kind] < _MOST_OF_KIND else None
        if asked is None:
            continue
        question, right, wrong = asked
        choices = list(dict.fromkeys([right, *wrong]))[: _WRONG + 1]
        if len(choices) == _WRONG + 1:
            choices.sort(key=lambda choice: _hash(subject.item.path + choice))
            return QuizRow(
                question=question,
                choices=choices,
                answer="ABCD"[choices.index(right)],
                kind=kind,
                owner=subject.owner,
                object=subject.item.path,
                package=subject.item.package,
            )
    return None


#: Question, right choice and wrong ones; None where the object does not allow the question.
Asked = tuple[str, str, list[str]] | None


def _ask_name(subject: Subject, seen: SeenRows) -> Asked:
    """Which member of a module or class does what a docstring says."""
    sentence = _sentence(subject.parts.summary)
    parts = [part.lower() for part in re.split(r"_|(?<=[a-z])(?=[A-Z])", subject.name)]
    given_away = any(part in sentence.lower() for part in parts if len(part) > 2)
    if len(_WORD.findall(sentence)) < _GRAM or given_away or seen.says(sentence):
        return None
    names = [_last_name(other.path) for other in subject.siblings]
    question = f"Which {subject.item.kind} of `{subject.owner}` is described here? {sentence}"
    return question, subject.name, names


def _ask_summary(subject: Subject, seen: SeenRows) -> Asked:
    """What an object does, among the sentences of the objects beside it."""
    sentence = _sentence(subject.parts.summary)
    if not _GRAM <= len(_WORD.findall(sentence)) <= 40 or seen.says(sentence):
        return None
    unseen = [other for other in subject.siblings if other.path not in seen.objects]
    others = [_sentence(parse(other.doc).summary) for other in unseen[: 4 * _WRONG]]
    wrong = [other for other in others if _GRAM <= len(_WORD.findall(other)) <= 40 and not seen.says(other)]
    return f"What does `{subject.item.path}` do?", sentence, wrong


def _ask_default(subject: Subject, _: SeenRows) -> Asked:
    """The default of a parameter: a constant other than None, which is the most common one."""
    try:
        parameters = inspect.signature(subject.item.value).parameters.values()  # type: ignore[arg-type]
    except (ValueError, TypeError, NameError, AttributeError, RecursionError):
        return None
    constants = [
        (parameter.name, repr(parameter.default))
        for parameter in parameters
        if isinstance(parameter.default, (bool, int, float, str)) and not parameter.name.startswith("_")
    ]
    fitting = [(name, default) for name, default in constants if _is_constant(default)]
    if not fitting:
        return None
    name, default = min(fitting, key=lambda pair: _hash(subject.item.path + pair[0]))
    others = sorted({*_DEFAULTS, *(other for _, other in fitting)} - {default}, key=lambda o: _hash(name + o))
    if default in ("True", "False"):  # the other one is what it could be
        others = [str(default != "True"), *(other for other in others if other not in ("True", "False"))]
    return f"What is the default value of the parameter `{name}` of `{subject.item.path}`?", default, others


def _is_constant(text: str) -> bool:
    """Whether a text is a short constant that reads the same on every machine."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return len(text) <= 20 and text.isascii()


def _ask_error(subject: Subject, seen: SeenRows) -> Asked:
    """The error that is raised under a condition."""
    for error, condition in _RAISED.findall(subject.parts.raises):
        condition = _sentence(condition)
        if len(_WORD.findall(condition)) >= 4 and error not in condition and not seen.says(condition):
            others = [other for other in sorted(_ERRORS, key=lambda o: _hash(subject.item.path + o)) if other != error]
            return f"Which error does `{subject.item.path}` raise in this case? {condition}", error, others
    return None


def _ask_parameter(subject: Subject, seen: SeenRows) -> Asked:
    """The parameter that a sentence is about, among the other ones of the same object."""
    names = [name for name, _, _ in subject.parts.parameters if name.isidentifier()]
    for name, _, text in subject.parts.parameters:
        sentence = _sentence(text)
        is_long = len(_WORD.findall(sentence)) >= _GRAM
        if name in names and is_long and name.lower() not in sentence.lower() and not seen.says(sentence):
            others = sorted((other for other in names if other != name), key=lambda o: _hash(subject.item.path + o))
            return f"Which parameter of `{subject.item.path}` is described here? {sentence}", name, others
    return None


_SHAPES: dict[str, Callable[[Subject, SeenRows], Asked]] = {
    "name": _ask_name,
    "summary": _ask_summary,
    "default": _ask_default,
    "error": _ask_error,
    "parameter": _ask_parameter,
}


def _sentence(text: str) -> str:
    return " ".join(_SENTENCE_END.split(text.strip(), maxsplit=1)[0].split())


def _last_name(path: str) -> str:
    return path.rpartition(".")[2]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(f"quiz\0{text}".encode(), digest_size=8).digest()


def write(rows: Path, out: Path) -> None:
    """Write the quiz beside `rows` to `out` as JSON lines."""
    lines = [json.loads(line) for line in rows.read_bytes().split(b"\n")[:-1]]
    with out.open("w", encoding="utf-8", newline="\n") as file:
        for row in quiz(lines, python_objects.installed()):
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
