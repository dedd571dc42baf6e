"""A conversation as a file: JSONL in training format, or Markdown to read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from siftune.training.evaluation.votes import StoredTurn

Message = dict[str, str]


def history(turns: Sequence[StoredTurn], arm: str, *, system: str) -> list[Message]:
    """The prompts and answers of `arm`: every arm has its own history."""
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        if turn.arm == arm:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.answer}]
    return messages


def as_jsonl(turns: Sequence[StoredTurn]) -> str:
    """One line for each arm: messages, as in training data, with the arm and the fingerprints of its weights."""
    lines = []
    for arm in dict.fromkeys(turn.arm for turn in turns):
        own = [turn for turn in turns if turn.arm == arm]
        messages = history(own, arm, system=str(own[-1].facts.get("system", "")))
        line = {"messages": messages, "arm": arm, "fingerprints": [turn.facts.get("fingerprint") for turn in own]}
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def as_markdown(turns: Sequence[StoredTurn]) -> str:
    """Prompts and answers in order; foreign text is in indented blocks, which Markdown shows unchanged."""
    lines = ["# Conversation", ""]
    for number in dict.fromkeys(turn.turn for turn in turns):
        answers = [turn for turn in turns if turn.turn == number]
        lines += [f"## Prompt {number + 1}", "", *_indented(answers[0].prompt), ""]
        for turn in answers:
            times = f"{turn.facts['tokens']} tokens, {turn.facts['seconds']:.2f} s"
            lines += [f"### {turn.arm} ({times}, weights {turn.facts['fingerprint']})", "", *_indented(turn.answer), ""]
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.split("\n")]
