"""Contamination: rows that hold an item of a benchmark, word for word or in other words.

`layered`, the default rule, asks four questions and takes the first answer: is the item's prompt the row's whole text
(`layered/exact`), does a short item stand in it as whole sentences (`layered/short`), do 8-grams that both have cover
80 % of an item of 13 words or more or of its answer, or half of the item with a run of 13 words (`layered/ngram`), and
is the item among the row's nearest by embedding and verified as the same task rather than another of its kind
(`layered/semantic`)?

A match is the same item or a related one: copied words with other numbers are another task, and
an item that asks nothing by itself ("Which of the following is true?") is the same only with its answer. The published
rules are described in `siftune.curation.decontamination.published_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.decontamination.benchmark_items import RULE_MATCHES
from siftune.curation.decontamination.content_words import content_words
from siftune.curation.decontamination.overlap_rules import LONG_GRAM, WholeItemRule
from siftune.curation.decontamination.pair_features import is_code, numbers
from siftune.curation.decontamination.paraphrases import SPAN_CHARACTERS, find_paraphrases
from siftune.curation.decontamination.published_rules import PublishedRules
from siftune.curation.decontamination.verification import answers_agree
from siftune.curation.embeddings.knn import Embed
from siftune.curation.progress import Progress
from siftune.curation.recipe.sections import Rule
from siftune.curation.text import ngrams

#: `layered/ngram`: at least the first share of an item, or of its answer, is covered by 8-grams that the row has too;
#: or more than the second of an item, with a long run.
_COVERED_SHARE = 0.8
_HALF_SHARE = 0.5
#: Words in these n-grams.
_SHORT_GRAM = 8
#: Raised when `layered` finds other matches than before, so that stored ones are not used again.
LAYERED_VERSION = 3
#: The layers of `layered`, the surest first.
_LAYERS = ("layered/exact", "layered/short", "layered/ngram", schema.PARAPHRASE)
#: An item of fewer content words asks nothing by itself.
_ITEM_WORDS = 2

_PART_MATCHES = pl.Schema([*RULE_MATCHES.items(), ("outcome", pl.String()), ("detail", pl.String())])


def find_matches(
    batches: Callable[[], Iterable[pl.DataFrame]],
    references: pl.DataFrame,
    *,
    rules: Sequence[Rule],
    embed: Embed | None = None,
    progress: Progress | None = None,
    published: PublishedRules | None = None,
) -> pl.DataFrame:
    """Every row that matches an item of `references` by one of the `rules`.

    Args:
        batches: gives the rows (id, prompt, core, answer, perhaps system) in batches, anew at each call; they are read
            several times.
        references: `reference`, `prompt`, `answer` (null where there is none).
        rules: the rules that are applied; each reports its own matches.
        embed: texts to vectors, for `layered`; without it rephrased items are not sought.
        progress: called with ("searching runs", rows, 0) and the like.
        published: the published rules among `rules`, which then hold notes on whole benchmarks. Made here unless given.

    Returns:
        MATCHES in the order of the rows; of one row the surest first, decoys last. `field` is the part of the row that
        matched. `score` is the share of the item's words that were found, or for `layered/semantic` as
        `find_paraphrases` gives it.
    """
    # Items that share words with a row.
    words = WordMatches(references, rules=rules, published=published)
    ids = [pl.Series("id", [], pl.String)]
    for batch in batches():
        words.read(batch)
        ids.append(batch["id"])
        if progress is not None:
            progress("searching runs", words.rows, 0)
    all_ids, paraphrases = pl.concat(ids), None

    # Items in other words.
    if "layered" in rules and embed is not None and references.height and words.rows:
        paraphrases = find_paraphrases(batches, references, embed=embed, progress=progress)
    return words.joined(all_ids, paraphrases)


class WordMatches:
    """Matches by shared words, read batch by batch, or gathered of several parts of the rows and put together.

    Attributes:
        rows: how many rows were read.
    """

    def __init__(
        self,
        references: pl.DataFrame,
        *,
        rules: Sequence[Rule],
        token_ratios: Mapping[str, float] | None = None,
        published: PublishedRules | None = None,
    ) -> None:
        """Prepare the search.

        Args:
            references: as in `find_matches`.
            rules: as there.
            token_ratios: as in `PublishedRules`.
            published: as in `find_matches`.
        """
        self.rows = 0
        self._references = references
        self._layers = _WordSearch(references) if "layered" in rules else None
        self._published = published or PublishedRules(references, set(rules), token_ratios)
        self._matches = [pl.DataFrame(schema=_PART_MATCHES)]

    @property
    def notes(self) -> dict[str, str]:
        """What each published rule says of whole benchmarks; complete after `joined`."""
        return self._published.notes

    def read(self, batch: pl.DataFrame) -> None:
        """Compare a batch of rows with the items."""
        self._published.read(batch)
        if self._layers is not None:
            parts = [part for part in ("prompt", "answer", "system") if part in batch.columns]
            of_batch = [frame for part in parts for frame in self._layers.find(batch, part)]
            self._matches += [frame.with_columns(row=pl.col("row") + self.rows) for frame in of_batch]
        self.rows += batch.height

    def gathered(self) -> list[pl.DataFrame]:
        """What was read so far, as frames that `add` takes."""
        return [pl.concat(self._matches), *self._published.gathered()]

    def add(self, frames: Sequence[pl.DataFrame], *, rows: int) -> None:
        """Add what another search of the same rules and items gathered of the `rows` that come next."""
        self._matches.append(frames[0].with_columns(row=pl.col("row") + self.rows))
        self._published.add(frames[1:], rows=rows)
        self.rows += rows

    def joined(self, ids: pl.Series, paraphrases: pl.DataFrame | None = None) -> pl.DataFrame:
        """MATCHES of all rows read.

        Args:
            ids: of these rows.
            paraphrases: what `find_paraphrases` gave for them; only what no layer above has found is taken.
        """
        matches = pl.concat(self._matches)
        matches = self._layers.settle(matches) if self._layers else matches
        if paraphrases is not None:
            layered = matches.filter(pl.col("rule").str.starts_with("layered")).select("row", "item")
            new = paraphrases.join(layered, on=["row", "item"], how="anti", maintain_order="left")
            matches = pl.concat([matches, schema.conform(new, _PART_MATCHES)])
        by_rule = self._published.matches(ids).with_columns(
            pl.col("span").str.slice(0, SPAN_CHARACTERS), outcome=pl.lit("same"), detail=pl.lit("shared words")
        )
        return _join_parts(pl.concat([matches, schema.conform(by_rule, _PART_MATCHES)]), ids, self._references)


class _WordSearch:
    """The layers of `layered` that look at words, over one part of a batch of rows at a time."""

    def __init__(self, references: pl.DataFrame) -> None:
        self._count = references.height
        prompts = references["prompt"].fill_null("")
        answers = references["answer"].fill_null("")
        long = ngrams.split_words(answers).counts >= LONG_GRAM  # shorter answers are labels and numbers
        # Items are numbered through prompts first, then answers.
        items = ngrams.split_words(pl.concat([prompts, answers.zip_with(pl.Series(long), pl.Series([""]))]))
        self._short_grams = ngrams.NgramIndex(items, _SHORT_GRAM)
        self._item_words = items.counts
        self._whole_items = WholeItemRule(prompts)
        self._prompts, self._answers = prompts, answers
        programs = prompts.to_frame("prompt").select(code=is_code(pl.col("prompt")))["code"]
        self._numbers = prompts.to_frame("prompt").select(found=numbers(pl.col("prompt")))["found"]
        self._numbers = self._numbers.zip_with(~programs, pl.Series([[]], dtype=pl.List(pl.String)))
        self._says_little = pl.Series(
            [len(content_words(prompt, code=True)) < _ITEM_WORDS for prompt in prompts], dtype=pl.Boolean
        )

    def find(self, batch: pl.DataFrame, part: str) -> list[pl.DataFrame]:
        """_PART_MATCHES of one part of a batch, with rows counted from its start; `settle` completes them."""
        # layered/ngram. Benchmarks of short items begin alike ("Write a python function to find the ..."): half of
        # such an item is not the item, unless the half is a long run of its own.
        words = ngrams.split_words(batch[part])
        shared = self._short_grams.overlaps(words)
        item_words = self._item_words[shared["item"].to_numpy()]
        shared = shared.with_columns(share=shared["covered"] / pl.Series(np.maximum(item_words, 1)))
        of_prompt = pl.col("item") < self._count
        mostly = pl.col("share") >= _COVERED_SHARE
        half = of_prompt & (pl.col("share") > _HALF_SHARE) & (pl.col("longest") >= LONG_GRAM)
        sure = shared.filter(pl.Series(item_words >= LONG_GRAM), mostly | half)
        ngram_matches = _ngram_matches(words, sure, "layered/ngram", part)
        matches = [ngram_matches.with_columns(**self._compare_numbers(ngram_matches, batch[part]))]

        # layered/exact and layered/short. A prompt is compared with and without its template.
        columns = ("prompt", "core") if part == "prompt" else ("answer",)
        equal = pl.concat([self._whole_items.equal(batch[column]) for column in columns]).unique(maintain_order=True)
        for rule, pairs in (("layered/exact", equal), ("layered/short", self._whole_items.inside(batch[part]))):
            span = batch[part].gather(pairs["text"]).str.slice(0, SPAN_CHARACTERS)
            whole_matches = pairs.select(row="text", item="item", score=1.0, span=span)
            whole_matches = whole_matches.with_columns(**self._compare_answers(whole_matches, batch["answer"]))
            matches.append(_of_rule(whole_matches, rule, part))
        return matches

    def _compare_numbers(self, matches: pl.DataFrame, texts: pl.Series) -> dict[str, pl.Series]:
        """`outcome` and `detail` of copied words: related where numbers of the item's prompt are not in the row."""
        of_row = texts.gather(matches["row"]).to_frame("text").select(found=numbers(pl.col("text")))["found"]
        of_item = self._numbers.gather(matches["item"] % self._count)
        of_prompt = matches["item"] < self._count
        missing = pl.DataFrame({"row": of_row, "item": of_item, "of_prompt": of_prompt}).select(
            missing=pl.when("of_prompt").then(pl.col("item").list.set_difference("row").list.sort().list.join(", "))
        )["missing"]
        differs = (missing.fill_null("") != "").to_frame("differs")
        return differs.select(
            outcome=pl.when("differs").then(pl.lit("related")).otherwise(pl.lit("same")),
            detail=pl.when("differs")
            .then(pl.format("shared words; only in the item: {}", missing.fill_null("")))
            .otherwise(pl.lit("shared words")),
        ).to_dict()

    def _compare_answers(self, matches: pl.DataFrame, answers: pl.Series) -> dict[str, pl.Series]:
        """`outcome` and `detail` of whole items: related where the item says little and the answers do not agree."""
        little = self._says_little.gather(matches["item"])
        agrees = [
            not unsure or answers_agree(answers[row] or "", self._answers[item])
            for unsure, row, item in zip(little, matches["row"], matches["item"], strict=True)
        ]
        same = pl.Series("same", agrees, dtype=pl.Boolean).to_frame()
        return same.select(
            outcome=pl.when("same").then(pl.lit("same")).otherwise(pl.lit("related")),
            detail=pl.when("same").then(pl.lit("the whole item")).otherwise(pl.lit("the whole item; another answer")),
        ).to_dict()

    def settle(self, matches: pl.DataFrame) -> pl.DataFrame:
        """Of each row and item the surest layer only; items then are positions in the references."""
        settled = matches.with_columns(pl.col("item") % self._count)
        layer = _layer(other_rules=-1)
        return settled.filter(layer == layer.min().over("row", "item"))


def _ngram_matches(words: ngrams.TokenLists, overlaps: pl.DataFrame, rule: str, part: str) -> pl.DataFrame:
    """_PART_MATCHES from OVERLAP and `share`; the span is the longest run of words that both have."""
    text, start, length = (overlaps[name].to_numpy() for name in ("text", "start", "longest"))
    span = words.spans(text, start, length).str.slice(0, SPAN_CHARACTERS)
    return _of_rule(overlaps.select(row="text", item="item", score="share", span=span), rule, part)


def _of_rule(matches: pl.DataFrame, rule: str, part: str) -> pl.DataFrame:
    """`matches` (row, item, score, span) as _PART_MATCHES of one rule and part."""
    return schema.conform(matches.with_columns(rule=pl.lit(rule), part=pl.lit(part)), _PART_MATCHES)


def _layer(*, other_rules: int) -> pl.Expr:
    """The rank of a match's layer, 0 the surest; `other_rules` for what is no layer."""
    return pl.col("rule").replace_strict({rule: rank for rank, rule in enumerate(_LAYERS)}, default=other_rules)


def _join_parts(matches: pl.DataFrame, ids: pl.Series, references: pl.DataFrame) -> pl.DataFrame:
    """MATCHES: parts of one row that match one item by one rule become one match."""
    is_decoy = pl.col("outcome") == "decoy"
    by = ["row", "item", "rule", "is_decoy"]
    ordered = matches.with_columns(is_decoy=is_decoy, is_related=pl.col("outcome") == "related")
    joined = (
        ordered.sort(
            *by, "is_related", "score", "part", "span", descending=[*[False] * len(by), False, True, True, False]
        )
        .group_by(by, maintain_order=True)
        .agg(pl.col("part").unique().sort(), pl.col("outcome", "score", "span", "detail").first())
    )
    field = pl.when(pl.col("part").list.len() > 1).then(pl.lit("both")).otherwise(pl.col("part").list.first())
    layer = _layer(other_rules=len(_LAYERS))
    ordered = joined.with_columns(field=field, layer=layer, is_related=pl.col("outcome") == "related").sort(
        *("row", "is_decoy", "is_related", "layer", "score", "item"),
        descending=[False, False, False, False, True, False],
    )
    named = ordered.with_columns(
        id=ids.gather(ordered["row"]), reference=references["reference"].gather(ordered["item"])
    )
    return schema.conform(named.drop("item"), schema.MATCHES)
