"""Which content words two texts share, and which of the one have no counterpart in the other.

Two questions on one subject share of their words; what tells them apart is often a single one ("triangle",
"pentagon"). So each content word of a text is aligned with its closest counterpart in the other, in the manner of
BERTScore's greedy matching with idf weights (Zhang et al. 2020, arXiv 1904.09675, section 3), vectors of single
words: the same stem counts 1, other words as much as their vectors are alike, and names (dotted names, identifiers)
nothing unless they are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.embeddings.cosine import SCALE, lattice
from siftune.curation.embeddings.knn import Embed

#: Words that say nothing of a text's subject.
STOP_WORDS = frozenset(
    """
    a about again also although am an and any are as at be because been being both but by can cannot could did do
    does doing done down during each either else etc ever few for from further get give given gives go had has have
    having he her here hers him his how however i if in into is it its itself just let like make made many may me
    might most much must my need next no now of off often on once one onto or other our out over own per please put
    said same say says she should show since so some such take tell than that the their them then there these they
    this those though through thus to too up upon us use used uses using very via want was we were what when where
    whether which while who whom whose why will with within would write yet you your answer question following
    describe describes explain explains explanation example options option choose select think step reasoning
    brief briefly summary summarize overview
    """.split()  # noqa: SIM905 - a list of so many words would take as many lines
)
_TOKEN = re.compile(
    r"(?<!`)`[A-Za-z_]\w*`(?!`)"  # a quoted name
    r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w+)+"  # a dotted name
    r"|[^\W\d_][\w]*_\w+|[a-z]+[A-Z]\w*"  # an identifier
    r"|[^\W\d_]+"
)
_CAMEL = re.compile(r"([a-z])([A-Z])")
_ENDING = re.compile(r"^(\w{3,}?)(?:ing|ed|es|s)$")
_STEM_LETTERS = 6  # join `buy`, `buys`; `elected`, `election`
#: Words with vectors this close count as the same, and this far apart as strangers; in between in proportion. Single
#: words by all-MiniLM-L6-v2: synonyms mostly lie above the middle, words of one kind (red, blue) below.
_SAME_COSINE = 0.85
_STRANGER_COSINE = 0.45
#: How much is missing of a text without content words (formulas, letters), which its words cannot tell.
_UNKNOWN_MISSING = 0.5
#: How much is missing of a word of the item that stands only in the row's answer.
_GAP_OF_ANSWER = 0.75
#: Words in more than this share of a reference's items are its template; other words weigh at least so much.
_TEMPLATE_SHARE = 0.2
#: Words in more than this share of the rows, and in more rows than this, are how rows ask ("in short, please").
_ROW_TEMPLATE_SHARE = 0.01
_ROW_TEMPLATE_ROWS = 20
_LEAST_WEIGHT = 0.35
#: A word is named as a difference when so much of it has no counterpart.
_GAP_TO_NAME = 0.5
#: Beyond so many words an answer is compared word for word only.
_MOST_WORDS = 400


class Word(NamedTuple):
    """A content word: its stem (or the whole name), itself in lower case, and whether it is a name."""

    stem: str
    form: str
    is_name: bool


def stem(word: str) -> str:
    """A word in lower case without a common ending, cut to six letters."""
    return _ENDING.sub(r"\1", word)[:_STEM_LETTERS]


@lru_cache(maxsize=1 << 16)
def content_words(text: str, *, code: bool) -> tuple[Word, ...]:
    """The distinct content words of a text in their order, at most 400; `code` takes its identifiers apart."""
    if code:
        text = _CAMEL.sub(r"\1 \2", text).replace("_", " ").replace(".", " ")
    words: dict[str, Word] = {}
    for token in _TOKEN.findall(text):
        lower = token.lower().strip("`")
        is_name = token[0] == "`" or "." in token or "_" in token or bool(_CAMEL.search(token))
        if is_name:
            words.setdefault(lower, Word(lower, lower, True))
        elif len(lower) > 1 and lower not in STOP_WORDS:
            words.setdefault(stem(lower), Word(stem(lower), lower, False))
        if len(words) >= _MOST_WORDS:
            break
    return tuple(words.values())


class WordWeights:
    """How much a word says, 0 to 1.

    Its inverse document frequency over all texts relative to that of a word in one text only, at least `_LEAST_WEIGHT`:
    "count" and "sum" are common words and two tasks. What a large part of a reference's items share ("Write a function
    to ...") is its template and says nothing.
    """

    def __init__(self) -> None:
        self._texts = 0
        self._counts: dict[str, int] = {}
        self._items: dict[str, tuple[int, dict[str, int]]] = {}
        self._rows = 0
        self._row_counts: dict[str, int] = {}

    def count(self, rows: Iterable[str]) -> None:
        """Count the words of rows, each once."""
        for text in rows:
            self._rows += 1
            self._texts += 1
            for word in content_words(text, code=True):
                self._counts[word.stem] = self._counts.get(word.stem, 0) + 1
                self._row_counts[word.stem] = self._row_counts.get(word.stem, 0) + 1

    def count_items(self, reference: str, texts: Sequence[str]) -> None:
        """Count the words of a reference's items, too."""
        counts: dict[str, int] = {}
        for text in texts:
            for word in content_words(text, code=True):
                counts[word.stem] = counts.get(word.stem, 0) + 1
                self._counts[word.stem] = self._counts.get(word.stem, 0) + 1
        self._items[reference] = (len(texts), counts)
        self._texts += len(texts)

    def weight(self, word: Word, reference: str) -> float:
        """The weight of a word against the items of a reference, 0 to 1."""
        if word.is_name:
            return 1.0
        items, counts = self._items.get(reference, (0, {}))
        if counts.get(word.stem, 0) > max(_TEMPLATE_SHARE * items, 1):
            return 0.0
        return max(_LEAST_WEIGHT, _relative_idf(self._counts.get(word.stem, 1), self._texts))

    def row_weight(self, word: Word, reference: str) -> float:
        """As `weight`, of a word of a row: nothing where a large part of the rows has it, too."""
        is_common = self._row_counts.get(word.stem, 0) > max(_ROW_TEMPLATE_SHARE * self._rows, _ROW_TEMPLATE_ROWS)
        return 0.0 if is_common and not word.is_name else self.weight(word, reference)


def _relative_idf(count: int, texts: int) -> float:
    return float(np.log((texts + 1) / max(count, 1)) / np.log(texts + 1)) if texts > 1 else 1.0


class Side(NamedTuple):
    """One of two texts that are compared.

    Attributes:
        question: what it asks.
        full_text: all that belongs to it, the answer too.
        code: whether its identifiers are taken apart.
        asks: whether what it says is a task: a program without a prompt explains more than its task.
    """

    question: str
    full_text: str
    code: bool
    asks: bool = True


class Alignment(NamedTuple):
    """How the words of a row and of an item go together, by weight.

    Attributes:
        item_missing, row_missing: the share of what the item (the row) says that the other does not hold, 0 to 1.
        item_weakest, row_weakest: the weight of the word of the item (the row) that is aligned least, 0 to 1.
        item_content: the sum of the weights of the item's words: what there is to recognise it by.
        shared: the words that both have, the weightiest first.
        names_differ: whether a dotted name or an identifier of the item is missing in the row, or a dotted name of the
            row in an item that has such names.
        of_item, of_row: the words of the one that have no counterpart in the other, the weightiest first.
    """

    item_missing: float
    row_missing: float
    item_weakest: float
    row_weakest: float
    item_content: float
    shared: tuple[str, ...]
    of_item: tuple[str, ...]
    of_row: tuple[str, ...]
    names_differ: bool


class WordVectors:
    """Vectors of single words by the encoder, on the lattice on which their products are exact."""

    def __init__(self, words: Iterable[str], embed: Embed) -> None:
        vocabulary = sorted(set(words))
        self._position = {word: position for position, word in enumerate(vocabulary)}
        self._vectors = lattice(embed([pl.Series(vocabulary, dtype=pl.String)])) if vocabulary else np.zeros((0, 1))

    def alikeness(self, words: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """How alike each of `words` is to its closest of `others`, float64 [n], 0 to 1."""
        left, right = (self._vectors[[self._position[word] for word in side]] for side in (words, others))
        cosine = (left @ right.T).max(axis=1).astype(np.float64) / SCALE**2
        alike: NDArray[np.float64] = np.clip((cosine - _STRANGER_COSINE) / (_SAME_COSINE - _STRANGER_COSINE), 0, 1)
        return alike


def align(row: Side, item: Side, *, reference: str, weights: WordWeights, vectors: WordVectors) -> Alignment:
    """Align the content words of a row and an item.

    Args:
        row, item: the two texts.
        reference: the reference that the item belongs to.
        weights: what a word says.
        vectors: of all words that `said_words` gives for the two.
    """
    # What only the row's answer says is not asked by the row; what the item's answer says may be part of a rephrasing.
    of_item = _unmatched(item, row, vectors, beyond=_GAP_OF_ANSWER)
    of_row = _unmatched(row, item, vectors, beyond=0.0) if row.asks else []
    sides = []
    for unmatched, unknown, weight_of in (
        (of_item, _UNKNOWN_MISSING, weights.weight),
        (of_row, _UNKNOWN_MISSING * row.asks, weights.row_weight),
    ):
        weighed = [(weight_of(word, reference), gap, word.form) for word, gap in unmatched]
        missing = _missing(unmatched, [weight for weight, _, _ in weighed], unknown)
        weakest = max((weight * gap for weight, gap, _ in weighed), default=0.0)
        named = sorted(((-weight * gap, form) for weight, gap, form in weighed if weight > 0 and gap > _GAP_TO_NAME))
        sides.append((missing, weakest, tuple(form for _, form in named)))
    weighed_words = ((weights.weight(word, reference), word.form) for word, gap in of_item if gap == 0)
    shared = sorted((-weight, form) for weight, form in weighed_words if weight > 0)
    (item_missing, item_weakest, item_words), (row_missing, row_weakest, row_words) = sides
    forms = tuple(form for _, form in shared)
    names = [word for word, _ in of_item if _is_long_name(word)]
    lacks_name = any(gap > 0 and _is_long_name(word) for word, gap in of_item)
    has_another = bool(names) and any(gap > 0 and "." in word.stem for word, gap in of_row if word.is_name)
    return Alignment(
        item_missing,
        row_missing,
        item_weakest,
        row_weakest,
        sum(weights.weight(word, reference) for word, _ in of_item),
        forms,
        item_words,
        row_words,
        names_differ=lacks_name or has_another,
    )


def _missing(unmatched: Sequence[tuple[Word, float]], weights: Sequence[float], unknown: float) -> float:
    """The share of the words, by weight, that has no counterpart.

    A name that both have says what the two are about, not what they ask of it: "What does `os.remove` do?", "Which
    errors does `os.remove` raise?". It counts only where there is no other word.
    """
    gaps = [(weight, gap, word.is_name and gap == 0) for (word, gap), weight in zip(unmatched, weights, strict=True)]
    if not sum(weight for weight, _, _ in gaps):
        return unknown
    asked = [(weight, gap) for weight, gap, is_shared_name in gaps if not is_shared_name]
    total = sum(weight for weight, _ in asked)
    return sum(weight * gap for weight, gap in asked) / total if total else 0.0


def _is_long_name(word: Word) -> bool:
    """Whether a word is a name of at least two parts of two letters: `os.remove`, `lru_cache`, but not `z_3`."""
    return word.is_name and sum(len(part) > 1 and part.isalpha() for part in re.split(r"[._]", word.stem)) > 1


def said_words(side: Side) -> list[str]:
    """The words of which `align` needs vectors."""
    return [word.form for word in content_words(side.question, code=side.code) if not word.is_name]


def _unmatched(side: Side, other: Side, vectors: WordVectors, *, beyond: float) -> list[tuple[Word, float]]:
    """Each content word of `side.question` with how little of it the other has, 0 (the same stem or name) to 1.

    A word that stands only in `other.full_text` counts at most `beyond`.
    """
    words = content_words(side.question, code=side.code)
    of_other = content_words(other.question, code=other.code)
    of_full_text = [word for text in (other.question, other.full_text) for word in content_words(text, code=other.code)]
    stems, forms = {word.stem for word in of_full_text}, {word.form for word in of_full_text}
    tails = {word.stem.rsplit(".", 1)[-1] for word in of_other if word.is_name} | stems
    gaps = []
    soft = [word for word in of_other if not word.is_name]
    stems_asked = {word.stem for word in of_other}
    missing = [word for word in words if not word.is_name and word.stem not in stems_asked]
    alike: dict[str, float] = {}
    if missing and soft:
        values = vectors.alikeness([word.form for word in missing], [word.form for word in soft])
        alike = dict(zip((word.stem for word in missing), values.tolist(), strict=True))
    for word in words:
        if word.is_name:
            dotted = "." in word.stem
            known = word.stem in stems or word.stem in forms or (not dotted and word.stem in tails)
            tail = word.stem.rsplit(".", 1)[-1]
            # `norm` alone may stand for `numpy.linalg.norm`; another dotted name may not.
            known = known or (dotted and tail in stems) or (dotted and _ends_alike(word.stem, of_other))
            gaps.append((word, 0.0 if known else 1.0))
        elif word.stem in stems_asked:
            gaps.append((word, 0.0))
        else:
            gap = 1.0 - alike.get(word.stem, 0.0)
            gaps.append((word, min(gap, beyond) if word.stem in stems else gap))
    return gaps


def _ends_alike(name: str, others: Iterable[Word]) -> bool:
    """Whether one of `others` is the same dotted name under another abbreviation: np.linalg.norm."""
    ending = name.split(".")[-2:]
    return any(word.stem.split(".")[-2:] == ending for word in others if "." in word.stem and len(ending) == 2)
