"""Prompts: the suite answered by every arm, with what each answer cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import streamlit as st

from siftune.app.web import markup, state, training_queries
from siftune.curation.errors import UserError
from siftune.curation.run.folder import RunFolder
from siftune.training.arm_names import BASE
from siftune.training.evaluation.prompt_suite import answer, read_answers
from siftune.training.evaluation.prompt_tables import averages
from siftune.training.inference.factory import trained_arms


def prompts() -> None:
    """Draw the page."""
    run = state.open_run()
    answers = read_answers(run.path)
    if answers.is_empty():
        trained = list(trained_arms(run.path)) != [BASE]
        next_step = f"The suite was not answered yet. Answer it:\n\n    siftune prompts {run.path}"
        markup.draw(markup.problem(next_step if trained else training_queries.what_next(run)))
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
            markup.Markup(markup.tag(each["arm"], each["arm"])),
            each["answers"],
            f"{each['seconds']:.2f}",
            f"{each['tokens']:.0f}",
            f"{each['tokens_per_second']:.1f}",
            "—" if each["first_token_seconds"] is None else f"{each['first_token_seconds']:.2f}",
            f"{each['checks_passed']} of {each['checks']}",
        )
        for each in averages(answers).to_dicts()
    ]
    head = ["arm", "answers", "seconds", "tokens", "tokens/s", "first token, s", "checks passed"]
    markup.draw(markup.table(head, rows, numbers=(1, 2, 3, 4, 5, 6)))


def _downloads(run: RunFolder) -> None:
    markdown, table, _ = st.columns([1.6, 1.6, 6])
    for column, name, label in ((markdown, "prompts.md", "Markdown"), (table, "prompts.csv", "CSV")):
        path = Path(run.path / "prompts" / name)
        if path.is_file():
            column.download_button(label, path.read_bytes(), name, width="stretch", on_click="ignore")


def _table(answers: pl.DataFrame) -> None:
    """Prompts by arms: the beginning of each answer, and what it cost."""
    st.subheader("Every prompt, every arm")
    arms = answers["arm"].unique(maintain_order=True).to_list()
    rows = []
    for (name,), part in answers.group_by("prompt", maintain_order=True):
        said = {each["arm"]: each for each in part.to_dicts()}
        rows.append((name, *(_cell(said[arm]) if arm in said else "—" for arm in arms)))
    markup.draw(markup.table(["prompt", *arms], rows))


def _cell(each: dict[str, Any]) -> markup.Markup:
    costs = f"{each['seconds']:.1f} s, {each['tokens']} tokens, {each['tokens_per_second']:.1f}/s"
    return markup.named(markup.line(each["answer"], 90) or "(empty)", costs)


def _answers(answers: pl.DataFrame) -> None:
    names = answers["prompt"].unique(maintain_order=True).to_list()
    name = st.selectbox("Read the answers to", names, format_func=markup.line)
    part = answers.filter(pl.col("prompt") == name).to_dicts()
    markup.draw(markup.bubble("user", part[0]["text"]))
    for start in range(0, len(part), 2):
        for column, each in zip(st.columns(2, gap="medium"), part[start : start + 2], strict=False):
            with column:
                markup.draw(markup.bubble("assistant", each["answer"], label=each["arm"], tone=each["arm"]))
                first = each["first_token_seconds"]
                markup.draw(
                    markup.facts(
                        [
                            ("first token", "—" if first is None else f"{first:.2f} s"),
                            ("in all", f"{each['seconds']:.2f} s"),
                            ("tokens", each["tokens"]),
                            ("tokens/s", f"{each['tokens_per_second']:.1f}"),
                            ("weights", f"{each['weights'][:12]}/{each['logits'][:12]}"),
                            *([("", each["notes"])] if each["notes"] else []),
                        ]
                    )
                )


def _add(run: RunFolder) -> None:
    with st.expander("Add a prompt and answer it now"), st.form("add prompt", border=False, clear_on_submit=True):
        text = st.text_area("Prompt", key="added prompt", label_visibility="collapsed")
        if st.form_submit_button("Answer") and text.strip():
            try:
                with st.spinner("Every arm is answering"):
                    answer(run.path, engine=state.engine(run), added=[text.strip()])
            except UserError as fault:
                markup.draw(markup.problem(str(fault)))
                return
            st.rerun()
