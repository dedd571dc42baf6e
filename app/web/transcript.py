"""A conversation as files: JSONL in training format, and Markdown to read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from siftune.training.evaluation.votes import Turn

Message = dict[str, str]


def history(turns: Sequence[Turn], arm: str, *, system: str) -> list[Message]:
    """What `arm` has been told and has said: every arm has a history of its own."""
    said: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        if turn.arm == arm:
            said += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.answer}]
    return said


def as_jsonl(turns: Sequence[Turn]) -> str:
    """One line an arm: messages, as in training data, with the arm and fingerprints of the weights that answered."""
    lines = []
    for arm in dict.fromkeys(turn.arm for turn in turns):
        own = [turn for turn in turns if turn.arm == arm]
        messages = history(own, arm, system=str(own[-1].facts.get("system", "")))
        line = {"messages": messages, "arm": arm, "fingerprints": [turn.facts.get("fingerprint") for turn in own]}
        lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def as_markdown(turns: Sequence[Turn]) -> str:
    """Prompts and answers in order; all foreign text stands in indented blocks, where Markdown shows it as it is."""
    lines = ["# Conversation", ""]
    for number in dict.fromkeys(turn.turn for turn in turns):
        here = [turn for turn in turns if turn.turn == number]
        lines += [f"## Prompt {number + 1}", "", *_indented(here[0].prompt), ""]
        for turn in here:
            times = f"{turn.facts['tokens']} tokens, {turn.facts['seconds']:.2f} s"
            lines += [f"### {turn.arm} ({times}, weights {turn.facts['fingerprint']})", "", *_indented(turn.answer), ""]
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.split("\n")]
