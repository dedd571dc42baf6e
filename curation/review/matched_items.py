"""The items of benchmarks that rows match, with their texts: the run keeps them, so no reference needs to be there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from siftune.curation.contamination_outcomes import benchmark, settle
from siftune.curation.decontamination.stage import Decontamination
from siftune.curation.run.folder import RunFolder

#: The stage whose witnesses are items of a reference and not rows.
CONTAMINATION = Decontamination.name


@dataclass(frozen=True)
class MatchedItem:
    """An item of a reference: what it asks, its answer and its wrong choices, where the reference gives them."""

    prompt: str
    answer: str | None
    distractors: tuple[str, ...]

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The item as a dialogue: (role, text)."""
        turns = [("user", self.prompt), ("assistant", self.answer or "")]
        return [turn for turn in turns if turn[1]] + [("wrong choice", text) for text in self.distractors]

    @property
    def text(self) -> str:
        """All that the item says, a line for each turn."""
        return "\n".join(text for _, text in self.turns)


def settled_matches(run: RunFolder, threshold: float) -> pl.DataFrame:
    """MATCHES but `item` as they would count at another threshold, and their `benchmark` and its `threshold`."""
    settings = run.recipe.contamination
    most = settings.max_false_discovery if settings else None
    settled = settle(run.measured_matches().drop("item").collect(), threshold=threshold, most=most)
    return settled.with_columns(benchmark=benchmark())


def matched_items(run: RunFolder, references: Iterable[str]) -> dict[str, MatchedItem]:
    """Items by `name:row`. Left out are those that no row matches, and all of a run that did not keep their texts."""
    names = pl.Series(sorted(set(references)), dtype=pl.String)
    chosen = run.measured_matches().filter(pl.col("reference").is_in(names.implode()), pl.col("item").is_not_null())
    unique = chosen.select("reference", "item").unique("reference").collect()
    return {reference: _item(item) for reference, item in unique.iter_rows()}


def _item(fields: dict[str, Any]) -> MatchedItem:
    return MatchedItem(fields["prompt"] or "", fields["answer"], tuple(fields["distractors"] or ()))
