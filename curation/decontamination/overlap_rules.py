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
from siftune.curation.text.ngrams import OVERLAP, Index, Words

TULU_SHARE = 0.5
LLAMA_SHARE = 0.8
LONG_GRAM = 13
SHORT_GRAM = 8

#: What a sentence is for `sentences`: up to a full stop, a question or exclamation mark, a colon or semicolon before
#: white space, a line break, a quotation mark or a bar.
_BREAK = r"""[.?!:;]+(?:\s|$)|[\n\r"“”|]+"""
_OUTER = " \t.,;:?!'`*_#>()[]{}-"
#: Fewer words than this are found only as a whole prompt: "Why?" stands in too many rows.
_LEAST_WORDS = 4


class SharedRuns:
    """The three published rules over batches of texts; what they need of a batch is kept, not its words."""

    def __init__(self, items: Words, rules: set[str]) -> None:
        self._items = items
        self._rules = rules
        self._eight = Index(items, SHORT_GRAM)
        self._long = [Index(items, LONG_GRAM)] if "gpt3-13gram" in rules else []
        short = items.counts < LONG_GRAM
        self._whole = (
            {size: _only(items, items.counts == size) for size in np.unique(items.counts[short]).tolist() if size}
            if "gpt3-13gram" in rules
            else {}
        )
        self._seen = np.zeros(len(items.hashes), np.bool_)

    def find(self, texts: Words) -> dict[str, pl.DataFrame]:
        """OVERLAP and `share` (of the item's words) for each rule; "eight": all that share an 8-gram."""
        found: dict[str, pl.DataFrame] = {}
        hits = self._eight.hits(texts)
        self._seen[self._items.offsets[hits["item"].to_numpy()] + hits["place"].to_numpy()] = True
        found["eight"] = self._with_share(ngrams.measure(hits, SHORT_GRAM))
        if "tulu3-8gram" in self._rules:
            found["tulu3-8gram"] = found["eight"].filter(pl.col("share") > TULU_SHARE)
        if "llama3-token-ratio" in self._rules:
            found["llama3-token-ratio"] = found["eight"]  # until all rows are seen: see `contaminated`
        if self._long:
            runs = [self._long[0].overlaps(texts)]
            runs += [Index(items, size).overlaps(texts) for size, items in self._whole.items()]
            found["gpt3-13gram"] = self._with_share(pl.concat(runs))
        return found

    def contaminated(self) -> NDArray[np.float64]:
        """For each item the share of its words in 8-grams that any text so far had; NaN for an item of no words."""
        covered = np.zeros(len(self._seen) + SHORT_GRAM, np.int64)
        starts = np.flatnonzero(self._seen)
        np.add.at(covered, starts, 1)
        np.add.at(covered, starts + SHORT_GRAM, -1)
        inside = np.concatenate([[0], np.cumsum(np.cumsum(covered)[: len(self._seen)] > 0)])
        counts = self._items.counts
        total = inside[self._items.offsets[1:]] - inside[self._items.offsets[:-1]]
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)

    def _with_share(self, overlaps: pl.DataFrame) -> pl.DataFrame:
        counts = self._items.counts[overlaps["item"].to_numpy()]
        return overlaps.with_columns(share=overlaps["covered"] / pl.Series(np.maximum(counts, 1)))


def _only(items: Words, chosen: NDArray[np.bool_]) -> Words:
    """The same items in the same places, the others without words."""
    counts = np.where(chosen, items.counts, 0)
    kept = np.repeat(chosen, items.counts)
    return Words(items.flat.filter(pl.Series(kept)), items.hashes[kept], np.concatenate([[0], np.cumsum(counts)]))


class WholeItems:
    """Items found whole: as a row's whole text whatever their length, or, when short, as whole sentences in it.

    Case, white space and outer punctuation do not count; operators and digits do. This is the rule for items of
    fewer than 13 words, which have no n-gram to share: "area of a triangle" is not in "area of a pentagon", nor
    in "what is the area of a triangle with sides 3, 4 and 5", but it is in "Question: area of a triangle?".
    """

    def __init__(self, items: pl.Series) -> None:
        listed = _sentences(items)
        words = ngrams.split(items).counts
        self._keys = _keys(listed).with_row_index("item").filter(pl.col("key").is_not_null())
        flat = ngrams.flatten(listed)
        short = (words >= _LEAST_WORDS) & (words < LONG_GRAM)
        sizes = np.unique(flat.counts[short]).tolist()
        self._sized = [Index(_only(flat, short & (flat.counts == size)), size) for size in sizes if size]

    def equal(self, texts: pl.Series) -> pl.DataFrame:
        """`text`, `item` where the two are the same text."""
        keys = _keys(_sentences(texts)).with_row_index("text")
        return keys.join(self._keys, on="key", how="inner").select(pl.col("text", "item").cast(pl.Int64))

    def inside(self, texts: pl.Series) -> pl.DataFrame:
        """`text`, `item` where a short item stands in the text as whole sentences."""
        flat = ngrams.flatten(_sentences(texts))
        found = [index.hits(flat).select("text", "item") for index in self._sized]
        empty = pl.DataFrame(schema={"text": OVERLAP["text"], "item": OVERLAP["item"]})
        return pl.concat([empty, *found]).unique(maintain_order=True)


def _sentences(texts: pl.Series) -> pl.Series:
    plain = pl.col("text").str.normalize("NFKC").str.to_lowercase()
    parts = plain.str.replace_all(_BREAK, "\x1f").str.split("\x1f")
    tidy = pl.element().str.replace_all(r"\s+", " ").str.strip_chars(_OUTER)
    cleaned = parts.list.eval(tidy).list.eval(pl.element().filter(pl.element() != ""))
    return texts.fill_null("").to_frame("text").select(cleaned)["text"]


def _keys(sentences: pl.Series) -> pl.DataFrame:
    joined = sentences.to_frame("sentences").select(pl.col("sentences").list.join("\x1f").alias("key"))
    return joined.select(pl.when(pl.col("key") != "").then(pl.col("key")))
