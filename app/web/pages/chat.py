"""Chat: up to four arms answer the same prompt side by side, in blind mode without their names until a vote."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import urlsplit

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from siftune.app.web import markup, state, training_queries, transcript
from siftune.app.web.chat_round import ChatRound, arm_order
from siftune.app.web.components import nearest_rows
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import word_differences
from siftune.training.arm_names import BASE
from siftune.training.evaluation.votes import (
    StoredTurn,
    VoteChoice,
    continue_with,
    read_choice,
    read_continued,
    read_turns,
    replace_turns,
    store_vote,
)
from siftune.training.inference.engine import Message, Request, Sampling
from siftune.training.inference.factory import trained_arms

#: Seconds between repaints.
TICK = 0.1
#: Characters of every answer that blind mode reveals in one repaint: 180 a second, faster than one reads.
REVEAL_STEP = 18
_SIDES = ("Left", "Right")
MOST_ARMS = 4
#: Characters up to which an answer is rendered while it grows: reading Markdown again ten times a second takes time.
RENDERED_LIVE = 8_000
PURPOSE = "Ask several arms the same thing, compare their answers, and vote without knowing whose they are."


def chat() -> None:
    """Draw the page."""
    run = state.open_run()
    arms = list(trained_arms(run.path))
    markup.draw(markup.purpose(PURPOSE))
    if arms == [BASE]:
        markup.draw(markup.notice(markup.with_code(training_queries.next_command(run))))
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
        _live(chat_round, plain=settings["plain"])
    elif prompt:
        number = max((turn.turn for turn in turns), default=-1) + 1
        _start(run, conversation, number, prompt, turns, chosen, settings)


def _conversation() -> str:
    """The id of this tab's conversation; it is part of the address, so that a reload or a link continues it."""
    linked = next(iter((state.arrived("Chat") or {}).get("chat", [])), None)
    if linked is not None and not (linked.isascii() and linked.isalnum() and len(linked) <= 64):
        markup.draw(markup.notice("The address names no conversation; this is a new one."))
        linked = uuid.uuid4().hex
    conversation = linked or st.session_state.get("conversation") or uuid.uuid4().hex
    st.session_state["conversation"] = conversation
    state.show_address("Chat", {"chat": [conversation]})
    return str(conversation)


def _turns(run: RunFolder, conversation: str) -> list[StoredTurn]:
    """The answers of a conversation, of each turn in the order in which its arms were chosen."""
    return sorted(read_turns(run, conversation), key=lambda turn: (turn.turn, turn.facts.get("position", 0)))


def _controls(run: RunFolder, arms: list[str]) -> tuple[list[str], dict[str, Any]]:
    arm_box = st.container()
    with st.container(horizontal=True, vertical_alignment="center", key="chat_controls"):
        blind = st.toggle(
            "Blind",
            key="chat_blind",
            help="Shows two answers in random order and hides names and times until you vote",
        )
        plain = st.toggle("Plain text", key="chat_plain", help="Shows answers as they are, not as Markdown")
        differences = st.toggle(
            "Differences", key="chat_differences", help="Marks the words in which answers differ from the first one"
        )
        with st.popover("Settings"):
            settings = _settings(run)
        more = st.popover("More")
    arms = [*arms, *settings["served"]]
    start = [arm for arm in ("raw", "curated") if arm in arms] or arms[:2]
    chosen = arm_box.multiselect(
        "Arms",
        arms,
        default=start,
        max_selections=MOST_ARMS,
        format_func=markup.line,
        key="chat_arms",
        placeholder="two to four",
    )
    settings |= {"blind": blind, "plain": plain, "differences": differences}
    with more:
        _more(run)
    if blind and len(chosen) != 2:
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
        st.session_state["conversation"] = uuid.uuid4().hex
        state.show_address("Chat", {"chat": [st.session_state["conversation"]]})
        st.rerun()
    turns = _turns(run, conversation)
    continued = read_continued(run, conversation)
    hidden = any(_hidden(run, turn) for turn in turns)
    if hidden:
        markup.draw(markup.note("Vote first: the export names the arms."))
    off = hidden or not turns
    st.download_button(
        "Export JSONL",
        transcript.as_jsonl(turns, continued),
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
        settings: what `_settings` returns, and the switches of `_controls`.
    """
    chat_round = ChatRound(run, conversation, number, prompt, system=settings["system"], blind=settings["blind"])
    local: list[Request] = []
    served: list[Request] = []
    continued = read_continued(run, conversation)
    for arm in chosen:
        history = transcript.history(turns, arm, system=settings["system"], continued=continued)
        history.append({"role": "user", "content": prompt})
        messages = tuple(Message(message["role"], message["content"]) for message in history)
        (served if arm in settings["served"] else local).append(Request(arm, messages, settings["sampling"]))
    try:
        engines = [(state.engine(run), local)] if local else []
        for engine, requests in engines:
            asked = [request.arm for request in requests]
            if (sentence := training_queries.equal_arms_sentence(run, engine, asked)) is not None:
                markup.draw(markup.notice(sentence))
                return
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


def _live(chat_round: ChatRound, *, plain: bool) -> None:
    """Repaint the answers, at most ten times a second, until all are finished."""
    markup.draw(markup.bubble("user", chat_round.prompt))
    arms = chat_round.order()
    placeholders = [column.empty() for column in _columns(chat_round.round, len(arms))]
    st.button("Stop", on_click=chat_round.stop, key=f"stop {chat_round.round}", type="primary")
    while True:
        chat_round.drain()
        length = chat_round.reveal(REVEAL_STEP) if chat_round.blind else None
        for position, (arm, placeholder) in enumerate(zip(arms, placeholders, strict=True)):
            label, tone = (_SIDES[position], "") if chat_round.blind else (arm, arm)
            text = chat_round.answers[arm].text[:length]
            as_text = plain or len(text) > RENDERED_LIVE
            body = None if as_text else markup.rendered(f"{text} ▍")
            markup.draw(markup.bubble("assistant", f"{text} ▍", label=label, tone=tone, body=body), placeholder)
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
            markup.note(
                "Every prompt goes to all chosen arms, and each arm keeps its own conversation history, until you "
                "continue with the answer of one."
            )
        )
    numbers = list(dict.fromkeys(turn.turn for turn in turns))
    continued = read_continued(run, turns[0].conversation) if turns else {}
    if turns and not busy and run.rows_path.is_file():
        state.prepare_row_embeddings(run)
    for number in numbers:
        answers = [turn for turn in turns if turn.turn == number]
        markup.draw(markup.bubble("user", answers[0].prompt))
        _answers(run, answers, settings, continued.get(answers[0].round))
        if number == numbers[-1] and not busy:
            _retry(run, answers, settings)


def _hidden(run: RunFolder, turn: StoredTurn) -> bool:
    """Whether the arm of an answer is hidden because nobody has voted on its round."""
    return bool(turn.facts.get("blind")) and read_choice(run, turn.round) is None


def _columns(round_: str, count: int) -> list[DeltaGenerator]:
    """Columns for answers: side by side, four as two by two; on a narrow screen the style sheet stacks them."""
    in_row = 2 if count == MOST_ARMS else count
    with st.container(key=f"answers {round_}"):
        return [column for _ in range(count // in_row) for column in st.columns(in_row, gap="medium")]


def _answers(run: RunFolder, turns: list[StoredTurn], settings: dict[str, Any], continued: str | None) -> None:
    """The answers of a round.

    Args:
        run: the run folder.
        turns: the answers.
        settings: what `_controls` returns.
        continued: the arm whose answer all arms continue with, if the user chose one.
    """
    first = turns[0]
    by_arm = {turn.arm: turn for turn in turns}
    blind = bool(first.facts.get("blind"))
    arms = arm_order(first.round, list(by_arm), blind=blind)
    hidden = _hidden(run, first)
    bodies = _bodies([by_arm[arm].answer for arm in arms], settings)
    for position, (arm, column) in enumerate(zip(arms, _columns(first.round, len(arms)), strict=True)):
        turn = by_arm[arm]
        name = _SIDES[position] if hidden else f"{_SIDES[position]}: {arm}" if blind else arm
        with column:
            tone = "" if hidden else arm
            markup.draw(markup.bubble("assistant", turn.answer, label=name, tone=tone, body=bodies[position]))
            if not hidden:
                markup.draw(markup.facts(_timings(turn.facts)))
                with st.container(horizontal=True):
                    nearest_rows.nearest_rows_button(run, turn)
                    if len(arms) > 1:
                        _continue_button(run, turn, continued)
    if hidden and len(arms) == 2:
        _vote(run, first.round, arms)
    elif blind and (choice := read_choice(run, first.round)):
        markup.draw(markup.note(f"Your vote: {choice}."))
    if continued is not None and not hidden:
        markup.draw(markup.note(f"All arms continue with the answer of {continued}."))


def _bodies(answers: list[str], settings: dict[str, Any]) -> list[str | None]:
    """The answers as HTML; None: as plain text. Every answer is compared with the first, and that with the second."""
    if settings["differences"] and len(answers) > 1:
        pairs = [word_differences(answers[0], other) for other in answers[1:]]
        return [markup.marked(pairs[0][0]), *(markup.marked(other) for _, other in pairs)]
    return [None if settings["plain"] else markup.rendered(answer) for answer in answers]


def _continue_button(run: RunFolder, turn: StoredTurn, continued: str | None) -> None:
    """A button by which every arm sees this answer as its own from now on; pressed again, each sees its own again."""
    chosen = continued == turn.arm
    st.button(
        "Continue with own answers" if chosen else "Continue with this answer",
        key=f"continue {turn.round} {turn.arm}",
        type="tertiary",
        on_click=continue_with,
        args=(run, turn.round, None if chosen else turn.arm),
    )


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
    names = {
        "left": ("Left is better", "Left"),
        "right": ("Right is better", "Right"),
        "tie": ("Tie", "Up"),
        "both bad": ("Both bad", "Down"),
    }
    for column, choice in zip(st.columns(4), get_args(VoteChoice), strict=True):
        label, shortcut = names[choice]
        column.button(
            label,
            key=f"vote {choice} {round_}",
            width="stretch",
            shortcut=shortcut,
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
