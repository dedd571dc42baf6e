"""The texts by which rows and items of a benchmark are compared: prompts, prompts with answers, last lines, gists."""

from __future__ import annotations

import re

import polars as pl

from siftune.curation.decontamination.pair_features import gist, is_code
from siftune.curation.text.words import word_count

#: A prompt of fewer words is read together with its answer: "Complete this function:" asks nothing by itself.
SHORT_PROMPT = 13
#: Words of a window, some 200 of the 256 pieces of words that all-MiniLM-L6-v2 reads, and from the beginning of one to
#: that of the next: a question of up to 50 words stands whole in one of them.
WINDOW_WORDS = 150
WINDOW_STEP = 100
_WORD_START = re.compile(r"\S+")
#: Views of most rows: see `row_views`.
VIEWS_OF_A_ROW = 4
#: The last line of a prompt, of at least `_QUESTION_WORDS` words, is an item of its own behind a passage of at least
#: `_PASSAGE_WORDS` words.
_PASSAGE_WORDS = 60
_QUESTION_WORDS = 6


def row_views(batch: pl.DataFrame) -> pl.DataFrame:
    """The texts by which rows are compared: `row` (position in the batch), `part`, `text`, `question_gist`, `code`.

    The prompt, and a short prompt with its answer too; each as it is and, where it holds code, by its gist. A text of
    more than `WINDOW_WORDS` words is read on in windows, since encoders read no more; and the system prompts, if the
    batch has the column `system`.
    """
    core, answer = pl.col("core").fill_null(""), pl.col("answer").fill_null("")
    prompt_words = word_count(core)
    short = (prompt_words < SHORT_PROMPT) & (word_count(answer) > 0)
    part = pl.when(prompt_words > 0).then(pl.lit("both")).otherwise(pl.lit("answer"))
    indexed = batch.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    views = [
        indexed.filter(prompt_words > 0).select("row", part=pl.lit("prompt"), question=core, answer=pl.lit("")),
        indexed.filter(short).select("row", part=part, question=core, answer=answer),
        _windows(indexed.select("row", text=core), part="prompt"),
        _windows(indexed.filter(short).select("row", text=answer), part="answer"),
    ]
    if "system" in batch.columns:
        system = indexed.select("row", text=pl.col("system").fill_null(""))
        long = system.filter(word_count(pl.col("text")) >= SHORT_PROMPT)
        views.append(long.select("row", part=pl.lit("system"), question="text", answer=pl.lit("")))
        views.append(_windows(system, part="system"))
    return _with_gists(views, by="row")


def _windows(texts: pl.DataFrame, *, part: str) -> pl.DataFrame:
    """The windows of long texts (`row`, `text`) from the second on, as views: `row`, `part`, `question`, `answer`."""
    lines = []
    for row, text in texts.filter(word_count(pl.col("text")) > WINDOW_WORDS).iter_rows():
        starts = [match.start() for match in _WORD_START.finditer(text)]
        for first in range(WINDOW_STEP, max(WINDOW_STEP + 1, len(starts) - (WINDOW_WORDS - WINDOW_STEP)), WINDOW_STEP):
            if first >= len(starts):
                break
            end = starts[first + WINDOW_WORDS] if first + WINDOW_WORDS < len(starts) else len(text)
            lines.append((row, part, text[starts[first] : end], ""))
    names = {"row": pl.Int64, "part": pl.String, "question": pl.String, "answer": pl.String}
    return pl.DataFrame(lines, schema=names, orient="row")


def item_views(references: pl.DataFrame) -> pl.DataFrame:
    """The texts by which items are found: `item` (position), `text`, `question_gist`, `code`.

    The prompt, and the last line of one that begins with a passage, each without and with the answer; each as it is
    and, where it holds code, by its gist.
    """
    prompt, answer = pl.col("prompt").fill_null(""), pl.col("answer").fill_null("")
    has_answer = word_count(answer) > 0
    last_line = prompt.str.strip_chars().str.split("\n").list.last().str.strip_chars()
    passage_words = word_count(prompt) - word_count(last_line)
    behind_passage = (passage_words >= _PASSAGE_WORDS) & (word_count(last_line) >= _QUESTION_WORDS) & ~is_code(prompt)
    indexed = references.with_row_index("item").with_columns(pl.col("item").cast(pl.Int64))
    return _with_gists(
        [
            indexed.select("item", question=prompt, answer=pl.lit("")),
            indexed.filter(has_answer).select("item", question=prompt, answer=answer),
            indexed.filter(behind_passage).select("item", question=last_line, answer=pl.lit("")),
            indexed.filter(behind_passage & has_answer).select("item", question=last_line, answer=answer),
        ],
        by="item",
    )


def _with_gists(views: list[pl.DataFrame], *, by: str) -> pl.DataFrame:
    """Each view (question and answer) as one text and, where it holds code, its gist as another.

    `question_gist` is the gist of the question, and of the answer where there is no question.
    """
    question, answer = pl.col("question"), pl.col("answer")
    joined = pl.concat(views).with_columns(
        text=pl.concat_str([question, answer], separator="\n").str.strip_chars(),
        gist=pl.concat_str([gist(question), gist(answer)], separator="\n").str.strip_chars(),
        code=is_code(question) | is_code(answer),
        question_gist=pl.when(word_count(question) > 0).then(gist(question)).otherwise(gist(answer)),
    )
    texts = joined.drop("question", "answer", "gist")
    gists = joined.filter(pl.col("gist") != pl.col("text")).with_columns(text="gist")
    all_views = pl.concat([texts, gists.drop("question", "answer", "gist")])
    return all_views.filter(word_count(pl.col("text")) > 0).sort(by, maintain_order=True)


def whole_text(frame: pl.DataFrame, columns: tuple[str, str]) -> pl.Series:
    """Two columns of texts, a prompt and an answer, as one."""
    parts = (pl.col(name).fill_null("") for name in columns)
    return frame.select(full_text=pl.concat_str(*parts, separator="\n")).to_series()
