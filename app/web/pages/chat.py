"""Chat: two or three arms answer the same prompt side by side, in blind mode without their names until a vote."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import urlsplit

import streamlit as st

from siftune.app.web import markup, state, training_queries, transcript
from siftune.app.web.chat_round import ChatRound, arm_order
from siftune.app.web.components import nearest_rows
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.votes import StoredTurn, VoteChoice, read_choice, read_turns, replace_turns, store_vote
from siftune.training.inference.engine import Message, Request, Sampling
from siftune.training.inference.factory import trained_arms

#: Seconds between repaints.
TICK = 0.1
#: Characters of every answer that blind mode reveals in one repaint: 180 a second, faster than one reads.
REVEAL_STEP = 18
_SIDES = ("Left", "Right")


def chat() -> None:
    """Draw the page."""
    run = state.open_run()
    arms = list(trained_arms(run.path))
    if arms == [BASE]:
        markup.draw(markup.notice(training_queries.next_command(run)))
        return
    conversation = _conversation()
    chat_round = state.chat_rounds().get(conversation)
    if chat_round is not None and chat_round.finished and (not chat_round.blind or chat_round.fully_revealed):
        _finish(chat_round)
        chat_round = None
    chosen, settings = _controls(run, arms)
    turns = _turns(run, conversation)
    if chat_round is not None:
        turns = [turn for turn in turns if turn.turn < chat_round.turn]
    _past(run, turns, settings, busy=chat_round is not None)
    _fault()
    prompt = st.chat_input("Ask all arms", disabled=chat_round is not None or not chosen)
    if chat_round is not None:
        _live(chat_round)
    elif prompt:
        number = max((turn.turn for turn in turns), default=-1) + 1
        _start(run, conversation, number, prompt, turns, chosen, settings)


def _conversation() -> str:
    """The id of this tab's conversation; it is part of the address, so that a reload continues it."""
    conversation = st.session_state.get("conversation") or st.query_params.get("chat")
    if not (isinstance(conversation, str) and conversation.isalnum()):
        conversation = uuid.uuid4().hex
    st.session_state["conversation"] = st.query_params["chat"] = conversation
    return conversation


def _turns(run: RunFolder, conversation: str) -> list[StoredTurn]:
    """The answers of a conversation, of each turn in the order in which its arms were chosen."""
    return sorted(read_turns(run, conversation), key=lambda turn: (turn.turn, turn.facts.get("position", 0)))


def _controls(run: RunFolder, arms: list[str]) -> tuple[list[str], dict[str, Any]]:
    arm_box, blind, popover, more = st.columns([5, 2, 2, 2], vertical_alignment="bottom")
    with popover.popover("Settings", width="stretch"):
        settings = _settings(run)
    arms = [*arms, *settings["served"]]
    start = [arm for arm in ("raw", "curated") if arm in arms] or arms[:2]
    chosen = arm_box.multiselect(
        "Arms",
        arms,
        default=start,
        max_selections=3,
        format_func=markup.line,
        key="chat_arms",
        placeholder="two or three",
    )
    settings["blind"] = blind.toggle(
        "Blind", key="chat_blind", help="Shows two answers in random order and hides names and times until you vote"
    )
    with more.popover("More", width="stretch"):
        _more(run)
    if settings["blind"] and len(chosen) != 2:
        markup.draw(markup.note("Blind mode compares exactly two arms."))
        return [], settings
    return chosen, settings


def _settings(run: RunFolder) -> dict[str, Any]:
    system = st.text_area("System prompt", key="chat_system", placeholder="none", height=90)
    temperature = st.slider("Temperature (0: greedy decoding)", 0.0, 2.0, 0.0, 0.1, key="chat_temperature")
    top_p = st.slider("Top-p", 0.05, 1.0, 1.0, 0.05, key="chat_top_p")
    max_tokens = st.number_input("Max tokens", 1, 4096, run.recipe.compare.max_new_tokens, key="chat_tokens")
    seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="chat_seed")
    url = st.text_input("OpenAI-compatible server", key="chat_url", placeholder="http://127.0.0.1:8000/v1")
    models = st.text_input("Models of this server", key="chat_model", placeholder="names, separated by commas")
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=int(max_tokens), seed=int(seed))
    return {"system": system, "sampling": sampling, "served": served_arms(url, models)}


def served_arms(url: str, models: str) -> dict[str, tuple[str, str]]:
    """Models of a server as arms: name to (url, model). The name includes the server, as a model may share an arm's."""
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
        markup.draw(markup.note("Vote first: the export names the arms."))
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
    turns: list[StoredTurn],
    chosen: list[str],
    settings: dict[str, Any],
) -> None:
    """Send the prompt to every chosen arm and rerun the page, which then streams the answers.

    Earlier answers to this turn stay in the database but leave the conversation.

    Args:
        run: the run folder.
        conversation: the id of the conversation.
        number: the index of the turn, from 0.
        prompt: the user's text.
        turns: the answers of the turns before, of all arms.
        chosen: the arms that answer, from left to right.
        settings: what `_settings` returns, and `blind`.
    """
    chat_round = ChatRound(run, conversation, number, prompt, system=settings["system"], blind=settings["blind"])
    local: list[Request] = []
    served: list[Request] = []
    for arm in chosen:
        history = [*transcript.history(turns, arm, system=settings["system"]), {"role": "user", "content": prompt}]
        messages = tuple(Message(message["role"], message["content"]) for message in history)
        (served if arm in settings["served"] else local).append(Request(arm, messages, settings["sampling"]))
    try:
        engines = [(state.engine(run), local)] if local else []
        models = {request.arm: settings["served"][request.arm] for request in served}
        engines += [(state.endpoint(tuple(sorted(models.items()))), served)] if served else []
    except UserError as fault:
        markup.draw(markup.notice(str(fault)))
        return
    replace_turns(run, conversation, since=number)
    for engine, requests in engines:
        chat_round.submit(engine, requests)
    chat_round.answers = {arm: chat_round.answers[arm] for arm in chosen}
    state.chat_rounds()[conversation] = chat_round
    st.rerun()


def _live(chat_round: ChatRound) -> None:
    """Repaint the answers, at most ten times a second, until all are finished."""
    markup.draw(markup.bubble("user", chat_round.prompt))
    arms = chat_round.order()
    placeholders = [column.empty() for column in st.columns(len(arms), gap="medium")]
    st.button("Stop", on_click=chat_round.stop, key=f"stop {chat_round.round}", type="primary")
    while True:
        chat_round.drain()
        length = chat_round.reveal(REVEAL_STEP) if chat_round.blind else None
        for position, (arm, placeholder) in enumerate(zip(arms, placeholders, strict=True)):
            label, tone = (_SIDES[position], "") if chat_round.blind else (arm, arm)
            text = chat_round.answers[arm].text[:length]
            markup.draw(markup.bubble("assistant", f"{text} ▍", label=label, tone=tone), placeholder)
        if chat_round.finished and (not chat_round.blind or chat_round.fully_revealed):
            break
        time.sleep(TICK)
    _finish(chat_round)
    st.rerun()


def _finish(chat_round: ChatRound) -> None:
    """Close the round: its answers are stored by now; faults are shown once."""
    chat_round.drain()
    state.chat_rounds().pop(chat_round.conversation, None)
    faults = [
        answer.fault or "The answer was interrupted. The log of the app's server gives the cause."
        for answer in chat_round.answers.values()
        if answer.stats is None
    ]
    if faults:
        st.session_state["chat_fault"] = "\n".join(dict.fromkeys(faults))


def _fault() -> None:
    fault = st.session_state.pop("chat_fault", None)
    if fault:
        markup.draw(markup.notice(fault))


def _past(run: RunFolder, turns: list[StoredTurn], settings: dict[str, Any], *, busy: bool) -> None:
    if not turns and not busy:
        markup.draw(
            markup.note("Every prompt goes to all chosen arms, and each arm keeps its own conversation history.")
        )
    numbers = list(dict.fromkeys(turn.turn for turn in turns))
    if turns and not busy and run.rows_path.is_file():
        state.prepare_row_embeddings(run)
    for number in numbers:
        answers = [turn for turn in turns if turn.turn == number]
        markup.draw(markup.bubble("user", answers[0].prompt))
        _answers(run, answers)
        if number == numbers[-1] and not busy:
            _retry(run, answers, settings)


def _hidden(run: RunFolder, turn: StoredTurn) -> bool:
    """Whether the arm of an answer is hidden because nobody has voted on its round."""
    return bool(turn.facts.get("blind")) and read_choice(run, turn.round) is None


def _answers(run: RunFolder, turns: list[StoredTurn]) -> None:
    first = turns[0]
    by_arm = {turn.arm: turn for turn in turns}
    blind = bool(first.facts.get("blind"))
    arms = arm_order(first.round, list(by_arm), blind=blind)
    hidden = _hidden(run, first)
    for position, (arm, column) in enumerate(zip(arms, st.columns(len(arms), gap="medium"), strict=True)):
        turn = by_arm[arm]
        name = _SIDES[position] if hidden else f"{_SIDES[position]}: {arm}" if blind else arm
        with column:
            markup.draw(markup.bubble("assistant", turn.answer, label=name, tone="" if hidden else arm))
            if not hidden:
                markup.draw(markup.facts(_timings(turn.facts)))
                nearest_rows.nearest_rows_button(run, turn)
    if hidden and len(arms) == 2:
        _vote(run, first.round, arms)
    elif blind and (choice := read_choice(run, first.round)):
        markup.draw(markup.note(f"Your vote: {choice}."))


def _timings(facts: dict[str, Any]) -> list[tuple[str, object]]:
    first = facts["first_token_seconds"]
    return [
        ("first token", "—" if first is None else f"{first:.2f} s"),
        ("total", f"{facts['seconds']:.2f} s"),
        ("tokens", facts["tokens"]),
        ("tokens/s", f"{facts['tokens_per_second']:.1f}"),
        ("weights", facts["fingerprint"]),
        *([("stopped", "by you")] if facts["stopped"] == "cancelled" else []),
    ]


def _vote(run: RunFolder, round_: str, arms: list[str]) -> None:
    names = {"left": "Left is better", "right": "Right is better", "tie": "Tie", "both bad": "Both bad"}
    for column, choice in zip(st.columns(4), get_args(VoteChoice), strict=True):
        column.button(
            names[choice],
            key=f"vote {choice} {round_}",
            width="stretch",
            on_click=store_vote,
            args=(run,),
            kwargs={"round_": round_, "left": arms[0], "right": arms[1], "choice": choice},
        )


def _retry(run: RunFolder, turns: list[StoredTurn], settings: dict[str, Any]) -> None:
    """Send the last prompt again, unchanged or edited; the earlier answers stay in the database."""
    last = turns[0]
    again, edit, _ = st.columns([2, 2, 4])
    explanation = "Answers the same prompt with the present settings; above temperature 0, with the next seed"
    if again.button("Regenerate", width="stretch", help=explanation):
        _resend(run, last, last.prompt, [turn.arm for turn in turns], settings)
    with edit.popover("Edit prompt", width="stretch"):
        text = st.text_area("Prompt", last.prompt, key=f"edit {last.round}", label_visibility="collapsed", height=120)
        if st.button("Send edited prompt", key=f"ask {last.round}", disabled=not text.strip()):
            _resend(run, last, text, [turn.arm for turn in turns], settings)


def _resend(run: RunFolder, last: StoredTurn, prompt: str, arms: list[str], settings: dict[str, Any]) -> None:
    available = {*trained_arms(run.path), *settings["served"]}
    if missing := [arm for arm in arms if arm not in available]:
        markup.draw(
            markup.notice(f"{missing[0]} is not available. Enter its server under Settings, or send a new prompt.")
        )
        return
    # The same settings as before mean: sample once more, with the next seed.
    sampling: Sampling = settings["sampling"]
    previous = last.facts["sampling"]
    same = sampling == Sampling(**{**previous, "seed": sampling.seed}) and previous["seed"] >= sampling.seed
    seed = previous["seed"] + 1 if same else sampling.seed
    settings = {**settings, "blind": bool(last.facts.get("blind")), "sampling": replace(sampling, seed=seed)}
    earlier = [turn for turn in _turns(run, last.conversation) if turn.turn < last.turn]
    _start(run, last.conversation, last.turn, prompt, earlier, arms, settings)
