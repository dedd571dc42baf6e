"""Short items of a benchmark that stand whole in a row. The published rules are in modules of their own.

See `siftune.curation.decontamination.published_rules`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from siftune.curation.decontamination.gram_postings import only
from siftune.curation.text import ngrams
from siftune.curation.text.ngrams import OVERLAP, NgramIndex

#: Items of fewer words have no run of words by which a longer text could be known to hold them.
LONG_GRAM = 13

#: What ends a sentence for `_sentences`: a full stop, a question or exclamation mark, a colon or semicolon before
#: white space, a line break, a quotation mark or a bar.
_SENTENCE_END = r"""[.?!:;]+(?:\s|$)|[\n\r"“”|]+"""
_OUTER_PUNCTUATION = " \t.,;:?!'`*_#>()[]{}-"
#: Items of fewer words are found only as a whole prompt: "Why?" stands in too many rows.
_MIN_SENTENCE_WORDS = 4
#: Between the sentences of a text: a control character that texts do not hold.
_SEPARATOR = "\x1f"


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
        self._sentence_grams = [NgramIndex(only(flat, short & (flat.counts == size)), size) for size in sizes if size]

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
