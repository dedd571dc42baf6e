"""Row checks: what is wrong with a row by itself, before rows are compared.

Every check is a polars expression over a batch; ftfy and lingua, which take one text at a time, see only the rows that
a cheap expression let through. Checks err on the side of silence: a finding should convince a reader of the row.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from siftune.curation import schema
from siftune.curation.recipe.sections import Checks
from siftune.curation.row_checks import encoding, languages, phrases
from siftune.curation.text import words as text

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

    Scores: `empty_answer` characters; `truncated_answer` words of the unfinished line; `copied_answer` the share of
    the answer's word 5-grams that stand in the prompt; `refusal` and `template_tokens` the number of phrases;
    `encoding` the number of unlikely sequences; `length` words; `language` the confidence in the language found.
    When broken encodings are to be repaired, what is broken still is found as `encoding_left`.

    Raises:
        UserError: `language` is asked for and lingua is not installed, or does not know a language of `checks`.
    """
    found = [
        check(batch, checks).with_columns(pl.lit(name).alias("check"))
        for name, check in _CHECKS.items()
        if getattr(checks, name) != "off"
    ]
    if not found:
        return schema.empty(schema.FINDINGS)
    order = batch.select("id").with_row_index("place")
    frames = [schema.conform(_renamed(frame, checks), schema.FINDINGS) for frame in found]
    joined = pl.concat(frames).join(order, on="id", how="left", maintain_order="left")
    return joined.sort("place", maintain_order=True).drop("place")


def repair(batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """EXAMPLES with broken encodings mended in every message, and the DECISIONS that say so, one for each mended row.

    Rows, their order and everything but the content of messages stay as they are. `score` is the number of unlikely
    sequences before; `detail` shows the first place that changed.
    """
    rows = batch.with_row_index("place").select("place", "id", "messages")
    turns = rows.explode("messages", empty_as_null=False).with_columns(pl.col("messages").struct.unnest())
    turns = turns.with_columns(pl.int_range(pl.len()).over("place").alias("turn"))
    told = turns.filter(encoding.suspicious(pl.col("content"))).select("place", "id", "turn", "content")
    mended = told.with_columns(
        pl.col("content").map_elements(encoding.mend, return_dtype=pl.String).alias("after"),
    ).filter(pl.col("after") != pl.col("content"))
    if mended.is_empty():
        return batch, schema.empty(schema.DECISIONS)
    whole = turns.join(mended.select("place", pl.lit(value=True).alias("changed")).unique(), on="place", how="semi")
    whole = whole.join(mended.select("place", "turn", "after"), on=["place", "turn"], how="left", maintain_order="left")
    content = pl.coalesce("after", "content").alias("content")
    rewritten = whole.group_by("place", maintain_order=True).agg(pl.struct("role", content).alias("fixed"))
    frame = (
        batch.with_row_index("place")
        .join(rewritten, on="place", how="left", maintain_order="left")
        .with_columns(pl.coalesce("fixed", "messages").alias("messages"))
        .select(batch.columns)
    )
    return frame, _repair_decisions(mended)


def _repair_decisions(mended: pl.DataFrame) -> pl.DataFrame:
    damage = pl.col("content").map_elements(encoding.damage, return_dtype=pl.Int64)
    change = pl.struct("content", "after").map_elements(
        lambda pair: encoding.first_difference(pair["content"], pair["after"]), return_dtype=pl.String
    )
    told = mended.with_columns(damage.alias("damage"), change.alias("change")).group_by("id", maintain_order=True)
    decisions = told.agg(
        pl.lit("repair").first().alias("action"),
        pl.lit("encoding").first().alias("reason"),
        pl.col("damage").sum().cast(pl.Float64).alias("score"),
        pl.col("change").first().alias("detail"),
    )
    return schema.conform(decisions, schema.DECISIONS)


def _renamed(frame: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    left = (pl.col("check") == "encoding") & (checks.encoding == "repair")
    return frame.with_columns(pl.when(left).then(pl.lit("encoding_left")).otherwise("check").alias("check"))


def _empty_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """No letter, digit or symbol such as an emoji or a formula sign: a mark of punctuation is not an answer."""
    answer = pl.col("answer").fill_null("")
    return _found(batch, ~answer.str.contains(r"[\p{L}\p{N}\p{S}]"), answer.str.len_chars(), answer.str.head(20))


def _truncated_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """An open code fence, or a last line of prose that ends in the middle of a sentence.

    Prose is a last line of at least 12 words without signs of code. It is unfinished when it ends with a comma or a
    connecting word, when a bracket stays open, or when a long answer ends without a mark although a sentence before
    it in the same line ended with one. Labels, lists, titles, names and code end without marks, and are left alone.
    """
    candidates = batch.select("id", pl.col("answer").str.strip_chars_end().alias("answer"))
    candidates = candidates.filter(pl.col("answer").str.contains(rf"(?:{_ENDS_OPEN})|```"))
    last = pl.col("answer").str.split("\n").list.last()
    words = last.str.count_matches(r"\S+")
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
    judged = candidates.with_columns(last.alias("last"), words.alias("words")).with_columns(why.alias("why"))
    detail = pl.concat_str("why", pl.lit(": …"), pl.col("answer").str.tail(60).str.replace_all(r"\s+", " "))
    return _found(judged, pl.col("why").is_not_null(), pl.col("words"), detail)


def _copied_answer(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """The answer is the prompt, or an answer of 20 words or more whose word 5-grams stand in the prompt (at least
    90 %) and cover at least half of it: an extract or a label is taken from the prompt too, and is a good answer."""
    begins = [pl.col(name).str.strip_chars_start().str.head(4).str.to_lowercase() for name in ("prompt", "answer")]
    twins = batch.filter(begins[0] == begins[1], pl.col("answer").str.contains(r"\w"))
    keys = [text.normalise(pl.col(name).str.to_lowercase()) for name in ("prompt", "answer")]
    whole = _found(twins, keys[0] == keys[1], pl.lit(1.0), pl.lit("the answer is the prompt"))
    answer_length, prompt_length = pl.col("answer").str.len_bytes(), pl.col("prompt").str.len_bytes()
    # What the shares below imply for lengths, with a margin: most rows need not be taken apart.
    long = (answer_length >= 2 * _COPY_WORDS) & answer_length.is_between(prompt_length // 3, prompt_length * 3)
    rest = batch.filter(long).join(whole, on="id", how="anti", maintain_order="left").select("id", "prompt", "answer")
    contained = _contained(rest.filter(_most_words_shared()))
    share = pl.format("{} % of the answer is in the prompt", (pl.col("score") * 100).floor().cast(pl.Int64))
    return pl.concat([whole, contained.select("id", "score", share.alias("detail"))])


def _most_words_shared() -> pl.Expr:
    """A cheap sieve before 5-grams: at least 60 % of the answer's distinct words stand in the prompt as they are.

    Generous, as case and punctuation between words are all that may hide a shared word here; texts without spaces pass.
    """
    answer, prompt = (pl.col(name).str.to_lowercase().str.split(" ") for name in ("answer", "prompt"))
    distinct = answer.list.n_unique().cast(pl.Float64)
    return (distinct < _COPY_WORDS // 2) | (answer.list.set_difference(prompt).list.len() <= 0.4 * distinct)


def _contained(rows: pl.DataFrame) -> pl.DataFrame:
    """`id` and the share of the answer's word 5-grams found in the prompt, where both shares are large enough."""
    grams = {name: _grams(rows, name) for name in ("answer", "prompt")}
    sizes = {name: frame.group_by("place").len(name) for name, frame in grams.items()}
    shared = grams["answer"].join(grams["prompt"], on=["place", "gram"], how="semi").group_by("place").len("shared")
    judged = shared.join(sizes["answer"], on="place").join(sizes["prompt"], on="place")
    score = pl.col("shared") / pl.col("answer")
    kept = judged.with_columns(score.alias("score")).filter(
        pl.col("score") >= _COPY_CONTAINED, pl.col("shared") >= _COPY_COVERED * pl.col("prompt")
    )
    return rows.select("id").with_row_index("place").join(kept.sort("place"), on="place").select("id", "score")


def _grams(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The distinct hashed word 5-grams of a column: `place`, `gram`; rows of fewer than 20 words have none."""
    words = rows.with_row_index("place").select("place", text.words(pl.col(name)).alias("word"))
    words = words.filter(pl.col("word").list.len() >= _COPY_WORDS).explode("word")
    hashes = words.select("place", pl.col("word").hash(0).alias("0"))
    following = [pl.col("0").shift(-step).alias(str(step)) for step in range(1, _COPY_GRAM)]
    same_row = pl.col("place").shift(1 - _COPY_GRAM) == pl.col("place")
    grams = hashes.with_columns(following).filter(same_row)
    return grams.select("place", pl.struct(pl.exclude("place")).hash(0).alias("gram")).unique()


def _refusal(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """A refusal at the start of an answer, or an answer in which an AI speaks of itself."""
    # Expressions as long as these are costly: what neither apologises nor says I beside a telling word is not read.
    speaks = batch.select("id", "prompt", pl.col("answer").str.head(4000)).filter(
        pl.col("answer").str.contains(phrases.SPEAKS)
    )
    refuses = pl.col("answer").str.extract(f"({phrases.REFUSAL})")
    # In the user's own words (a text to translate, a string to reverse) it is not the answer that speaks.
    itself = pl.when(~pl.col("prompt").fill_null("").str.contains(phrases.SELF_REFERENCE)).then(
        pl.col("answer").str.extract(f"({phrases.SELF_REFERENCE})")
    )
    judged = speaks.with_columns(refuses.alias("refuses"), itself.alias("itself"))
    count = pl.sum_horizontal(pl.col("refuses", "itself").is_not_null())
    first = pl.coalesce("refuses", "itself").str.replace_all(r"\s+", " ")
    return _found(judged, count > 0, count, first)


def _encoding(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """Mojibake that ftfy sees, and replacement characters."""
    frames = []
    for name in ("prompt", "answer"):
        rows = batch.select("id", pl.col(name).alias("text")).filter(encoding.suspicious(pl.col("text")))
        score = pl.col("text").map_elements(encoding.damage, return_dtype=pl.Int64)
        frames.append(rows.with_columns(score.cast(pl.Float64).alias("score")).filter(pl.col("score") > 0))
    snippet = pl.col("text").str.extract(r"(.{0,20}(?:[^\x00-\x7F]{2}|[ÂÃŒœ]|\x{FFFD}).{0,20})").alias("detail")
    found = pl.concat(frames).with_columns(snippet)
    return found.group_by("id", maintain_order=True).agg(pl.col("score").sum(), pl.col("detail").first())


def _template_tokens(batch: pl.DataFrame, _: Checks) -> pl.DataFrame:
    """Markers of chat templates; `Human:` and `Assistant:` count where both begin a line of the same text."""
    both = pl.concat_str(pl.col("prompt").fill_null(""), pl.lit("\n\x00\n"), pl.col("answer").fill_null(""))
    rows = batch.select("id", pl.col("prompt", "answer").fill_null(""))
    sides = [pl.col(name) for name in ("prompt", "answer")]
    tokens = [side.str.count_matches(phrases.TEMPLATE) for side in sides]
    spoken = [side.str.contains(phrases.HUMAN_TURN) & side.str.contains(phrases.ASSISTANT_TURN) for side in sides]
    count = tokens[0] + tokens[1] + spoken[0].cast(pl.UInt32) + spoken[1].cast(pl.UInt32)
    first = pl.coalesce(*[side.str.extract(f"({phrases.TEMPLATE})") for side in sides], pl.lit("Human: … Assistant: …"))
    marked = rows.filter(both.str.contains(r"<\||\[/?INST|<<|_of_turn|<｜|###|</?s>|Human:|(?i)user:"))
    return _found(marked, count > 0, count, first.str.strip_chars())


def _length(batch: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    """A prompt or an answer of more words than `max_words`; counted only where there are as many characters."""
    frames = []
    for name in ("prompt", "answer"):
        rows = batch.select("id", name).filter(pl.col(name).str.len_bytes() > checks.max_words)
        counted = rows.select("id", text.word_count(pl.col(name)).alias("words"))
        frames.append(
            _found(counted, pl.col("words") > checks.max_words, pl.col("words"), pl.lit(f"words of the {name}"))
        )
    return pl.concat(frames).unique("id", keep="first", maintain_order=True)


def _language(batch: pl.DataFrame, checks: Checks) -> pl.DataFrame:
    """Prose of at least 8 words that is, with a confidence of 0.7 or more, in none of the wanted languages.

    Code blocks, inline code and addresses are taken out first; what is then mostly not letters is not judged.
    """
    languages.check_codes(checks.languages)
    spoken = pl.concat_str(pl.col("prompt", "answer").fill_null(""), separator="\n")
    prose = (
        spoken.str.head(4 * _LANGUAGE_CHARACTERS)
        .str.replace_all(r"(?s)```.*?(?:```|$)|`[^`\n]*`|https?://\S+|<[^<>\n]{1,80}>", " ")
        .str.replace_all(r"(?m)^.*(?:[{};=]|\w\().*$", " ")
        .str.replace_all(r"\s+", " ")
        .str.head(_LANGUAGE_CHARACTERS)
    )
    rows = batch.select("id", prose.alias("prose"))
    letters = pl.col("prose").str.count_matches(r"\p{L}")
    mostly = letters * 10 >= pl.col("prose").str.len_chars() * 6
    judged = rows.filter((text.word_count(pl.col("prose")) >= _LANGUAGE_WORDS) & mostly)
    wanted = [code.lower() for code in checks.languages]
    found = languages.detect(judged["prose"].to_list(), wanted=wanted, confidence=_LANGUAGE_CONFIDENCE)
    judged = judged.with_columns(
        pl.Series("code", [item.code for item in found], dtype=pl.String),
        pl.Series("confidence", [item.confidence for item in found], dtype=pl.Float64),
    )
    foreign = ~pl.col("code").is_in([*wanted, ""]) & (pl.col("confidence") >= _LANGUAGE_CONFIDENCE)
    detail = pl.format("{}: {}", pl.col("code"), pl.col("prose").str.head(60))
    return _found(judged, foreign, pl.col("confidence"), detail)


def _found(batch: pl.DataFrame, condition: pl.Expr, score: pl.Expr, detail: pl.Expr) -> pl.DataFrame:
    return batch.filter(condition).select("id", score.cast(pl.Float64).alias("score"), detail.alias("detail"))


_CHECKS: dict[str, Callable[[pl.DataFrame, Checks], pl.DataFrame]] = {
    "empty_answer": _empty_answer,
    "truncated_answer": _truncated_answer,
    "copied_answer": _copied_answer,
    "refusal": _refusal,
    "encoding": _encoding,
    "template_tokens": _template_tokens,
    "length": _length,
    "language": _language,
}
