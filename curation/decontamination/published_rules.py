"""The published contamination rules over batches of rows. Each is described, with its source, in its own module.

`gpt3-13gram` (gpt3_rule), `palm-8gram`, `llama3-token-ratio` and `tulu3-8gram` (eight_gram_rules), `llama2-skipgram`
(llama2_rule), `qwen2-lcs` (qwen2_rule), `decon` (decon_rule). What they find in the labelled sets, and where they
differ, is in docs/contamination_rules.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import polars as pl

from siftune.curation.decontamination.benchmark_items import RULE_MATCHES, BenchmarkItems, RowBatch
from siftune.curation.decontamination.decon_rule import DeconRule
from siftune.curation.decontamination.eight_gram_rules import EightGramRules
from siftune.curation.decontamination.gpt3_rule import Gpt3Rule
from siftune.curation.decontamination.llama2_rule import Llama2Rule
from siftune.curation.decontamination.qwen2_rule import Qwen2Rule
from siftune.curation.errors import UserError, did_you_mean


class RuleSearch(Protocol):
    """One rule, or several that share a search."""

    notes: dict[str, str]
    """What a rule says of whole benchmarks, by rule; complete after `matches`."""

    def read(self, batch: RowBatch) -> None:
        """Compare a batch of rows with the items."""

    def gathered(self) -> list[pl.DataFrame]:
        """What was read so far, as frames; always the same number of them. Rows are in a column `row`."""

    def add(self, frames: list[pl.DataFrame]) -> None:
        """Add what another search of the same rules and items gathered of other rows."""

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read; `ids` are theirs. Rules that look at all rows decide here."""


_SEARCHES: dict[str, Callable[[BenchmarkItems], RuleSearch]] = {
    "gpt3-13gram": Gpt3Rule,
    "llama2-skipgram": Llama2Rule,
    "qwen2-lcs": Qwen2Rule,
    "decon": DeconRule,
}
#: Every published rule.
PUBLISHED_RULES = frozenset({*_SEARCHES, *EightGramRules.names})


class PublishedRules:
    """The published rules that a recipe names.

    Args:
        references: `reference`, `prompt`, `answer` (null where there is none).
        rules: names of rules; others than the published ones are ignored.
        token_ratios: T_D of llama3-token-ratio by benchmark.

    Raises:
        UserError: a ratio is given for a benchmark that is not among the references.
    """

    def __init__(
        self, references: pl.DataFrame, rules: set[str], token_ratios: Mapping[str, float] | None = None
    ) -> None:
        token_ratios = token_ratios or {}
        items = BenchmarkItems(references)
        benchmarks = items.benchmarks.unique().to_list()
        for name in token_ratios:
            if name not in benchmarks:
                raise UserError(
                    f"contamination.token_ratios names {name!r}, which is no reference."
                    f"{did_you_mean(name, benchmarks)} References: {', '.join(sorted(benchmarks)) or 'none'}."
                )
        self._searches = [search(items) for rule, search in _SEARCHES.items() if rule in rules]
        of_eight_grams = rules & set(EightGramRules.names)
        if of_eight_grams:
            self._searches.append(EightGramRules(items, of_eight_grams, token_ratios))
        self._rows = 0

    def read(self, frame: pl.DataFrame) -> None:
        """Compare a batch of rows (prompt, answer) with the items."""
        batch = RowBatch(frame, self._rows)
        for search in self._searches:
            search.read(batch)
        self._rows += frame.height

    def gathered(self) -> list[pl.DataFrame]:
        """What was read so far, as frames that `add` takes; in those with a column `row` it is counted from 0 on."""
        return [frame for search in self._searches for frame in search.gathered()]

    def add(self, frames: Sequence[pl.DataFrame], *, rows: int) -> None:
        """Add what was gathered of the `rows` that come next."""
        after = [
            frame.with_columns(pl.col("row") + self._rows) if "row" in frame.columns else frame for frame in frames
        ]
        for search in self._searches:
            count = len(search.gathered())
            search.add(after[:count])
            del after[:count]
        self._rows += rows

    def matches(self, ids: pl.Series) -> pl.DataFrame:
        """RULE_MATCHES of all rows read; `ids` are theirs."""
        return pl.concat([pl.DataFrame(schema=RULE_MATCHES), *(search.matches(ids) for search in self._searches)])

    @property
    def notes(self) -> dict[str, str]:
        """What each rule says of whole benchmarks; complete after `matches`."""
        return {rule: note for search in self._searches for rule, note in search.notes.items()}
