"""What the published contamination rules compare: the texts of benchmark items, and batches of training rows."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.text import ngrams
from siftune.curation.text.ngrams import TokenLists

#: A shorter answer ("forty", a label, a line of code) identifies no item, and is no text of its own.
LONG_ANSWER_WORDS = 13

#: A row that matches an item. `row` counts through all batches and `item` is a position in the references; `part` is
#: the part of the row that matched (prompt, answer or both), `score` a share in [0, 1], `span` the matched words.
RULE_MATCHES = pl.Schema(
    {"row": pl.Int64, "item": pl.Int64, "rule": pl.String, "part": pl.String, "score": pl.Float64, "span": pl.String}
)


class BenchmarkItems:
    """The items of all references.

    An item has one text or two: its prompt, and its answer where that has at least LONG_ANSWER_WORDS words. Texts are
    numbered prompts first, so text t belongs to item t modulo the number of items.
    """

    def __init__(self, references: pl.DataFrame) -> None:
        self.count = references.height
        self.prompts = references["prompt"].fill_null("")
        self.answers = references["answer"].fill_null("")
        #: The name of the benchmark of each item: `reference` is `name:row`.
        self.benchmarks = references["reference"].str.replace(r":\d+$", "")

    @cached_property
    def answer_words(self) -> TokenLists:
        """The words of every answer, short ones too."""
        return ngrams.split_words(self.answers)

    @cached_property
    def texts(self) -> pl.Series:
        """Prompts, then answers; String[2n], empty where an answer is too short to be a text of its own."""
        long = pl.Series(self.answer_words.counts >= LONG_ANSWER_WORDS)
        return pl.concat([self.prompts, self.answers.zip_with(long, pl.Series([""]))])

    @cached_property
    def words(self) -> TokenLists:
        """The words of `texts`."""
        return ngrams.split_words(self.texts)

    def item_of(self, text: NDArray[np.int64]) -> NDArray[np.int64]:
        """The items that texts belong to."""
        return text % max(self.count, 1)

    def matches_of_runs(self, rule: str, runs: pl.DataFrame, words: TokenLists | None = None) -> pl.DataFrame:
        """RULE_MATCHES from runs of words in item texts: `row`, `part`, `text`, `start`, `length` and `score`.

        `words` are the words that are counted, those of `words` unless given.
        """
        text = runs["text"].to_numpy()
        matched = runs.with_columns(
            item=pl.Series(self.item_of(text)),
            rule=pl.lit(rule),
            span=(words or self.words).spans(text, runs["start"].to_numpy(), runs["length"].to_numpy()),
        )
        return schema.conform(matched, RULE_MATCHES)

    def count_by_benchmark(self, texts: NDArray[np.bool_]) -> str:
        """How many items of each benchmark have a text among the chosen (bool[t]), in words."""
        chosen = np.zeros(self.count, np.bool_)
        chosen[self.item_of(np.flatnonzero(texts))] = True
        items = pl.DataFrame({"benchmark": self.benchmarks, "chosen": chosen})
        counts = items.group_by("benchmark", maintain_order=True).agg(pl.col("chosen").sum(), pl.len())
        return ", ".join(f"{name} {format_share(count, total)}" for name, count, total in counts.iter_rows())


class RowBatch:
    """A batch of training rows (id, prompt, answer); words are split when a rule first asks for them."""

    def __init__(self, frame: pl.DataFrame, first_row: int) -> None:
        self.first_row = first_row
        self.texts = (frame["prompt"], frame["answer"])

    @cached_property
    def prompt(self) -> TokenLists:
        """The words of the prompts."""
        return ngrams.split_words(self.texts[0])

    @cached_property
    def answer(self) -> TokenLists:
        """The words of the answers."""
        return ngrams.split_words(self.texts[1])

    @cached_property
    def documents(self) -> TokenLists:
        """The words of each row's prompt and then its answer."""
        counts = np.stack([self.prompt.counts, self.answer.counts], axis=1)
        offsets = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
        # Where each word of a part stands in the documents: after all earlier rows, and after its own prompt.
        of_prompt = np.arange(len(self.prompt.hashes)) + np.repeat(
            offsets[:-1] - self.prompt.offsets[:-1], self.prompt.counts
        )
        of_answer = np.arange(len(self.answer.hashes)) + np.repeat(
            offsets[:-1] + self.prompt.counts - self.answer.offsets[:-1], self.answer.counts
        )
        target = np.concatenate([of_prompt, of_answer])
        hashes = np.empty(len(target), np.uint64)
        hashes[target] = np.concatenate([self.prompt.hashes, self.answer.hashes])
        order = np.empty(len(target), np.int64)
        order[target] = np.arange(len(target))
        tokens = pl.concat([self.prompt.tokens, self.answer.tokens]).gather(order)
        return TokenLists(tokens, hashes, offsets)


def format_share(count: int, total: int) -> str:
    """ "3 of 1,319 (0.2 %)"."""
    return f"{count:,} of {total:,} ({100 * count / max(total, 1):.1f} %)"
