"""Names of topics: the words that tell a topic from the others, by class-based TF-IDF."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from siftune.curation.text.words import words

#: Rows of a topic and characters of a text that are read for its name: more hardly change it.
_ROWS = 1000
_CHARACTERS = 1000
#: Words in more than this share of the rows name nothing ("the", "write"), in whatever language …
_COMMON_SHARE = 0.03
#: … but a word in so few rows may always be a name.
_FEW_ROWS = 5
_WORDS = 3
_UNNAMED = "no words"


def topic_names(texts: Iterable[pl.Series], topic: np.ndarray, *, keys: np.ndarray) -> list[str]:
    """A name for each topic: its three words with the highest weights, as in "ingredients, recipe, dish"; no two alike.

    Class-based TF-IDF of BERTopic (Grootendorst 2022, arXiv 2203.05794, section 3.3): a word t weighs
    tf(t, c) · log(1 + A / f(t)) in the topic c, with tf its count there, f its count in all topics, and A the mean
    number of words of a topic.

    Args:
        texts: the n texts, in batches.
        topic: integers [n] from 0 on, no number left out.
        keys: uint64 [n], the drawn order of the rows: of a large topic the first thousand are read.
    """
    count = int(topic.max()) + 1 if len(topic) else 0
    table = _word_counts(texts, topic, _sampled(topic, keys))
    mean_words = float(table["tf"].sum()) / max(1, count)
    weight = pl.col("tf") * (1 + mean_words / pl.col("tf").sum().over("word")).log()
    ranked = table.with_columns(weight=weight).sort("weight", "word", descending=[True, False])
    best = dict(ranked.group_by("topic").agg(pl.col("word").head(4 * _WORDS)).iter_rows())

    names: list[str] = []
    for number in range(count):
        of_topic = best.get(number, [_UNNAMED])
        # One word more for as long as an earlier topic has the same name; then its number.
        lengths = range(_WORDS, len(of_topic) + 1)
        choices = [", ".join(of_topic[:length]) for length in lengths] or [", ".join(of_topic)]
        free = (name for name in [*choices, f"{choices[0]} ({number + 1})"] if name not in names)
        names.append(next(free))
    return names


def _sampled(topic: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """bool [n]: the first rows of each topic in the drawn order."""
    order = np.lexsort((keys, topic))
    starts = np.searchsorted(topic[order], topic[order], side="left")
    sampled = np.zeros(len(topic), bool)
    sampled[order] = np.arange(len(topic)) - starts < _ROWS
    return sampled


def _word_counts(texts: Iterable[pl.Series], topic: np.ndarray, sampled: np.ndarray) -> pl.DataFrame:
    """`topic`, `word`, `tf`: how often a word occurs in a topic; common words, numbers and single letters left out."""
    start, frames = (
        0,
        [pl.DataFrame(schema={"topic": pl.UInt32, "word": pl.String, "tf": pl.UInt32, "rows": pl.UInt32})],
    )
    for batch in texts:
        end = start + len(batch)
        text = batch.filter(pl.Series(sampled[start:end])).str.head(_CHARACTERS)
        frame = pl.DataFrame({"topic": topic[start:end][sampled[start:end]], "text": text}).with_row_index("row")
        occurrences = frame.select("row", pl.col("topic").cast(pl.UInt32), word=words(pl.col("text"))).explode("word")
        is_name = pl.col("word").str.contains(r"^\p{L}[\w'-]{1,29}$|^[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]$")
        counted = occurrences.filter(is_name).group_by("topic", "word")
        frames.append(counted.agg(tf=pl.len().cast(pl.UInt32), rows=pl.col("row").n_unique().cast(pl.UInt32)))
        start = end
    table = pl.concat(frames).group_by("topic", "word").agg(pl.col("tf", "rows").sum())
    is_common = pl.col("rows").sum().over("word") > max(_FEW_ROWS, _COMMON_SHARE * float(sampled.sum()))
    rare = table.filter(~is_common)
    # A topic of common words alone is named by them.
    return pl.concat([rare, table.join(rare, on="topic", how="anti")]).drop("rows")
