"""Prompts: the answers of every arm to the prompt suite, with seconds and tokens."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import markup, state, training_queries
from siftune.app.web.components import layout
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.prompt_answers import read_answers
from siftune.training.evaluation.prompt_suite import answer_suite
from siftune.training.evaluation.prompt_tables import averages
from siftune.training.inference.factory import trained_arms

PURPOSE = "The same prompts answered by every arm, with seconds and tokens: what the arms are like to use."


def prompts() -> None:
    """Draw the page."""
    run = state.open_run()
    markup.draw(markup.purpose(PURPOSE))
    answers = read_answers(run)
    if answers.is_empty():
        trained = list(trained_arms(run.path)) != [BASE]
        command = f"The prompt suite has not been answered yet. To answer it:\n\n    siftune prompts {run.path}"
        markup.draw(markup.notice(command if trained else markup.with_code(training_queries.next_command(run))))
        return
    _averages(answers)
    _downloads(run)
    _table(answers)
    _answers(answers)
    _add(run)


def _averages(answers: pl.DataFrame) -> None:
    st.subheader("Averages")
    rows = [
        (
            markup.Markup(markup.tag(average["arm"], average["arm"])),
            average["answers"],
            f"{average['seconds']:.2f}",
            f"{average['tokens']:.0f}",
            f"{average['tokens_per_second']:.1f}",
            "—" if average["first_token_seconds"] is None else f"{average['first_token_seconds']:.2f}",
            f"{average['checks_passed']} of {average['checks']}",
        )
        for average in averages(answers).to_dicts()
    ]
    head = ["arm", "answers", "seconds", "tokens", "tokens/s", "first token, s", "checks passed"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4, 5, 6)))


def _downloads(run: RunFolder) -> None:
    markdown, table, _ = st.columns([2, 2, 5])
    for column, path, label in (
        (markdown, run.prompts_markdown, "Download Markdown"),
        (table, run.prompts_csv, "Download CSV"),
    ):
        if path.is_file():
            column.download_button(label, path.read_bytes(), path.name, width="stretch", on_click="ignore")


def _table(answers: pl.DataFrame) -> None:
    """Prompts by arms: the beginning of each answer, its seconds and tokens."""
    st.subheader("Answers by prompt and arm")
    arms = answers["arm"].unique(maintain_order=True).to_list()
    rows = []
    for (name,), part in answers.group_by("prompt", maintain_order=True):
        by_arm = {answer["arm"]: answer for answer in part.to_dicts()}
        rows.append((name, *(_cell(by_arm[arm]) if arm in by_arm else "—" for arm in arms)))
    markup.draw(markup.table(["prompt", *arms], rows))


def _cell(answer: dict[str, Any]) -> markup.Markup:
    timing = f"{answer['seconds']:.1f} s, {answer['tokens']} tokens, {answer['tokens_per_second']:.1f}/s"
    return markup.cell_with_note(markup.line(answer["answer"], 90).strip() or "(empty)", timing)


def _answers(answers: pl.DataFrame) -> None:
    names = answers["prompt"].unique(maintain_order=True).to_list()
    walk = layout.Walk("prompt", len(names), len(names))
    name = st.selectbox("Full answers to", names, index=walk.at, format_func=markup.line, key=f"prompt {walk.at}")
    walk.draw(names.index(name), "prompt")
    part = answers.filter(pl.col("prompt") == name).to_dicts()
    markup.draw(markup.bubble("user", part[0]["text"]))
    for start in range(0, len(part), 2):
        for column, answer in zip(st.columns(2, gap="medium"), part[start : start + 2], strict=False):
            with column:
                body = markup.rendered(answer["answer"])
                label = answer["arm"]
                markup.draw(markup.bubble("assistant", answer["answer"], label=label, tone=label, body=body))
                first = answer["first_token_seconds"]
                markup.draw(
                    markup.facts(
                        [
                            ("first token", "—" if first is None else f"{first:.2f} s"),
                            ("total", f"{answer['seconds']:.2f} s"),
                            ("tokens", answer["tokens"]),
                            ("tokens/s", f"{answer['tokens_per_second']:.1f}"),
                            ("weights", f"{answer['weights'][:12]}/{answer['logits'][:12]}"),
                            *([("", answer["notes"])] if answer["notes"] else []),
                        ]
                    )
                )


def _add(run: RunFolder) -> None:
    with st.expander("Add a prompt"), st.form("add prompt", border=False, clear_on_submit=True):
        text = st.text_area("Prompt", key="added prompt", label_visibility="collapsed")
        if st.form_submit_button("Answer with every arm") and text.strip():
            try:
                engine = state.engine(run)
                if (sentence := training_queries.equal_arms_sentence(run, engine, engine.arms)) is not None:
                    markup.draw(markup.notice(sentence))
                    return
                with st.spinner("Every arm is answering"):
                    answer_suite(run, engine=engine, added=[text.strip()])
            except UserError as fault:
                markup.draw(markup.notice(str(fault)))
                return
            st.rerun()
