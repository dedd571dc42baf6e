"""Where an answer may come from: the rows of a run that share most runs of words with it, and what became of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from curation.review.browse import Catalogue
from curation.review.search import TextIndex

_WORDS = re.compile(r"\w+")
_RUN = 3
#: Runs of words looked up in the index, spread over the answer.
_MOST_RUNS = 40
_CANDIDATES = 40


@dataclass(frozen=True)
class Source:
    """A row at `position`; `share` of the answer's three-word runs stand in it, `text` is its answer."""

    position: int
    share: float
    prompt: str
    text: str


def nearest_rows(catalogue: Catalogue, index: TextIndex, answer: str, *, most: int = 5) -> list[Source]:
    """Rows that share most three-word runs with `answer`, most first; rows that share none are left out.

    Candidates are found through the search index, rare runs counting more; their shares are then counted exactly.
    """
    runs = _runs(answer)
    if not runs:
        return []
    weight = np.zeros(len(catalogue), dtype=np.float32)
    asked = sorted(runs)
    for run in asked[:: max(1, len(asked) // _MOST_RUNS)][:_MOST_RUNS]:
        hits = index.search(f'"{run}"')
        if len(hits):
            weight[hits] += np.log1p(len(catalogue) / len(hits))
    best = np.argsort(-weight, kind="stable")[:_CANDIDATES]
    texts = catalogue.texts(best[weight[best] > 0].astype(np.uint32))
    found = [
        Source(place, len(runs & _runs(f"{row['prompt']}\n{row['answer']}")) / len(runs), row["prompt"], row["answer"])
        for place, row in texts.items()
    ]
    found.sort(key=lambda each: (-each.share, each.position))
    return [each for each in found if each.share > 0][:most]


def _runs(text: str) -> set[str]:
    words = _WORDS.findall(text.lower())
    return {" ".join(words[start : start + _RUN]) for start in range(max(0, len(words) - _RUN + 1))}
