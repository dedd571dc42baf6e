"""Chat: two or three arms answer the same prompt side by side; blind if one wants to judge them fairly."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import urlsplit

import streamlit as st

from siftune.app.web import markup, state, training_queries, transcript
from siftune.app.web.answering import Answering, order_of
from siftune.app.web.components import nearest_rows
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.votes import Choice, Turn, choice_of, read_turns, replace_turns, vote
from siftune.training.inference.engine import Message, Request, Sampling
from siftune.training.inference.factory import trained_arms

TICK = 0.1
#: Characters of every side that blind mode shows a tick: 180 a second, faster than one reads.
PACE = 18
_SIDES = ("Left", "Right")


def chat() -> None:
    """Draw the page."""
    run = state.open_run()
    arms = list(trained_arms(run.path))
    if arms == [BASE]:
        markup.draw(markup.problem(training_queries.what_next(run)))
        return
    conversation = _conversation()
    running = state.running().get(conversation)
    if running is not None and running.ended and (not running.blind or running.shown):
        _finish(running)
        running = None
    chosen, settings = _controls(run, arms)
    turns = _turns(run, conversation)
    if running is not None:
        turns = [turn for turn in turns if turn.turn < running.turn]
    _past(run, turns, settings, busy=running is not None)
    _fault()
    prompt = st.chat_input("Ask all arms", disabled=running is not None or not chosen)
    if running is not None:
        _live(running)
    elif prompt:
        number = max((turn.turn for turn in turns), default=-1) + 1
        _start(run, conversation, number, prompt, turns, chosen, settings)


def _conversation() -> str:
    """The id of this tab's conversation; it stands in the address, so that a reload continues it."""
    found = st.session_state.get("conversation") or st.query_params.get("chat")
    if not (isinstance(found, str) and found.isalnum()):
        found = uuid.uuid4().hex
    st.session_state["conversation"] = st.query_params["chat"] = found
    return found


def _turns(run: RunFolder, conversation: str) -> list[Turn]:
    """The answers of a conversation, of each turn in the order in which its arms were chosen."""
    return sorted(read_turns(run, conversation), key=lambda turn: (turn.turn, turn.facts.get("place", 0)))


def _controls(run: RunFolder, arms: list[str]) -> tuple[list[str], dict[str, Any]]:
    who, blind, knobs, more = st.columns([5, 2, 2, 2], vertical_alignment="bottom")
    with knobs.popover("Settings", width="stretch"):
        settings = _settings(run)
    arms = [*arms, *settings["served"]]
    start = [arm for arm in ("raw", "curated") if arm in arms] or arms[:2]
    chosen = who.multiselect(
        "Arms",
        arms,
        default=start,
        max_selections=3,
        format_func=markup.line,
        key="chat_arms",
        placeholder="two or three",
    )
    settings["blind"] = blind.toggle(
        "Blind", key="chat_blind", help="Sides shuffled, names and times hidden until you vote"
    )
    with more.popover("More", width="stretch"):
        _more(run)
    if settings["blind"] and len(chosen) != 2:
        markup.draw(markup.note("Blind mode compares exactly two arms."))
        return [], settings
    return chosen, settings


def _settings(run: RunFolder) -> dict[str, Any]:
    system = st.text_area("System prompt", key="chat_system", placeholder="none", height=90)
    temperature = st.slider("Temperature (0 is greedy)", 0.0, 2.0, 0.0, 0.1, key="chat_temperature")
    top_p = st.slider("Top-p", 0.05, 1.0, 1.0, 0.05, key="chat_top_p")
    most = st.number_input("Max tokens", 1, 4096, run.recipe.compare.max_new_tokens, key="chat_tokens")
    seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="chat_seed")
    url = st.text_input("Another server (OpenAI-compatible)", key="chat_url", placeholder="http://127.0.0.1:8000/v1")
    models = st.text_input("Its models", key="chat_model", placeholder="one name, or several with commas")
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=int(most), seed=int(seed))
    return {"system": system, "sampling": sampling, "served": served_arms(url, models)}


def served_arms(url: str, models: str) -> dict[str, tuple[str, str]]:
    """Arms behind a server: name to (url, model). The name holds the server: a model may be called like an arm."""
    host = urlsplit(url.strip()).netloc or url.strip()
    names = [name.strip() for name in models.split(",") if name.strip()] if host else []
    return {f"{name} at {host}": (url.strip(), name) for name in names}


def _more(run: RunFolder) -> None:
    conversation = st.session_state["conversation"]
    if st.button("New conversation", width="stretch"):
        st.session_state["conversation"] = st.query_params["chat"] = uuid.uuid4().hex
        st.rerun()
    turns = _turns(run, conversation)
    hidden = any(_hidden(run, turn) for turn in turns)
    if hidden:
        markup.draw(markup.note("Vote first: an export names the arms."))
    off = hidden or not turns
    st.download_button(
        "Export JSONL",
        transcript.as_jsonl(turns),
        f"chat-{conversation[:8]}.jsonl",
        disabled=off,
        width="stretch",
        on_click="ignore",
    )
    st.download_button(
        "Export Markdown",
        transcript.as_markdown(turns),
        f"chat-{conversation[:8]}.md",
        disabled=off,
        width="stretch",
        on_click="ignore",
    )


def _start(
    run: RunFolder,
    conversation: str,
    number: int,
    prompt: str,
    turns: list[Turn],
    chosen: list[str],
    settings: dict[str, Any],
) -> None:
    """Send the prompt to every chosen arm, and draw the page again with the answers coming.

    Answers to this turn that are there already stay on record, out of the conversation.
    """
    answering = Answering(run, conversation, number, prompt, system=settings["system"], blind=settings["blind"])
    local: list[Request] = []
    served: list[Request] = []
    for arm in chosen:
        said = [*transcript.history(turns, arm, system=settings["system"]), {"role": "user", "content": prompt}]
        messages = tuple(Message(each["role"], each["content"]) for each in said)
        (served if arm in settings["served"] else local).append(Request(arm, messages, settings["sampling"]))
    try:
        engines = [(state.engine(run), local)] if local else []
        there = {request.arm: settings["served"][request.arm] for request in served}
        engines += [(state.endpoint(tuple(sorted(there.items()))), served)] if served else []
    except UserError as fault:
        markup.draw(markup.problem(str(fault)))
        return
    replace_turns(run, conversation, since=number)
    for engine, requests in engines:
        answering.ask(engine, requests)
    answering.sides = {arm: answering.sides[arm] for arm in chosen}
    state.running()[conversation] = answering
    st.rerun()


def _live(answering: Answering) -> None:
    """Repaint the answers, at most ten times a second, until they are there."""
    markup.draw(markup.bubble("user", answering.prompt))
    arms = answering.order()
    places = [column.empty() for column in st.columns(len(arms), gap="medium")]
    st.button("Stop", on_click=answering.stop, key=f"stop {answering.round}", type="primary")
    while True:
        answering.drain()
        until = answering.pace(PACE) if answering.blind else None
        for position, (arm, place) in enumerate(zip(arms, places, strict=True)):
            name = _SIDES[position] if answering.blind else arm
            text = answering.sides[arm].text[:until]
            markup.draw(markup.bubble("assistant", f"{text} ▍", label=name, tone="" if answering.blind else arm), place)
        if answering.ended and (not answering.blind or answering.shown):
            break
        time.sleep(TICK)
    _finish(answering)
    st.rerun()


def _finish(answering: Answering) -> None:
    """Every answer is stored by now; what went wrong is told once."""
    answering.drain()
    state.running().pop(answering.conversation, None)
    faults = [
        side.fault or "The answer broke off; the server's log says why."
        for side in answering.sides.values()
        if side.stats is None
    ]
    if faults:
        st.session_state["chat_fault"] = "\n".join(dict.fromkeys(faults))


def _fault() -> None:
    fault = st.session_state.pop("chat_fault", None)
    if fault:
        markup.draw(markup.problem(fault))


def _past(run: RunFolder, turns: list[Turn], settings: dict[str, Any], *, busy: bool) -> None:
    if not turns and not busy:
        markup.draw(
            markup.note(
                "One prompt, several models: the same question goes to every arm, and each keeps a history of its own."
            )
        )
    numbers = list(dict.fromkeys(turn.turn for turn in turns))
    if turns and not busy and (run.path / "rows.parquet").is_file():
        state.prepare_nearness(run)
    for number in numbers:
        here = [turn for turn in turns if turn.turn == number]
        markup.draw(markup.bubble("user", here[0].prompt))
        _answers(run, here)
        if number == numbers[-1] and not busy:
            _again(run, here, settings)


def _hidden(run: RunFolder, turn: Turn) -> bool:
    """Whether the arm of an answer is still a secret."""
    return bool(turn.facts.get("blind")) and choice_of(run, turn.round) is None


def _answers(run: RunFolder, turns: list[Turn]) -> None:
    first = turns[0]
    by_arm = {turn.arm: turn for turn in turns}
    blind = bool(first.facts.get("blind"))
    arms = order_of(first.round, list(by_arm), blind=blind)
    hidden = _hidden(run, first)
    for position, (arm, column) in enumerate(zip(arms, st.columns(len(arms), gap="medium"), strict=True)):
        turn = by_arm[arm]
        name = _SIDES[position] if hidden else f"{_SIDES[position]}: {arm}" if blind else arm
        with column:
            markup.draw(markup.bubble("assistant", turn.answer, label=name, tone="" if hidden else arm))
            if not hidden:
                markup.draw(markup.facts(_costs(turn.facts)))
                nearest_rows.button(run, turn)
    if hidden and len(arms) == 2:
        _vote(run, first.round, arms)
    elif blind and (choice := choice_of(run, first.round)):
        markup.draw(markup.note(f"Your vote: {choice}."))


def _costs(facts: dict[str, Any]) -> list[tuple[str, object]]:
    first = facts["first_token_seconds"]
    return [
        ("first token", "—" if first is None else f"{first:.2f} s"),
        ("in all", f"{facts['seconds']:.2f} s"),
        ("tokens", facts["tokens"]),
        ("tokens/s", f"{facts['tokens_per_second']:.1f}"),
        ("weights", facts["fingerprint"]),
        *([("stopped", "by you")] if facts["stopped"] == "cancelled" else []),
    ]


def _vote(run: RunFolder, round_: str, arms: list[str]) -> None:
    names = {"left": "Left is better", "right": "Right is better", "tie": "Tie", "both bad": "Both bad"}
    for column, choice in zip(st.columns(4), get_args(Choice), strict=True):
        column.button(
            names[choice],
            key=f"vote {choice} {round_}",
            width="stretch",
            on_click=vote,
            args=(run,),
            kwargs={"round_": round_, "left": arms[0], "right": arms[1], "choice": choice},
        )


def _again(run: RunFolder, turns: list[Turn], settings: dict[str, Any]) -> None:
    """Ask the last prompt again, as it was or edited; what was said before stays on record."""
    last = turns[0]
    again, edit, _ = st.columns([2, 2, 4])
    told = "The same prompt with the present settings; with a temperature, another seed"
    if again.button("Regenerate", width="stretch", help=told):
        _ask_again(run, last, last.prompt, [turn.arm for turn in turns], settings)
    with edit.popover("Edit prompt", width="stretch"):
        text = st.text_area("Prompt", last.prompt, key=f"edit {last.round}", label_visibility="collapsed", height=120)
        if st.button("Ask this instead", key=f"ask {last.round}", disabled=not text.strip()):
            _ask_again(run, last, text, [turn.arm for turn in turns], settings)


def _ask_again(run: RunFolder, last: Turn, prompt: str, arms: list[str], settings: dict[str, Any]) -> None:
    known = {*trained_arms(run.path), *settings["served"]}
    if gone := [arm for arm in arms if arm not in known]:
        markup.draw(markup.problem(f"{gone[0]} is not there any more. Name its server under Settings, or ask anew."))
        return
    wanted: Sampling = settings["sampling"]
    before_ = last.facts["sampling"]
    same = wanted == Sampling(**{**before_, "seed": wanted.seed}) and before_["seed"] >= wanted.seed
    seed = before_["seed"] + 1 if same else wanted.seed
    settings = {**settings, "blind": bool(last.facts.get("blind")), "sampling": replace(wanted, seed=seed)}
    before = [turn for turn in _turns(run, last.conversation) if turn.turn < last.turn]
    _start(run, last.conversation, last.turn, prompt, before, arms, settings)
