"""Questions about documented objects, answered by parts of their docstrings and never by the question itself.

Each `_ask_…` function is one shape of question. Wordings are picked by a hash of the object's name, so the same object
is always asked about in the same words.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from siftune.data.docstrings import Docstring, parse, plain
from siftune.data.python_objects import DocumentedObject

MAX_ANSWER_WORDS = 900  # longer docstrings are whole manuals, which nobody would give as an answer


@dataclass(frozen=True, kw_only=True)
class QuestionRow:
    """One row of the set; `object` is the dotted name asked about, `kind` the shape of the question."""

    instruction: str
    input: str
    output: str
    package: str
    object: str
    kind: str


def questions(item: DocumentedObject) -> list[QuestionRow]:
    """Every question that the docstring of `item` answers."""
    parts = parse(item.doc)
    triples = [(kind, triple) for kind, ask in _SHAPES.items() for triple in ask(item, parts)]
    return [
        QuestionRow(
            instruction=question, input=context, output=answer, package=item.package, object=item.path, kind=kind
        )
        for kind, (question, context, answer) in triples
        if _says_more(answer, question + context, kind) and len(answer.split()) <= MAX_ANSWER_WORDS
    ]


def topic_questions(name: str, text: str) -> list[QuestionRow]:
    """Questions about a help topic of the language, such as `yield`: the lead, the whole, and its grammar."""
    title, _, body = text.strip().partition("\n")
    body = re.sub(r"^\s*\*+\n", "", body)
    paragraphs = [part for part in plain(body).split("\n\n") if part.strip()]
    grammar = "\n\n".join(textwrap.dedent(part) for part in paragraphs if "::=" in part)
    prose = [part for part in paragraphs if "::=" not in part]
    subject = _pick(("{title}", "the help topic {title}", "{title} in Python"), name, "topic")
    subject = subject.format(title=title.replace('"', "`").strip())
    topics = [
        (
            "topic",
            f"{_pick(('Explain', 'Give a full explanation of', 'Tell me about'), name, 'whole')} {subject}.",
            prose,
        ),
        ("topic_brief", f"In short, what should a beginner know about {subject}?", prose[:2] if prose[3:] else []),
        ("grammar", f"Which grammar rules define {subject}?", [grammar]),
    ]
    return [
        QuestionRow(instruction=question, input="", output=answer, package="python", object=name, kind=kind)
        for kind, question, parts in topics
        if (answer := "\n\n".join(parts).strip()) and len(answer.split()) <= MAX_ANSWER_WORDS
    ]


#: Question, context (or empty) and answer.
Triples = Iterator[tuple[str, str, str]]


def _ask_does(item: DocumentedObject, parts: Docstring) -> Triples:
    context = _hash(item.path, "context") % 4
    typed = "\n".join(line for line in parts.example.split("\n") if line.startswith((">>>", "...")))
    if context == 0 and item.signature:
        wordings: tuple[str, ...] = (
            "Explain what this {kind} does.",
            "What is this {kind} of {package} for?",
            "Describe the following {kind}.",
        )
        yield _wording(item, "does", wordings), f"{item.path}{item.signature}", parts.description
    elif context == 1 and typed:
        wordings = (
            "What is the {kind} `{path}` for in code like this?",
            "I found the following lines. Explain what `{path}` does.",
        )
        yield _wording(item, "does", wordings), typed, parts.description
    else:
        yield _wording(item, "does", _PLAIN_WORDINGS), "", parts.description


_PLAIN_WORDINGS = (
    "What does `{path}` do?",
    "What is `{path}`?",
    "Explain `{path}`.",
    "What is `{path}` for?",
    "Describe the {kind} `{path}`.",
    "I came across `{path}` while reading code that uses {package}. What is this {kind} for?",
    "Can you tell me what the {kind} `{name}` of `{owner}` does?",
)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)\s+(?=[A-Z`])")


def _ask_brief(item: DocumentedObject, parts: Docstring) -> Triples:
    sentence = _SENTENCE_END.split(parts.summary, maxsplit=1)[0]
    if len(parts.description) > len(sentence) + 60:
        wordings = (
            "Say in one sentence what `{path}` does.",
            "What is `{path}`, in a single sentence?",
            "`{path}`: short summary, please.",
        )
        yield _wording(item, "brief", wordings), "", sentence


def _ask_parameters(item: DocumentedObject, parts: Docstring) -> Triples:
    if len(parts.parameters) >= 2:
        lines = [f"- `{name}`{f' ({kind})' if kind else ''}: {text}" for name, kind, text in parts.parameters]
        wordings = (
            "Which parameters does `{path}` take?",
            "List the parameters of `{path}` and what each of them means.",
            "I want to call `{path}`. What can I pass to it?",
            "Explain the arguments of the {kind} `{path}`.",
        )
        yield _wording(item, "parameters", wordings), "", "\n".join(lines)


def _ask_parameter(item: DocumentedObject, parts: Docstring) -> Triples:
    """One parameter of each object, two of those with many."""
    documented = [(name, text) for name, _, text in parts.parameters if len(text.split()) >= 5]
    start = _hash(item.path, "which")
    for step in range(min(len(documented), 2 if len(documented) > 4 else 1)):
        name, text = documented[(start + step * 3) % len(documented)]
        wordings = (
            "What is the parameter `{parameter}` of `{path}` for?",
            "What does `{parameter}` mean in a call of `{path}`?",
            "When I use `{path}`, what should I give as `{parameter}`?",
        )
        context = f"{item.path}{item.signature}" if item.signature and _hash(item.path + name, "shown") % 3 == 0 else ""
        yield _wording(item, "parameter", wordings).replace("{parameter}", name), context, text


def _ask_returns(item: DocumentedObject, parts: Docstring) -> Triples:
    wordings = (
        "What does `{path}` return?",
        "What do I get back from `{path}`?",
        "What is the result of calling `{path}`?",
    )
    yield _wording(item, "returns", wordings), "", parts.returns


def _ask_raises(item: DocumentedObject, parts: Docstring) -> Triples:
    wordings = (
        "Which errors does `{path}` raise?",
        "What can go wrong when I call `{path}`?",
        "Which exceptions should I expect from `{path}`, and when?",
    )
    yield _wording(item, "raises", wordings), "", parts.raises


def _ask_example(item: DocumentedObject, parts: Docstring) -> Triples:
    if not parts.example:
        return
    answer = f"```python\n{parts.example}\n```"
    if parts.description and _hash(item.path, "described") % 3 == 0:
        wordings: tuple[str, ...] = (
            "Write an example that uses the {kind} documented below.",
            "This is the documentation of a {kind} of {package}. Show how it is used.",
        )
        yield _wording(item, "example", wordings), f"{item.path}{item.signature}\n\n{parts.description}", answer
        return
    wordings = (
        "Show an example of `{path}`.",
        "How do I use `{path}`? Please show some code.",
        "Give me a short example that uses the {kind} `{path}` of {package}.",
        "Write a snippet that demonstrates `{path}`.",
    )
    yield _wording(item, "example", wordings), "", answer


def _ask_session(item: DocumentedObject, parts: Docstring) -> Triples:
    """What the first statements of a doctest print, up to the first output."""
    session = re.match(r"((?:(?:>>>|\.\.\.).*\n)+)((?!>>>|\.\.\.).+(?:\n(?!>>>).+)*)", parts.example)
    if session and _hash(item.path, "session") % 2 == 0 and session[2].count("\n") <= 30:
        wordings = (
            "What does Python print in this session?",
            "Predict the output of the following code.",
            "Here is an interactive session that uses `{path}`. What is the output?",
        )
        yield _wording(item, "session", wordings), session[1].strip(), session[2].rstrip()


def _ask_notes(item: DocumentedObject, parts: Docstring) -> Triples:
    wordings = (
        "What should I keep in mind when I use `{path}`?",
        "Are there any caveats or background notes on `{path}`?",
        "Tell me more about how `{path}` behaves.",
    )
    yield _wording(item, "notes", wordings), "", parts.notes


def _ask_related(item: DocumentedObject, parts: Docstring) -> Triples:
    wordings = ("What is related to `{path}`?", "`{path}` is not quite what I need. What else is there?")
    yield _wording(item, "related", wordings), "", parts.see_also


def _ask_signature(item: DocumentedObject, parts: Docstring) -> Triples:
    signature = f"{item.path.rpartition('.')[2]}{item.signature}" if item.signature else parts.signature
    if signature.count(",") >= 2 and _hash(item.path, "ask signature") % 4 == 0:
        wordings = ("What is the signature of `{path}`?", "How is `{path}` called? Give its signature with defaults.")
        yield _wording(item, "signature", wordings), "", f"```python\n{signature}\n```"


def _ask_find(item: DocumentedObject, parts: Docstring) -> Triples:
    """The other way round: the description is given, the name is the answer."""
    name = item.path.rpartition(".")[2]
    description = parts.summary if len(parts.summary.split()) >= 7 else ""
    if (
        description
        and "." in item.path
        and name.lower() not in description.lower()
        and _hash(item.path, "find") % 6 == 0
    ):
        wordings = (
            "Which {kind} of {package} fits this description?",
            "I am looking for a {kind} in {package}. Its documentation begins as below. What is it called?",
            "Name the {kind} that is described here.",
        )
        call = f" It is called as `{name}{item.signature}`." if item.signature else ""
        yield _wording(item, "find", wordings), description, f"That is `{item.path}`.{call}"


_SHAPES: dict[str, Callable[[DocumentedObject, Docstring], Triples]] = {
    "does": _ask_does,
    "brief": _ask_brief,
    "parameters": _ask_parameters,
    "parameter": _ask_parameter,
    "returns": _ask_returns,
    "raises": _ask_raises,
    "example": _ask_example,
    "session": _ask_session,
    "notes": _ask_notes,
    "related": _ask_related,
    "signature": _ask_signature,
    "find": _ask_find,
}
_CODE_KINDS = frozenset({"example", "session", "signature", "find"})


def _says_more(answer: str, question: str, kind: str) -> bool:
    """Whether an answer says more than the question: prose needs four words that the question does not hold."""
    if kind in _CODE_KINDS:
        return bool(answer.strip())
    question_words = set(re.findall(r"\w+", question.lower()))
    return len(set(re.findall(r"\w+", answer.lower())) - question_words) >= 4


def _wording(item: DocumentedObject, kind: str, wordings: tuple[str, ...]) -> str:
    owner, _, name = item.path.rpartition(".")
    wording = _pick(wordings, item.path, kind)
    if not owner and "{owner}" in wording:
        wording = wordings[0]
    package = "Python" if item.package == "python" else item.package
    fields = {"path": item.path, "kind": item.kind, "package": package, "owner": owner, "name": name}
    for field, value in fields.items():
        wording = wording.replace("{" + field + "}", value)
    return wording


def _pick(wordings: tuple[str, ...], name: str, kind: str) -> str:
    return wordings[_hash(name, kind) % len(wordings)]


def _hash(name: str, purpose: str) -> int:
    """The same number in every process, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}\0{name}".encode(), digest_size=8).digest(), "big")
