"""One row in full: its messages, lengths, decisions, benchmark matches and similar rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from siftune.app.web import markup, state
from siftune.app.web.components.hand_controls import hand_controls
from siftune.curation.review.catalogue import Catalogue, Dossier, dossier
from siftune.curation.review.decision_words import decision_sentence, decision_words
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import GUARDED
from siftune.curation.review.selections import selections_of
from siftune.curation.review.wording import score_text

_MOST_MATCHES = 12


def show_row(catalogue: Catalogue, position: int, *, after: Callable[[], None] | None = None) -> None:
    """Draw one row and everything that the run holds about it; `after` is called when the user kept or dropped it."""
    details = dossier(catalogue, position)
    example = catalogue.examples([position]).get(position)
    text, facts = st.columns([3, 2], gap="large")
    with text:
        _summary(details.row)
        if example is None:
            markup.draw(
                markup.notice(
                    "This row could not be read as an example and was quarantined; its history gives the reason."
                )
            )
        else:
            markup.draw(markup.conversation(example["messages"]))
            _other_columns(example)
    with facts:
        hand_controls(catalogue, str(details.row["id"]), str(details.row["fate"]), after=after)
        _history(catalogue, details)
        _selections(catalogue, str(details.row["id"]))
        _items(details)
        _similar_rows(details)


def _summary(row: dict[str, Any]) -> None:
    tags = markup.tag(row["fate"], str(row["fate"]))
    tags += markup.tag(f"split {row['split']}") if row["split"] else ""
    tags += "".join(markup.tag(name.removeprefix("arm:"), name.removeprefix("arm:")) for name in _arms(row))
    markup.draw(f'<div class="sf"><b>{markup.escaped(row["id"])}</b> &nbsp; {tags}</div>')
    words = (
        ("turns", row["turns"]),
        ("instruction", f"{row['prompt_words']} words"),
        ("answer", f"{row['answer_words']} words"),
    )
    markup.draw(markup.facts([*words, ("group", row["group"])] if row["group"] is not None else words))


def _arms(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if name.startswith("arm:") and value]


def _other_columns(example: dict[str, Any]) -> None:
    if example["meta"] not in (None, "", "{}"):
        with st.expander("Other columns of the row"):
            markup.draw(markup.prose(str(example["meta"]), limit=4_000))


def _history(catalogue: Catalogue, details: Dossier) -> None:
    markup.draw(markup.section_head("History"))
    for decision in details.decisions.to_dicts():
        kind = {name: decision[name] for name in ("stage", "action", "reason")}
        markup.draw(markup.decision(decision_sentence(decision, decision_words(catalogue.run, **kind))))
    for finding in details.findings.to_dicts():
        markup.draw(
            markup.facts([("check", finding["check"]), ("score", finding["score"]), ("", finding["detail"] or "")])
        )
    if details.decisions.is_empty() and details.findings.is_empty():
        markup.draw(markup.note("No stage made a decision about this row."))
    if not details.witnessed.is_empty():
        markup.draw(markup.note(f"Rows dropped or reported as similar to this row: {details.witnessed.height:,}."))


def _selections(catalogue: Catalogue, row_id: str) -> None:
    """What each selected arm says of the row."""
    lines = selections_of(catalogue.run, row_id)
    if lines:
        markup.draw(markup.section_head("Selected arms"))
        markup.draw(markup.facts([(line.arm, line.sentence) for line in lines]))


def _items(details: Dossier) -> None:
    """The items of benchmarks that the row matches."""
    if details.matches.is_empty():
        return
    markup.draw(markup.section_head("Benchmark items"))
    for match in details.matches.head(_MOST_MATCHES).to_dicts():
        facts = [("matches", match["reference"]), ("rule", match["rule"]), ("score", score_text(match["score"]))]
        markup.draw(markup.facts([*facts, ("outcome", match["outcome"])]))
        markup.draw(markup.prose(str(match["detail"] or match["span"]), limit=400))
    references = details.matches["reference"].unique(maintain_order=True).head(_MOST_MATCHES).to_list()
    _compare_with("Compare with an item", details, references, stage=CONTAMINATION)


def _similar_rows(details: Dossier) -> None:
    if details.neighbours.is_empty():
        return
    markup.draw(markup.section_head("Similar rows"))
    rows = [
        (
            markup.cell_with_note(line["id"], f"{line['measure']}, {GUARDED}" if line["guarded"] else line["measure"]),
            markup.Markup(markup.tag(line["fate"] or "?", str(line["fate"]))),
            f"{line['score']:.3f}",
        )
        for line in details.neighbours.head(12).to_dicts()
    ]
    markup.draw(markup.table(["row", "fate", "similarity"], rows, numbers=(2,)))
    ids = details.neighbours["id"].unique(maintain_order=True).head(12).to_list()
    _compare_with("Compare with", details, ids, stage=None)


def _compare_with(label: str, details: Dossier, names: list[str], *, stage: str | None) -> None:
    """A choice of rows, or of items of a benchmark, that opens one beside the row on the page Decisions.

    Args:
        label: the label of the choice.
        details: the row.
        names: the ids of rows or of items.
        stage: as in `layout.side_by_side`.
    """
    row_id = str(details.row["id"])
    other = st.selectbox(
        label,
        names,
        index=None,
        format_func=markup.line,
        placeholder="another row" if stage is None else "an item",
        key=f"{label} {row_id}",
    )
    if other:
        st.session_state["pair"] = (row_id, other, stage)
        state.switch_to("Decisions")
