"""Rules that find an item of a benchmark in a row by shared words: the published ones, and whole sentences.

Published rules, on words in lower case without punctuation:

gpt3-13gram: a row is contaminated by an item when they share a run of 13 words, or the whole item when it is shorter
    (Brown et al. 2020, arXiv 2005.14165, section 4 and appendix C).
tulu3-8gram: when the 8-grams that the row shares with the item cover more than half of the item's words
    (Lambert et al. 2024, arXiv 2411.15124, section 3.2). Items of fewer than 8 words never match.
llama3-token-ratio: an item is contaminated when at least T of its words lie in 8-grams that occur anywhere in the
    training rows (Llama Team 2024, arXiv 2407.21783, section 5.1.4). The paper chooses T for each benchmark from model
    scores, which curation does not have; T is 0.8 here, where Llama 2 begins to call an item dirty (arXiv 2307.09288,
    appendix A.6). A row is reported for a contaminated item when the two share an 8-gram.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.text import ngrams
from siftune.curation.text.ngrams import OVERLAP, NgramIndex, TokenLists

#: tulu3-8gram: more than this share of the item's words must be covered.
TULU_SHARE = 0.5
#: llama3-token-ratio: T above.
LLAMA_SHARE = 0.8
#: TokenLists in an n-gram of gpt3-13gram, and of the other two rules.
LONG_GRAM = 13
SHORT_GRAM = 8

#: What ends a sentence for `_sentences`: a full stop, a question or exclamation mark, a colon or semicolon before
#: white space, a line break, a quotation mark or a bar.
_SENTENCE_END = r"""[.?!:;]+(?:\s|$)|[\n\r"“”|]+"""
_OUTER_PUNCTUATION = " \t.,;:?!'`*_#>()[]{}-"
#: Items of fewer words are found only as a whole prompt: "Why?" stands in too many rows.
_MIN_SENTENCE_WORDS = 4
#: Between the sentences of a text: a control character that texts do not hold.
_SEPARATOR = "\x1f"


class NgramRules:
    """The three published rules over batches of texts; what they need of a batch is kept, not its words."""

    def __init__(self, items: TokenLists, rules: set[str]) -> None:
        self._items = items
        self._rules = rules
        self._short_grams = NgramIndex(items, SHORT_GRAM)
        #: llama3-token-ratio: for each word of the items whether an 8-gram that some text has begins there.
        self._gram_starts = np.zeros(len(items.hashes), np.bool_)
        #: gpt3-13gram: the 13-grams of all items, then items of fewer words as one n-gram of their own length.
        self._long_grams: list[NgramIndex] = []
        if "gpt3-13gram" in rules:
            short_sizes = np.unique(items.counts[items.counts < LONG_GRAM]).tolist()
            self._long_grams = [NgramIndex(items, LONG_GRAM)]
            self._long_grams += [NgramIndex(_only(items, items.counts == size), size) for size in short_sizes if size]

    def find(self, texts: TokenLists) -> dict[str, pl.DataFrame]:
        """OVERLAP and `share` (of the item's words) for each rule, and "8-grams": all that share an 8-gram."""
        matches: dict[str, pl.DataFrame] = {}
        hits = self._short_grams.hits(texts)
        self._gram_starts[self._items.offsets[hits["item"].to_numpy()] + hits["item_position"].to_numpy()] = True
        matches["8-grams"] = self._with_share(ngrams.measure_overlaps(hits, SHORT_GRAM))
        if "tulu3-8gram" in self._rules:
            matches["tulu3-8gram"] = matches["8-grams"].filter(pl.col("share") > TULU_SHARE)
        if "llama3-token-ratio" in self._rules:
            matches["llama3-token-ratio"] = matches["8-grams"]  # until all rows are seen: see `covered_shares`
        if self._long_grams:
            overlaps = [index.overlaps(texts) for index in self._long_grams]
            matches["gpt3-13gram"] = self._with_share(pl.concat(overlaps))
        return matches

    def covered_shares(self) -> NDArray[np.float64]:
        """For each item the share of its words in 8-grams that any text so far had; NaN for an item of no words."""
        # +1 where an 8-gram begins and -1 where it ends: a word is covered where the running sum is positive.
        changes = np.zeros(len(self._gram_starts) + SHORT_GRAM, np.int64)
        starts = np.flatnonzero(self._gram_starts)
        np.add.at(changes, starts, 1)
        np.add.at(changes, starts + SHORT_GRAM, -1)
        covered = np.cumsum(changes)[: len(self._gram_starts)] > 0
        # Count the covered words of each item.
        cumulative = np.concatenate([[0], np.cumsum(covered)])
        counts = self._items.counts
        covered_words = cumulative[self._items.offsets[1:]] - cumulative[self._items.offsets[:-1]]
        return np.where(counts > 0, covered_words / np.maximum(counts, 1), np.nan)

    def _with_share(self, overlaps: pl.DataFrame) -> pl.DataFrame:
        counts = self._items.counts[overlaps["item"].to_numpy()]
        return overlaps.with_columns(share=overlaps["covered"] / pl.Series(np.maximum(counts, 1)))


def _only(items: TokenLists, chosen: NDArray[np.bool_]) -> TokenLists:
    """The same items in the same positions; those that are not chosen (bool [n]) lose their words."""
    counts = np.where(chosen, items.counts, 0)
    kept = np.repeat(chosen, items.counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return TokenLists(items.tokens.filter(pl.Series(kept)), items.hashes[kept], offsets)


class WholeItemRule:
    """Items found whole: as a row's whole text whatever their length, or, when short, as whole sentences in it.

    Case, white space and outer punctuation do not count; operators and digits do. This is the rule for items of
    fewer than 13 words, which have no n-gram to share: "area of a triangle" is not in "area of a pentagon", nor
    in "what is the area of a triangle with sides 3, 4 and 5", but it is in "Question: area of a triangle?".
    """

    def __init__(self, items: pl.Series) -> None:
        sentences = _sentences(items)
        self._keys = _keys(sentences).with_row_index("item").filter(pl.col("key").is_not_null())
        # Short items are n-grams of sentences: one index for each number of sentences.
        words = ngrams.split_words(items).counts
        short = (words >= _MIN_SENTENCE_WORDS) & (words < LONG_GRAM)
        flat = ngrams.token_lists(sentences)
        sizes = np.unique(flat.counts[short]).tolist()
        self._sentence_grams = [NgramIndex(_only(flat, short & (flat.counts == size)), size) for size in sizes if size]

    def equal(self, texts: pl.Series) -> pl.DataFrame:
        """`text`, `item` (positions, int64) where the two are the same text."""
        keys = _keys(_sentences(texts)).with_row_index("text")
        return keys.join(self._keys, on="key", how="inner").select(pl.col("text", "item").cast(pl.Int64))

    def inside(self, texts: pl.Series) -> pl.DataFrame:
        """`text`, `item` (positions, int64) where a short item stands in the text as whole sentences."""
        sentences = ngrams.token_lists(_sentences(texts))
        hits = [index.hits(sentences).select("text", "item") for index in self._sentence_grams]
        empty = pl.DataFrame(schema={"text": OVERLAP["text"], "item": OVERLAP["item"]})
        return pl.concat([empty, *hits]).unique(maintain_order=True)


def _sentences(texts: pl.Series) -> pl.Series:
    """Each text as a list of its sentences, in lower case, without white space and punctuation around them."""
    lower = pl.col("text").str.normalize("NFKC").str.to_lowercase()
    parts = lower.str.replace_all(_SENTENCE_END, _SEPARATOR).str.split(_SEPARATOR)
    tidy = pl.element().str.replace_all(r"\s+", " ").str.strip_chars(_OUTER_PUNCTUATION)
    cleaned = parts.list.eval(tidy).list.eval(pl.element().filter(pl.element() != ""))
    return texts.fill_null("").to_frame("text").select(cleaned)["text"]


def _keys(sentences: pl.Series) -> pl.DataFrame:
    """`key`: the sentences of each text as one string; null where there are none."""
    joined = sentences.to_frame("sentences").select(pl.col("sentences").list.join(_SEPARATOR).alias("key"))
    return joined.select(pl.when(pl.col("key") != "").then(pl.col("key")))
