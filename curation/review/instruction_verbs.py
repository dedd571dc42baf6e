"""What instructions ask for: their verbs and the nouns that these act on, raw beside curated."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from siftune.curation.corpus import Corpus
from siftune.curation.errors import missing_extra
from siftune.curation.review.catalogue import Catalogue
from siftune.curation.review.lengths import is_trained
from siftune.curation.sampling import shuffled_positions

#: Rows of each set that are read: 1,000 rows are some two seconds of one core, and move a share by 3 points at most.
SAMPLE = 1_000
#: As in the figure of Self-Instruct.
_MOST_VERBS, _MOST_NOUNS = 20, 4
_CHARACTERS = 300
_MOST_TOKENS = 24
_TOKEN = re.compile(r"[A-Za-z]{1,30}(?:'[a-z]{1,4})?|[.!?]")


def verb_and_noun(text: str) -> tuple[str, str] | None:
    """The first verb of an English instruction and the first noun behind it in its sentence, as lemmas; None without.

    Self-Instruct (Wang et al. 2022, arXiv 2212.10560, section 3.2) takes the root verb and its direct object of a full
    parse; a tagger sees no more than the order of words, so "write a dialogue" is found and "about plants, write" is
    not. Auxiliaries and forms of be, do and have are not taken.

    Raises:
        UserError: the tagger is not installed.
    """
    tokens = _TOKEN.findall(text[:_CHARACTERS])[:_MOST_TOKENS]
    if not tokens:
        return None
    tokens[0] = tokens[0][:1].lower() + tokens[0][1:]  # or "Design" at the start would be a name
    verb: str | None = None
    for word, lemma, tag in _tagger().tag_sent(tokens):
        if word in ".!?":
            verb = None
        elif verb is None and tag.startswith("VV"):  # lexical verbs of the CLAWS5 tag set
            verb = lemma
        elif verb is not None and tag.startswith("NN"):
            return verb.lower(), lemma.lower()
    return None


@cache
def _tagger() -> Any:
    try:
        from HanTa import HanoverTagger
    except ImportError:
        raise missing_extra("HanTa", "verbs") from None
    return HanoverTagger.HanoverTagger("morphmodel_en.pgz")


def verb_tree(raw: Sequence[str], curated: Sequence[str]) -> pl.DataFrame:
    """The 20 verbs that the texts of `raw` use most, and of each set the 4 nouns that each of them acts on most.

    Args:
        raw: the one set.
        curated: the other.

    Returns:
        set (raw, curated), verb, noun, rows, and share of the texts of the set; verbs by their rows in `raw`, nouns by
        their rows. Rows with other verbs and nouns are left out, as in the figure of Self-Instruct.
    """
    counts = {name: _counts(texts) for name, texts in (("raw", raw), ("curated", curated))}
    of_verb: Counter[str] = Counter()
    for (verb, _), rows in counts["raw"].items():
        of_verb[verb] += rows
    verbs = sorted(of_verb, key=lambda verb: (-of_verb[verb], verb))[:_MOST_VERBS]
    lines = []
    for name, texts in (("raw", raw), ("curated", curated)):
        for verb in verbs:
            nouns = sorted(
                ((rows, noun) for (one, noun), rows in counts[name].items() if one == verb),
                key=lambda item: (-item[0], item[1]),
            )
            lines += [(name, verb, noun, rows, rows / max(1, len(texts))) for rows, noun in nouns[:_MOST_NOUNS]]
    columns = {"set": pl.String, "verb": pl.String, "noun": pl.String, "rows": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(lines, schema=columns, orient="row")


def _counts(texts: Sequence[str]) -> Counter[tuple[str, str]]:
    return Counter(pair for pair in map(verb_and_noun, texts) if pair is not None)


def sampled_instructions(catalogue: Catalogue, *, most: int = SAMPLE) -> tuple[list[str], list[str]]:
    """Beginnings of prompts of all rows that could be read, and of the training rows after curation, at most so many.

    Both are drawn by the seed of the run.
    """
    frame, run = catalogue.frame, catalogue.run
    seed = run.manifest.seed
    chosen: list[np.ndarray] = []
    for rows in (np.flatnonzero(catalogue.example_positions >= 0), np.flatnonzero(is_trained(frame))):
        drawn = rows[shuffled_positions(frame["id"].gather(rows), seed=seed, purpose="verbs")[:most]]
        chosen.append(np.sort(catalogue.example_positions[drawn]).astype(np.uint32))
    rows_read = np.unique(np.concatenate(chosen))
    corpus = Corpus(run.examples, run.texts, key="")
    prompts = [frame["prompt"].str.head(_CHARACTERS) for frame in corpus.frames(["prompt"], rows_read)]
    texts = pl.concat([pl.Series("prompt", [], pl.String), *prompts])
    raw, curated = (texts.gather(np.searchsorted(rows_read, rows)).to_list() for rows in chosen)
    return raw, curated
