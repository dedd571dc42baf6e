"""Row checks: what is wrong with a row by itself, before rows are compared.

Every check is a polars expression over a batch; ftfy and lingua, which take one text at a time, see only the rows that
a cheap expression selects. Checks err on the side of silence: a finding should convince a reader of the row.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from siftune.curation import schema
from siftune.curation.formats.cells import PLACEHOLDERS
from siftune.curation.recipe.sections import Checks
from siftune.curation.row_checks import language_detection, mojibake, personal_data, phrases
from siftune.curation.text.words import normalise, word_count, words

#: Words that a last line must have to be called prose, and an answer, to be called cut off although its last sentence
#: could be whole: in short answers people leave the last full stop out (half of such hits in Dolly), models do not.
_PROSE_WORDS = 12
_LONG_WORDS = 80
_CONNECTOR = r"(?:^|[\s,(])(?:and|or|but|the|an|of|because|than|whose|into|between|their|your|our|its)$"
_ENDS_OPEN = r"[\p{Ll},]$"
_LOWER_WORD = r"(?:^|\s)\p{Ll}[\p{Ll}'’-]*$"
_ENDED_BEFORE = r"[\p{Ll})][.!?][\"”’)]*\s+[\"“‘(]?\p{Lu}"
_CODE_LINE = (
    r"[={}<>;\\|_@$]|\w\(|^\s{4,}|^\s*(?:import|from|def|class|SELECT|FROM|WHERE|#|//|>>>|\d+[.)]\s*\w+$)|https?:|www\."
)

_COPY_WORDS = 20
_COPY_GRAM = 5
_COPY_CONTAINED = 0.9
_COPY_COVERED = 0.5

_LANGUAGE_WORDS = 8
_LANGUAGE_CHARACTERS = 300
_LANGUAGE_CONFIDENCE = 0.7


def findings(batch: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    """FINDINGS of every check that is not off, over the columns of TEXTS (`id`, `prompt`, `answer` are read).

    Scores: `empty_answer` and `placeholder_answer` characters; `truncated_answer` words of the unfinished line;
    `copied_answer` the share of the answer's word 5-grams that stand in the prompt; `refusal` and `template_tokens`
    the number of phrases; `encoding` the number of unlikely sequences; `length` words; `language` the confidence in
    the language found; of personal data their number.
    Where the recipe repairs encodings, damage that is still there is found as `encoding_left`.

    Raises:
        UserError: `language` is not off and lingua is not installed, or does not know a language of `checks`.
    """
    of_checks = [
        check(batch, checks).with_columns(pl.lit(name).alias("check"))
        for name, check in CHECKS.items()
        if getattr(checks, name) not in ("off", "mask")  # what is masked is not there any more
    ]
    if not of_checks:
        return schema.empty(schema.FINDINGS)
    order = batch.select("id").with_row_index("position")
    conformed = [schema.conform(_rename_unrepaired(frame, checks), schema.FINDINGS) for frame in of_checks]
    joined = pl.concat(conformed).join(order, on="id", how="left", maintain_order="left")
    return joined.sort("position", maintain_order=True).drop("position")


def _rename_unrepaired(frame: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    unrepaired = (pl.col("check") == "encoding") & (checks.encoding == "repair")
    return frame.with_columns(pl.when(unrepaired).then(pl.lit("encoding_left")).otherwise("check").alias("check"))


def _empty_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """No letter, digit or symbol such as an emoji or a formula sign: a mark of punctuation is not an answer."""
    answer = pl.col("answer").fill_null("")
    return _findings(batch, ~answer.str.contains(r"[\p{L}\p{N}\p{S}]"), answer.str.len_chars(), answer.str.head(20))


def _placeholder_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """An answer of nothing but what tables write into an empty cell. Some are answers, so that no row is dropped."""
    answer = pl.col("answer").fill_null("").str.strip_chars()
    longest = max(map(len, PLACEHOLDERS)) + len("<>.")
    short = batch.select("id", answer.alias("answer")).filter(pl.col("answer").str.len_bytes() <= longest)
    bare = pl.col("answer").str.to_lowercase().str.strip_chars("<>()[]. ")
    is_placeholder = bare.is_in(sorted(PLACEHOLDERS | {"na"}))
    return _findings(short, is_placeholder, pl.col("answer").str.len_chars(), pl.col("answer"))


def _truncated_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """An open code fence, or a last line of prose that ends in the middle of a sentence.

    Prose is a last line of at least 12 words without signs of code. It is unfinished when it ends with a comma or a
    connecting word, when a bracket stays open, or when a long answer ends without a mark although a sentence before
    it in the same line ended with one. Labels, lists, titles, names and code end without marks, and are left alone.
    """
    candidates = batch.select("id", pl.col("answer").str.strip_chars_end().alias("answer"))
    candidates = candidates.filter(pl.col("answer").str.contains(rf"(?:{_ENDS_OPEN})|```"))
    last = pl.col("answer").str.split("\n").list.last()
    last_words = last.str.count_matches(r"\S+")
    marks = [pl.col("last").str.count_matches(mark, literal=True).cast(pl.Int64) for mark in "()"]
    prose = (pl.col("words") >= _PROSE_WORDS) & ~pl.col("last").str.contains(_CODE_LINE)
    long = pl.col("answer").str.count_matches(r"\S+") >= _LONG_WORDS
    stops = prose & pl.col("last").str.contains(_ENDS_OPEN)
    why = (
        pl.when(pl.col("answer").str.count_matches(r"(?m)^\s*```") % 2 == 1)
        .then(pl.lit("the code block is not closed"))
        .when(stops & pl.col("last").str.ends_with(","))
        .then(pl.lit("ends with a comma"))
        .when(stops & pl.col("last").str.contains(_CONNECTOR))
        .then(pl.lit("ends with a connecting word"))
        .when(stops & (marks[0] > marks[1]))
        .then(pl.lit("a bracket is not closed"))
        .when(long & stops & pl.col("last").str.contains(_LOWER_WORD) & pl.col("last").str.contains(_ENDED_BEFORE))
        .then(pl.lit("the last sentence has no end"))
    )
    candidates = candidates.with_columns(last.alias("last"), last_words.alias("words")).with_columns(why.alias("why"))
    detail = pl.concat_str("why", pl.lit(": …"), pl.col("answer").str.tail(60).str.replace_all(r"\s+", " "))
    return _findings(candidates, pl.col("why").is_not_null(), pl.col("words"), detail)


def _copied_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """The answer is the prompt, or an answer of 20 words or more whose word 5-grams stand in the prompt (at least
    90 %) and cover at least half of it: an extract or a label is taken from the prompt too, and is a good answer."""
    beginnings = [pl.col(name).str.strip_chars_start().str.head(4).str.to_lowercase() for name in ("prompt", "answer")]
    same_beginning = batch.filter(beginnings[0] == beginnings[1], pl.col("answer").str.contains(r"\w"))
    keys = [normalise(pl.col(name).str.to_lowercase()) for name in ("prompt", "answer")]
    equal = _findings(same_beginning, keys[0] == keys[1], pl.lit(1.0), pl.lit("the answer is the prompt"))
    answer_length, prompt_length = pl.col("answer").str.len_bytes(), pl.col("prompt").str.len_bytes()
    # What the shares below imply for lengths, with a margin: most rows need not be split into words.
    long = (answer_length >= 2 * _COPY_WORDS) & answer_length.is_between(prompt_length // 3, prompt_length * 3)
    others = batch.filter(long).join(equal, on="id", how="anti", maintain_order="left").select("id", "prompt", "answer")
    contained = _contained(others.filter(_most_words_shared()))
    share = pl.format("{} % of the answer is in the prompt", (pl.col("score") * 100).floor().cast(pl.Int64))
    return pl.concat([equal, contained.select("id", "score", share.alias("detail"))])


def _most_words_shared() -> pl.Expr:
    """A cheap sieve before 5-grams: at least 60 % of the answer's distinct words stand in the prompt as they are.

    Only case and punctuation can hide a shared word here; texts without spaces pass.
    """
    answer, prompt = (pl.col(name).str.to_lowercase().str.split(" ") for name in ("answer", "prompt"))
    distinct = answer.list.n_unique().cast(pl.Float64)
    return (distinct < _COPY_WORDS // 2) | (answer.list.set_difference(prompt).list.len() <= 0.4 * distinct)


def _contained(rows: pl.DataFrame) -> pl.DataFrame:
    """`id` and the share of the answer's word 5-grams found in the prompt, where both shares are large enough."""
    grams = {name: _grams(rows, name) for name in ("answer", "prompt")}
    sizes = {name: frame.group_by("position").len(name) for name, frame in grams.items()}
    shared = (
        grams["answer"].join(grams["prompt"], on=["position", "gram"], how="semi").group_by("position").len("shared")
    )
    counts = shared.join(sizes["answer"], on="position").join(sizes["prompt"], on="position")
    score = pl.col("shared") / pl.col("answer")
    copied = counts.with_columns(score.alias("score")).filter(
        pl.col("score") >= _COPY_CONTAINED, pl.col("shared") >= _COPY_COVERED * pl.col("prompt")
    )
    return (
        rows.select("id").with_row_index("position").join(copied.sort("position"), on="position").select("id", "score")
    )


def _grams(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The distinct hashed word 5-grams of a column: `position`, `gram`; rows of fewer than 20 words have none."""
    lists = rows.with_row_index("position").select("position", words(pl.col(name)).alias("word"))
    word_rows = lists.filter(pl.col("word").list.len() >= _COPY_WORDS).explode("word")
    hashes = word_rows.select("position", pl.col("word").hash(0).alias("0"))
    following = [pl.col("0").shift(-step).alias(str(step)) for step in range(1, _COPY_GRAM)]
    same_row = pl.col("position").shift(1 - _COPY_GRAM) == pl.col("position")
    grams = hashes.with_columns(following).filter(same_row)
    return grams.select("position", pl.struct(pl.exclude("position")).hash(0).alias("gram")).unique()


def _refusal(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """A refusal at the start of an answer, or an answer in which an AI speaks of itself."""
    # Expressions as long as these are costly: only answers with one of the words that they all need are searched.
    candidates = batch.select("id", "prompt", pl.col("answer").str.head(4000)).filter(
        pl.col("answer").str.contains(phrases.REFUSAL_WORDS)
    )
    refuses = pl.col("answer").str.extract(f"({phrases.REFUSAL})")
    # Where the prompt has such words itself (a text to translate, a string to reverse), the answer only repeats them.
    itself = pl.when(~pl.col("prompt").fill_null("").str.contains(phrases.SELF_REFERENCE)).then(
        pl.col("answer").str.extract(f"({phrases.SELF_REFERENCE})")
    )
    candidates = candidates.with_columns(refuses.alias("refuses"), itself.alias("itself"))
    count = pl.sum_horizontal(pl.col("refuses", "itself").is_not_null())
    first = pl.coalesce("refuses", "itself").str.replace_all(r"\s+", " ")
    return _findings(candidates, count > 0, count, first)


def _encoding(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """Mojibake that ftfy sees, and replacement characters."""
    frames = []
    for name in ("prompt", "answer"):
        rows = batch.select("id", pl.col(name).alias("text")).filter(mojibake.is_suspicious(pl.col("text")))
        score = pl.col("text").map_elements(mojibake.damage, return_dtype=pl.Int64)
        frames.append(rows.with_columns(score.cast(pl.Float64).alias("score")).filter(pl.col("score") > 0))
    snippet = pl.col("text").str.extract(rf"(.{{0,20}}(?:{mojibake.SUSPICIOUS}).{{0,20}})").alias("detail")
    damaged = pl.concat(frames).with_columns(snippet)
    return damaged.group_by("id", maintain_order=True).agg(pl.col("score").sum(), pl.col("detail").first())


def _template_tokens(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """Markers of chat templates; `Human:` and `Assistant:` count where both begin a line of the same text."""
    texts = pl.concat_str(pl.col("prompt").fill_null(""), pl.lit("\n\x00\n"), pl.col("answer").fill_null(""))
    rows = batch.select("id", pl.col("prompt", "answer").fill_null(""))
    sides = [pl.col(name) for name in ("prompt", "answer")]
    tokens = [side.str.count_matches(phrases.TEMPLATE) for side in sides]
    dialogues = [side.str.contains(phrases.HUMAN_TURN) & side.str.contains(phrases.ASSISTANT_TURN) for side in sides]
    count = tokens[0] + tokens[1] + dialogues[0].cast(pl.UInt32) + dialogues[1].cast(pl.UInt32)
    first = pl.coalesce(*[side.str.extract(f"({phrases.TEMPLATE})") for side in sides], pl.lit("Human: … Assistant: …"))
    candidates = rows.filter(texts.str.contains(r"<\||\[/?INST|<<|_of_turn|<｜|###|</?s>|Human:|(?i)user:"))
    return _findings(candidates, count > 0, count, first.str.strip_chars())


def _length(batch: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    """A prompt or an answer of more words than `max_words`; counted only where there are as many characters."""
    frames = []
    for name in ("prompt", "answer"):
        rows = batch.select("id", name).filter(pl.col(name).str.len_bytes() > checks.max_words)
        lengths = rows.select("id", word_count(pl.col(name)).alias("words"))
        frames.append(
            _findings(lengths, pl.col("words") > checks.max_words, pl.col("words"), pl.lit(f"words of the {name}"))
        )
    return pl.concat(frames).unique("id", keep="first", maintain_order=True)


def _language(batch: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    """Prose of at least 8 words that is, with a confidence of 0.7 or more, in none of the accepted languages.

    Code blocks, inline code and addresses are removed first; a text that is then mostly not letters is not judged.
    """
    language_detection.check_codes(checks.languages)
    texts = pl.concat_str(pl.col("prompt", "answer").fill_null(""), separator="\n")
    prose = (
        texts.str.head(4 * _LANGUAGE_CHARACTERS)
        .str.replace_all(r"(?s)```.*?(?:```|$)|`[^`\n]*`|https?://\S+|<[^<>\n]{1,80}>", " ")
        .str.replace_all(r"(?m)^.*(?:[{};=]|\w\().*$", " ")
        .str.replace_all(r"\s+", " ")
        .str.head(_LANGUAGE_CHARACTERS)
    )
    rows = batch.select("id", prose.alias("prose"))
    letters = pl.col("prose").str.count_matches(r"\p{L}")
    mostly_letters = letters * 10 >= pl.col("prose").str.len_chars() * 6
    candidates = rows.filter((word_count(pl.col("prose")) >= _LANGUAGE_WORDS) & mostly_letters)
    accepted = [code.lower() for code in checks.languages]
    detected = language_detection.detect(
        candidates["prose"].to_list(), accepted=accepted, confidence=_LANGUAGE_CONFIDENCE
    )
    candidates = candidates.with_columns(
        pl.Series("code", [language.code for language in detected], dtype=pl.String),
        pl.Series("confidence", [language.confidence for language in detected], dtype=pl.Float64),
    )
    foreign = ~pl.col("code").is_in([*accepted, ""]) & (pl.col("confidence") >= _LANGUAGE_CONFIDENCE)
    detail = pl.format("{}: {}", pl.col("code"), pl.col("prose").str.head(60))
    return _findings(candidates, foreign, pl.col("confidence"), detail)


def _personal_data(kind: str) -> Callable[[pl.DataFrame, Checks], pl.DataFrame]:
    return lambda batch, checks: personal_data.check(batch, kind, checks.phone_regions)


def _findings(batch: pl.DataFrame, condition: pl.Expr, score: pl.Expr, detail: pl.Expr) -> pl.DataFrame:
    """`id`, `score` and `detail` of the rows for which `condition` holds."""
    return batch.filter(condition).select("id", score.cast(pl.Float64).alias("score"), detail.alias("detail"))


#: Every check by the name of its field in the recipe, in the order in which findings of a row are listed.
CHECKS: dict[str, Callable[[pl.DataFrame, Checks], pl.DataFrame]] = {
    "empty_answer": _empty_answer,
    "placeholder_answer": _placeholder_answer,
    "truncated_answer": _truncated_answer,
    "copied_answer": _copied_answer,
    "refusal": _refusal,
    "encoding": _encoding,
    "template_tokens": _template_tokens,
    "length": _length,
    "language": _language,
    **{kind: _personal_data(kind) for kind in personal_data.KINDS},
}
