"""A conversation as a file: JSONL in training format, or Markdown to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from siftune.training.evaluation.votes import StoredTurn

Message = dict[str, str]


def history(
    turns: Sequence[StoredTurn], arm: str, *, system: str, continued: Mapping[str, str] | None = None
) -> list[Message]:
    """The prompts and answers that `arm` sees: its own, and another arm's where the user continued with that answer.

    Args:
        turns: the answers of a conversation, in order of turns.
        arm: the arm.
        system: the system prompt.
        continued: by round, the arm whose answer all arms continue with.
    """
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for turn in turns:
        if turn.arm == (continued or {}).get(turn.round, arm):
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.answer}]
    return messages


def as_jsonl(turns: Sequence[StoredTurn], continued: Mapping[str, str] | None = None) -> str:
    """One line for each arm: messages up to its last answer, as in training data, and who gave each of the answers.

    Args:
        turns: the answers of a conversation, in order of turns.
        continued: by round, the arm whose answer all arms continued with.
    """
    lines = []
    for arm in dict.fromkeys(turn.arm for turn in turns):
        last = [turn for turn in turns if turn.arm == arm][-1]
        before = [turn for turn in turns if turn.turn < last.turn]
        given = [turn for turn in before if turn.arm == (continued or {}).get(turn.round, arm)] + [last]
        messages = history(before, arm, system=str(last.facts.get("system", "")), continued=continued)
        messages += [{"role": "user", "content": last.prompt}, {"role": "assistant", "content": last.answer}]
        line = {
            "messages": messages,
            "arm": arm,
            "answered_by": [turn.arm for turn in given],
            "fingerprints": [turn.facts.get("fingerprint") for turn in given],
        }
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
