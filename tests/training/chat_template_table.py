"""Which dialogues published chat templates can train, as a table.

`python -m tests.training.chat_template_table` writes docs/chat_templates.md; a test compares. The templates are those
of the hub's checkpoints: what TRL ships, and the files in chat_templates/ beside this module. Their vocabularies are
not at hand, so the tokenizer is the tiny one of these tests, with the control marks that the template writes as special
tokens.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.errors import UserError
from siftune.training import masks
from siftune.training.row_turns import SystemTurn
from tests.training.worlds import SMOLLM2, arm_frame, message, tiny_tokenizer

#: GLM-4 before 4.5, as its checkpoints write a dialogue: no end marks, and a line break that the prompt does not hold.
GLM4 = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
FILES = Path(__file__).with_name("chat_templates")
DOCUMENT = Path(__file__).parents[2] / "docs" / "chat_templates.md"
MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]+\]")
#: What a cell says when the trained spans are the answers with their ends.
ALL = "yes"

#: Words of a warning, and what the table says for it.
NOTES_IN_SHORT = {
    "no end mark": "no end mark",
    "`tools`": "tools not written",
    "`tool_calls`": "calls as text",
    "the thought": "thought not written",
    "not one token": "end not one token",
}
INTRODUCTION = """# Chat templates

What training makes of a dialogue with each of the chat templates that TRL {trl} ships (those of the hub's checkpoints),
and with others of common models: those in tests/training/chat_templates, SmolLM2's, and GLM-4's before 4.5.
`python -m tests.training.chat_template_table` writes this file, and a test compares it with what training does.

- **yes**: the trained tokens are each answer of the assistant with its end of turn, and nothing else; a thought and
  tool calls that the template writes are trained with the answer.
- A row that the template refuses, or of which it does not write every turn, is left out, counted, in the ledger with
  the reason in the table, and reported before training starts. `model: {{system: fold}}` in the recipe puts system
  turns into the user's turn, for templates that take none.
- A thought in an earlier turn that the template strips is not a fault. An empty thought that the template writes by
  itself (Qwen 3) is not trained.
- **thought not written**, **tools not written**, **calls as text**: the row is trained without them, or with the calls
  as JSON text, and training says so.
- **no end mark**: the template writes nothing behind the last answer, so the model does not learn where to stop;
  training says so.
- **no end in between**: the template ends earlier answers with a mark that does not stop generation (gpt-oss:
  `<|end|>`, but `<|return|>` behind the last answer); there the answer is trained without the mark.
- **stops at**: what ends an answer in chat, in the prompt suite and in exports, besides the model's own end tokens.
- Templates that write today's date get 26 July 2024, so that the same row has the same tokens tomorrow.
"""

Dialogue = tuple[list[dict[str, str]], dict[str, Any]]

ASK, ANSWER = message("user", "What colour has the apple?"), message("assistant", "The apple is red.")
ASK2, ANSWER2 = message("user", "And the bridge?"), message("assistant", "The bridge is blue.\nReally.")
CALL = {"type": "function", "id": "call12345", "function": {"name": "colour_of", "arguments": {"thing": "apple"}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "colour_of",
        "description": "The colour of a thing.",
        "parameters": {"type": "object", "properties": {"thing": {"type": "string", "description": "A thing."}}},
    },
}
CALL_TEXT = json.dumps([CALL], separators=(",", ":"), sort_keys=True)
THOUGHT = "Apples are red in this tale."


#: The kinds of dialogue, as ingest stores them.
KINDS: dict[str, Dialogue] = {
    "single turn": ([ASK, ANSWER], {}),
    "two turns": ([ASK, ANSWER, ASK2, ANSWER2], {}),
    "system": ([message("system", "Be brief."), ASK, ANSWER], {}),
    "tool call": (
        [ASK, message("assistant", CALL_TEXT), message("tool", "It is red."), ANSWER],
        {
            "tools": [TOOL],
            "_turns": {"1": {"tool_calls": [CALL]}, "2": {"tool_call_id": "call12345", "name": "colour_of"}},
        },
    ),
    "thought": ([ASK, ANSWER], {"_turns": {"1": {"reasoning_content": THOUGHT}}}),
}


def templates() -> dict[str, str]:
    """Name to source of all templates, by name."""
    own = {path.stem: path.read_text(encoding="utf-8") for path in FILES.glob("*.jinja")}
    return dict(sorted((trl_templates() | own | {"smollm2": SMOLLM2, "glm4": GLM4}).items()))


def trl_templates() -> dict[str, str]:
    """Name to source of the templates that TRL ships, without TRL's own variants for training."""
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))
    return {path.stem: path.read_text(encoding="utf-8") for path in files if not path.stem.endswith("_training")}


def tokenizer_for(source: str) -> Any:
    """The tiny tokenizer with a template and the control marks that it writes."""
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    tokenizer.chat_template = source
    marks = set(MARK.findall(source)) - {"<think>", "</think>"}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(marks | {"<s>", "</s>"})})
    return tokenizer


@dataclass(frozen=True)
class Outcome:
    """What is trained of one kind of dialogue."""

    #: The text of each run of trained tokens; none when the row is left out.
    spans: list[str]
    warnings: list[str]
    #: Why the row is left out.
    reason: str = ""


def outcome(tokenizer: Any, dialogue: Dialogue, *, system: SystemTurn = "keep") -> Outcome:
    """What training makes of a dialogue."""
    messages, meta = dialogue
    frame = arm_frame([messages]).with_columns(pl.lit(json.dumps(meta)).alias("meta"))
    try:
        rows = masks.tokenise(tokenizer, frame, max_length=1_000_000, system=system)
    except UserError as fault:
        return Outcome([], [], str(fault).split("toy:0: ")[1].split("; the row is not used")[0])
    tokens = zip(rows.ids[0].tolist(), rows.trained[0].tolist(), strict=True)
    runs = [(trained, [token for token, _ in run]) for trained, run in groupby(tokens, key=lambda token: token[1])]
    return Outcome([tokenizer.decode(ids) for trained, ids in runs if trained], list(rows.warnings))


def cell(kind: str, result: Outcome) -> str:
    """What the table says: `yes` when the trained spans are the answers (with thought and calls), each with its end."""
    if result.reason:
        return result.reason.removeprefix("the model's chat template ")
    expected = [turn["content"] for turn in KINDS[kind][0] if turn["role"] == "assistant"]
    if kind == "tool call":
        expected[0] = CALL["function"]["name"]
    said = []
    for warning in result.warnings:
        for words, note in NOTES_IN_SHORT.items():
            if words in warning:
                said.append(note)
    is_exact = len(result.spans) == len(expected)
    for position, (answer, span) in enumerate(zip(expected, result.spans, strict=False)):
        if kind == "tool call" and answer == expected[0]:
            is_exact &= answer in span and "apple" in span
        elif kind == "thought" and THOUGHT in span:
            is_exact &= MARK.sub("", span.split(THOUGHT)[1]).strip().endswith(answer)
        else:
            end = span.removeprefix(answer)
            is_exact &= span.startswith(answer) and not MARK.sub("", end).strip()
            if not end and "no end mark" not in said and position < len(expected) - 1:
                said.append("no end in between")
            is_exact &= bool(end) or bool({"no end mark", "no end in between"} & set(said))
    assert is_exact, (kind, result)
    return "; ".join([ALL, *said])


def document() -> str:
    """The whole of docs/chat_templates.md."""
    lines = [INTRODUCTION.format(trl=version("trl")), "| template | " + " | ".join(KINDS) + " | stops at |"]
    lines.append("|---" * (len(KINDS) + 2) + "|")
    for name, source in templates().items():
        tokenizer = tokenizer_for(source)
        cells = [cell(kind, outcome(tokenizer, dialogue)) for kind, dialogue in KINDS.items()]
        ends = ", ".join(f"`{tokenizer.decode([token])}`" for token in sorted(masks.end_tokens(tokenizer)))
        lines.append(
            "| " + " | ".join([name, *[text.replace("|", "\\|") for text in cells], ends.replace("|", "\\|")]) + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
