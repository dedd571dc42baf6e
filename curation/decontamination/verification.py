"""Is a candidate the same item, a related one, or neither? What the two say is held side by side.

Candidates are close by embedding and stand out from their neighbours; most of them only share an item's subject. Here
their content words are aligned and their answers compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from siftune.curation.decontamination.content_words import (
    Alignment,
    Side,
    WordVectors,
    WordWeights,
    align,
    content_words,
    said_words,
)
from siftune.curation.decontamination.logistic_model import LogisticModel
from siftune.curation.decontamination.pair_features import ORDINALS, numbers
from siftune.curation.embeddings.knn import Embed

#: The columns that `verify` adds.
VERIFIED = pl.Schema(
    {
        "item_missing": pl.Float64,
        "row_missing": pl.Float64,
        "item_weakest": pl.Float64,
        "row_weakest": pl.Float64,
        "item_is_empty": pl.Boolean,
        "answer_agrees": pl.Float64,
        "answer_differs": pl.Float64,
        "answer_silent": pl.Float64,
        "negation_differs": pl.Float64,
        "numbers_replaced": pl.Int64,
        "formulas_differ": pl.Boolean,
        "names_differ": pl.Boolean,
        "detail": pl.String,
    }
)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
_FORMULA = re.compile(r"\d[a-zA-Z(]|[=^*/\\{]")
_FINAL_ANSWER = re.compile(
    r"(?:####|\banswer(?: is)?\s*:?|\\boxed\{)\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?)(?![\w/^*(])", re.IGNORECASE
)
#: An answer of more words is an explanation; whether it agrees cannot be told from its words.
_ANSWER_WORDS = 12
_SHORT_ANSWER_WORDS = 25
#: An answer agrees when this share of its words stands in the row's answer.
_AGREEING_SHARE = 0.6
_WORDS_IN_DETAIL = 5
#: An item whose words weigh less, without a name or a symbol, asks nothing that can be recognised: "Which of the
#: following statements is true?"
_LEAST_CONTENT = 1.05
_SYMBOL = re.compile(r"\d|[=^*{}\\`]|\w[._]\w|\b[B-HJ-Z]\b")
_EITHER_WAY = re.compile(r"\b(?:or|if) not\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|non|never|except|cannot)\b|n['’]t\b", re.IGNORECASE)
_CARDINAL_OF_ORDINAL = {word: str(number) for number, word in enumerate(ORDINALS, start=1)}
_LATEX = re.compile(r"\\(?:left|right|mathrm|text|[,;!])|[${}]")
_OPERATOR = re.compile(r"\s*([\^+*/=]|(?<=[\w)])\s-(?=\s[\w(]))\s*")
_FORMULA_TOKEN = re.compile(r"[\w.()\[\]\\]*[\^+*/=<>\\][\w.()\[\]\\^+*/=<>-]*")
_VARIABLE = re.compile(r"\d|\b[a-z]\b")
#: A related item shares more than half of its words with the row.
_RELATED_MISSING = 0.5


@dataclass(frozen=True)
class Candidate:
    """A row and an item that are held side by side.

    Attributes:
        question, prompt, answer: of the row: the part of it that is close to the item, and all of its texts.
        item_gist, item_prompt, item_answer, distractors: the same of the item, and its wrong choices.
        reference: the benchmark of the item.
        code: whether a program is involved.
    """

    question: str
    prompt: str
    answer: str
    item_gist: str
    item_prompt: str
    item_answer: str
    distractors: Sequence[str]
    reference: str
    code: bool

    @property
    def row(self) -> Side:
        """The row's words."""
        return Side(self.question, f"{self.prompt}\n{self.answer}", self.code, asks=bool(self.prompt.strip()))

    @property
    def item(self) -> Side:
        """The item's words."""
        return Side(self.item_gist, "\n".join([self.item_prompt, self.item_answer, *self.distractors]), self.code)


def verify(candidates: Sequence[Candidate], *, weights: WordWeights, embed: Embed) -> pl.DataFrame:
    """VERIFIED, a line for each candidate.

    item_missing, row_missing, item_weakest and row_weakest are described at `content_words.Alignment`. answer_agrees
    and answer_differs are 1 where the row's answer holds the item's (a final number; a short answer, and none of the
    wrong choices more) or holds another one, else 0; answer_silent is 1 where both have answers that could agree and do
    neither. negation_differs is 1 where one question alone asks for what is not so. numbers_replaced counts the numbers
    of the item's question that have others in their place in the row. item_is_empty: the item has no words, names or
    symbols to recognise it by. formulas_differ is described at its function, names_differ at
    `content_words.Alignment`; both are false where a program is involved.

    Args:
        candidates: what is compared.
        weights: what a word says.
        embed: texts to vectors, for single words.
    """
    words = (word for one in candidates for side in (one.row, one.item) for word in said_words(side))
    vectors = WordVectors(words, embed)
    numbers_replaced = _numbers_replaced(candidates)
    lines = []
    for one, missing in zip(candidates, numbers_replaced, strict=True):
        alignment = align(one.row, one.item, reference=one.reference, weights=weights, vectors=vectors)
        agrees, differs = compare_answers(one)
        item_is_empty = alignment.item_content < _LEAST_CONTENT and not _SYMBOL.search(one.item_gist)
        silent = float(not agrees and not differs and _is_comparable(one))
        negated = float(has_negation(one.question) != has_negation(one.item_gist))
        other_formulas = not one.code and formulas_differ(one.row.full_text, one.item_gist)
        detail = _detail(alignment, agrees, differs, missing, other_formulas=other_formulas, negated=bool(negated))
        other_names = alignment.names_differ and not one.code
        answers = (agrees, differs, silent, negated)
        lines.append((*alignment[:4], item_is_empty, *answers, missing, other_formulas, other_names, detail))
    return pl.DataFrame(lines, schema=VERIFIED, orient="row")


def compare_answers(one: Candidate) -> tuple[float, float]:
    """Whether the row's answer agrees with the item's, and whether it is another one: (1, 0), (0, 1) or (0, 0)."""
    if not _is_comparable(one):
        return 0.0, 0.0
    own, given = final_number(one.item_answer), final_number(one.answer)
    if given is None:
        given = _only_new_number(one.answer, one.prompt)
    if own is not None and given is not None:
        return float(own == given), float(own != given)
    if own is not None:
        return 0.0, 0.0
    held = {word.stem for word in content_words(one.answer, code=False)}
    share = _share(one.item_answer, held)
    wrong = max((_share(text, held) for text in one.distractors), default=0.0)
    agrees = share >= _AGREEING_SHARE and share > wrong
    return float(agrees), float(not agrees and (wrong > share or share == 0))


def _only_new_number(answer: str, prompt: str) -> float | None:
    """The one number of a short answer that its prompt does not have."""
    new = set(_NUMBER.findall(answer)) - set(_NUMBER.findall(prompt))
    if len(new) == 1 and len(answer.split()) <= _SHORT_ANSWER_WORDS and not _FORMULA.search(answer):
        return float(new.pop().replace(",", ""))
    return None


def _is_comparable(one: Candidate) -> bool:
    """Whether both have an answer, and that of the item is a number or short."""
    if one.code or not one.answer.strip():
        return False
    words = content_words(one.item_answer, code=False)
    return final_number(one.item_answer) is not None or 0 < len(words) <= _ANSWER_WORDS


def has_negation(text: str) -> bool:
    """Whether a question asks for what is *not* so; "odd or not" asks for either."""
    return bool(_NEGATION.search(_EITHER_WAY.sub("", text)))


def _numbers_replaced(candidates: Sequence[Candidate]) -> pl.Series:
    """How many numbers of each item's question have another number in their place in the row, int64 [n].

    A number that one side alone has says little: rephrasings write 2/5 as "two fifths" and "on the first day" as "the
    day before". It counts only where the other side has a number of its own as well. "The fourth week" is "week four".
    """
    texts = pl.DataFrame(
        {
            "question": [one.question for one in candidates],
            "row": [one.row.full_text for one in candidates],
            "item_question": [one.item_gist for one in candidates],
            "item": [one.item.full_text for one in candidates],
        },
        schema=dict.fromkeys(("question", "row", "item_question", "item"), pl.String),
    )
    columns = ("question", "row", "item_question", "item")
    question, row, item_question, item = (_cardinals(pl.col(name)) for name in columns)
    of_item, of_row = item_question.list.set_difference(row).list.len(), question.list.set_difference(item).list.len()
    return texts.select(pl.min_horizontal(of_item, of_row).cast(pl.Int64)).to_series()


def _cardinals(text: pl.Expr) -> pl.Expr:
    """The numbers of a text, ordinals as the numbers that they count; `first` is left out as 1 is."""
    cardinals = numbers(text).list.eval(pl.element().replace(_CARDINAL_OF_ORDINAL))
    return cardinals.list.set_difference(pl.lit(["1"]))


def answers_agree(answer: str, item_answer: str) -> bool:
    """Whether a row's answer agrees with that of an item; false where that cannot be told."""
    one = Candidate("", "", answer, "", "", item_answer, (), "", code=False)
    return compare_answers(one) == (1.0, 0.0)


def final_number(text: str) -> float | None:
    """The number that an answer ends in: behind ####, "answer" or in a box, or the only one of a short answer."""
    marked = _FINAL_ANSWER.findall(text)
    if marked:
        return float(marked[-1].replace(",", "").rstrip("."))
    values = set(_NUMBER.findall(text))
    if len(values) == 1 and len(text.split()) <= _ANSWER_WORDS and not _FORMULA.search(text):
        return float(values.pop().replace(",", ""))
    return None


def _share(answer: str, held: set[str]) -> float:
    words = content_words(answer, code=False)
    return sum(word.stem in held for word in words) / len(words) if words else 0.0


def formulas_differ(row: str, item: str) -> bool:
    """Whether both texts hold formulas, and none of the one is a part of one of the other."""
    of_row, of_item = _formulas(row), _formulas(item)
    return bool(of_row and of_item) and not any(one in other or other in one for one in of_row for other in of_item)


def _formulas(text: str) -> set[str]:
    """The formulas of a text that hold a digit or a variable, without spaces and without LaTeX's dollars and braces."""
    plain = _OPERATOR.sub(r"\1", _LATEX.sub("", text))
    tokens = (token.strip(".,()").lower() for token in _FORMULA_TOKEN.findall(plain))
    return {token for token in tokens if len(token) > 2 and _VARIABLE.search(token)}


def _detail(
    alignment: Alignment,
    agrees: float,
    differs: float,
    numbers_replaced: int,
    *,
    other_formulas: bool,
    negated: bool,
) -> str:
    """What was alike and what was not, in words."""
    parts = [f"shared: {', '.join(alignment.shared[:_WORDS_IN_DETAIL]) or 'no rare word'}"]
    if alignment.of_item:
        parts.append(f"only in the item: {', '.join(alignment.of_item[:_WORDS_IN_DETAIL])}")
    if alignment.of_row:
        parts.append(f"only in the row: {', '.join(alignment.of_row[:_WORDS_IN_DETAIL])}")
    if numbers_replaced:
        parts.append("other numbers")
    if other_formulas:
        parts.append("other formulas")
    if negated:
        parts.append("only one asks for what is not so")
    if agrees or differs:
        parts.append("same answer" if agrees else "another answer")
    return "; ".join(parts)


@dataclass(frozen=True)
class SameItemModel(LogisticModel):
    """A logistic model of "the same item" over the columns of `verify` and `program_features`, `screen`, `code_given`.

    `screen` are the log-odds by which a candidate was let in. Fitted by penalised maximum likelihood, the weights held
    to the sign that they must have, on the items of one half: rephrased MMLU questions and MBPP prompts as the same
    item; honest neighbours of GSM8K, MATH, HumanEval, MBPP and MMLU as another one; and 1,500 pairs of the mixture and
    items of that half, 94 of them read as the same item. The pairs of the mixture have most of the weight, 0.85 of them
    not the same: a constant for ordinary rows. `tests/benchmarks/contamination.py` says how the pairs are split, and
    reports on the other half.
    """

    screen: float = 0.0
    item_missing: float = 0.0
    row_missing: float = 0.0
    item_weakest: float = 0.0
    answer_agrees: float = 0.0
    answer_differs: float = 0.0
    operations: float = 0.0
    example_values: float = 0.0
    signature: float = 0.0
    answer_silent: float = 0.0
    negation_differs: float = 0.0
    code_given: float = 0.0
    behaves_alike: float = 0.0
    behaves_otherwise: float = 0.0


#: Where no program is involved. The constant is 1.25 above the fitted one: of the rephrased exam questions of the
#: fitted half 7 in 100 more are found; of 4 rows of the mixture that it flags beside that half 2 are the same item.
PROSE = SameItemModel(
    0.39,
    screen=1.5,
    item_missing=-2.69,
    row_missing=-0.5,
    item_weakest=-2.51,
    answer_agrees=1.19,
    answer_differs=-4.69,
    answer_silent=-3.47,
    negation_differs=-0.12,
)
#: A task that is solved by a program. The constant is 0.5 below the fitted one: short tasks that differ in one common
#: word ("count" and "sum" the digits) are most of what it finds wrongly in ordinary data. Of the MBPP duplicates of the
#: fitted half 0.85 are found, and of 77 rows of the mixture that it flags beside that half 67 are the same item.
PROGRAM = SameItemModel(
    -4.13,
    screen=0.8,
    item_missing=-1.96,
    row_missing=-0.89,
    item_weakest=-1.72,
    operations=2.01,
    example_values=1.09,
    signature=6.42,
    negation_differs=-2.29,
    code_given=-2.6,
    behaves_alike=2.77,
    behaves_otherwise=-2.07,
)
#: A program without a prompt, whose comments are its task: the words add nothing to the screen. Ordinary rows have
#: prompts, so that a lower threshold costs little. What results add was fitted beside it.
PROGRAM_ALONE = SameItemModel(1.0, screen=1.0, behaves_alike=0.56, behaves_otherwise=-4.46)
#: Programs are called only where the words are not this far from the same task: their results outweigh no more.
LEAST_OF_PROGRAM = -5.0
#: An item of which the row lacks more than this is another one, however close the two are: "expand" is not "simplify".
#: One in ten rephrasings of the fitted half lacks more than half of its item.
_MOST_MISSING = 0.7
#: A row that lacks this much of the item, or says this much more, asks something else where its answer differs too.
_MUCH_MISSING = 0.4
#: The log-odds of a pair that is certainly not the same item.
_CERTAINLY_NOT = -5.0


def same_item_log_odds() -> pl.Expr:
    """The log-odds that a candidate is the same item."""
    return (
        pl.when("alone")
        .then(PROGRAM_ALONE.log_odds())
        .when(is_another_item())
        .then(_CERTAINLY_NOT)
        .when("program")
        .then(PROGRAM.log_odds())
        .otherwise(PROSE.log_odds())
    )


def is_another_item() -> pl.Expr:
    """Whether a candidate is certainly not the same item.

    The same task with other numbers is a related item, and so is one with other formulas or names: of 192 rephrasings
    of the fitted half 2 lack a number; of 10 with formulas none has others. So is a programming task that is answered
    without a program, and a question that asks more or less than the item and is answered otherwise. An item that says
    nothing without its choices cannot be recognised.
    """
    missing = pl.max_horizontal("item_missing", "row_missing")
    return (
        (pl.col("item_missing") > _MOST_MISSING)
        | (pl.col("numbers_replaced") > 0)
        | pl.col("formulas_differ")
        | pl.col("names_differ")
        | pl.col("without_program")
        | (pl.col("item_is_empty") & ~pl.col("program"))
        | ((pl.col("answer_differs") > 0) & (missing > _MUCH_MISSING))
    )


def is_related() -> pl.Expr:
    """Whether a candidate that is not the same item is a related one."""
    return (pl.col("screen") >= 0) & (pl.col("item_missing") <= _RELATED_MISSING)
