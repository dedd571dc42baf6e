"""A short recipe for given data: what `inspect` measured of them decides what is in it, with the reason beside it."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from siftune.curation.ingest.source_location import HUB
from siftune.curation.recipe.sections import Answers, Checks, Near, Splits
from siftune.curation.recipe.starting_recipe import semantic_comment, yaml_value
from siftune.curation.review.inspect import DuplicateCounts, Inspection
from siftune.curation.review.wording import percent
from siftune.curation.split_names import HELD_OUT, TRAIN, split_of
from siftune.curation.text.hidden_characters import visible

#: A near threshold that drops more than this share of the rows is not suggested: somebody should look at pairs first.
_MOST_NEAR = 1 / 3
#: Of fewer rows that are left, none are held out.
_LEAST_ROWS = 200
#: The most rows that are held out: more cost training rows and evaluation time, and narrow the verdict little.
_MOST_TEST = 1_000
#: From so many rows on, encoding all prompts for the search of leaks takes long without a GPU.
_MANY_ROWS = 20_000
#: A prompt or an answer is unusually long from so many times the 99 % quantile on.
_UNUSUAL = 10
#: English text has about 4 tokens to 3 words, as OpenAI states of its tokenizers.
_TOKENS_PER_WORD = 4 / 3


def suggested_recipe(
    inspections: Sequence[Inspection],
    *,
    data_folder: Path,
    recipe_folder: Path,
    columns: Mapping[str, str] | None = None,
    splits: Sequence[str | None] = (),
) -> str:
    """The text of a recipe for data that were inspected, each by itself.

    Args:
        inspections: what is known of each source, in the order of the recipe; each has usable rows.
        data_folder: the folder that the paths of the sources are relative to now.
        recipe_folder: the folder that the recipe will be in.
        columns: role to column of every source, as the user gave it.
        splits: the split of each source that is one by its name; default: none is.

    Returns:
        YAML; what is not in it has its default. Names and texts of the data stand in it as one line each.
    """
    rows = sum(inspection.source.examples for inspection in inspections)
    duplicates = _summed([inspection.duplicates for inspection in inspections if inspection.duplicates])
    threshold = _near_threshold(duplicates, rows)
    dropped = duplicates.near_at.get(threshold, duplicates.near or 0)
    left = rows - duplicates.exact - duplicates.prefixes - dropped - (duplicates.answers or 0)
    parts = [
        [
            "# A recipe for these data; what is not in it has its default. All settings: siftune recipe new --full",
            "# Curate with `siftune curate` and this file.",
        ],
        [
            "sources:",
            *(
                _source(each, data_folder, recipe_folder, columns, split)
                for each, split in zip_longest(inspections, splits)
            ),
        ],
        _duplicates(duplicates, rows, threshold),
        _checks(inspections),
        _splits(inspections, left),
        _encoder(rows) if left >= _LEAST_ROWS else [],
        [
            "# contamination:  # rows that hold an item of a benchmark are dropped: name those that you test with",
            "#   references: [{path: benchmark.jsonl}]",
        ],
        [f"# balance: {{target: temperature}}  # evens out the lengths of prompts: {_prompt_lengths(inspections)}"],
        _training(inspections),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _summed(counts: Sequence[DuplicateCounts]) -> DuplicateCounts:
    """The counts of all sources together; rows that are duplicates of rows in another source are not in them."""
    thresholds = {threshold for each in counts for threshold in each.near_at}
    return DuplicateCounts(
        exact=sum(each.exact for each in counts),
        near=sum(each.near or 0 for each in counts),
        answers=sum(each.answers or 0 for each in counts),
        conflicts=sum(each.conflicts for each in counts),
        near_threshold=Near().threshold,
        prefixes=sum(each.prefixes for each in counts),
        near_at={at: sum(each.near_at.get(at, 0) for each in counts) for at in sorted(thresholds)},
    )


def _near_threshold(duplicates: DuplicateCounts, rows: int) -> float:
    """The default, or where that would drop too many rows the lowest threshold that does not."""
    usable = [at for at, dropped in duplicates.near_at.items() if dropped <= _MOST_NEAR * rows]
    return min(usable, default=max(duplicates.near_at, default=Near().threshold))


def _source(
    inspection: Inspection,
    data_folder: Path,
    recipe_folder: Path,
    columns: Mapping[str, str] | None,
    split: str | None,
) -> str:
    record = inspection.source
    lines = [f"  - path: {yaml_value(path_in_recipe(record.path, data_folder, recipe_folder))}"]
    roles = ", ".join(
        f"{column} ({role})" if column != role else role for role, column in inspection.text_columns.items()
    )
    read = f"{record.examples:,} of {record.rows:,} rows can be used" + f"; text in: {_line(roles)}" * bool(roles)
    if "," in record.format:
        lines.append(f"    # format: auto  # found: {record.format}; {read}")
    else:
        lines.append(f"    format: {record.format}  # {read}")
    if split:
        lines.append(f"    split: {split}  # by its name")
    if columns:
        lines.append(f"    columns: {yaml_value(dict(columns))}")
    for column, count in list(inspection.parts.items())[:1]:
        lines.append(f"    source_column: {yaml_value(column)}  # names {count} data sets, which caps then tell apart")
    if record.quarantined:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in record.quarantined.items())
        lines.append(f"    # rows that cannot be used: {reasons}; `siftune inspect` shows the first of each")
    lines += [f"    # note: {_line(warning)}" for warning in record.warnings]
    return "\n".join(lines)


def _duplicates(duplicates: DuplicateCounts, rows: int, threshold: float) -> list[str]:
    lines = ["duplicates:"]
    if duplicates.near_at:
        share = percent(duplicates.near_at[threshold], rows)
        others = ", ".join(f"{at:g}: {dropped:,}" for at, dropped in duplicates.near_at.items() if at != threshold)
        reason = f"rows dropped: {duplicates.near_at[threshold]:,} ({share}); at other thresholds {others}"
        if threshold > Near().threshold:
            reason = f"stricter than the default, which drops more than a third of the rows: {reason}"
        lines.append(f"  near: {{threshold: {threshold:g}}}  # {reason}")
    if duplicates.answers is not None:
        most = Answers().max_per_answer
        reason = f"rows dropped, which have the answer of {most} other rows: {duplicates.answers:,}"
        lines.append(f"  answers: {{max_per_answer: {most}}}  # {reason}")
    lines.append(
        f"  conflicts: report  # rows with the prompt of another row and another answer: {duplicates.conflicts:,}"
    )
    lines.append(semantic_comment())
    return lines


def _checks(inspections: Sequence[Inspection]) -> list[str]:
    """A limit for lengths where a few texts are far longer than the others, and none of them reaches the default."""
    lengths = [
        sizes for inspection in inspections for name, sizes in inspection.lengths.items() if name.endswith("_words")
    ]
    longest, usual = (max((sizes[name] for sizes in lengths), default=0) for name in ("max", "p99"))
    limit = max(100, math.ceil(_UNUSUAL * usual / 100) * 100)
    if not limit < longest or limit >= Checks().max_words:
        return []
    reason = f"the longest text has {longest:,} words, 99 % of them have {usual:,} at most: longer ones are reported"
    return ["checks:", f"  max_words: {limit}  # {reason}"]


def _splits(inspections: Sequence[Inspection], left: int) -> list[str]:
    given: Counter[str] = Counter()
    for inspection in inspections:
        for name, count in inspection.splits.items():
            given[split_of(name) or TRAIN] += count
    if any(given[split] for split in HELD_OUT):
        counts = ", ".join(f"{name} {count:,}" for name, count in given.most_common())
        return ["splits:", f"  yield_to: eval  # the data have splits ({counts}); training rows that leak are dropped"]
    if left < _LEAST_ROWS:
        return [f"# splits: {{test: 0.1}}  # holds rows out; left out here, since only about {left:,} rows remain"]
    share = Splits().test
    test = f"{share:g}" if share * left <= _MOST_TEST else str(_MOST_TEST)
    return ["splits:", f"  test: {test}  # no split was found in the data; about {left:,} rows remain after duplicates"]


def _encoder(rows: int) -> list[str]:
    if rows < _MANY_ROWS:
        return []
    return [
        f"encoder: null  # leaks are searched for by words; `auto` also by meaning, and encodes {rows:,} prompts for it"
    ]


def _prompt_lengths(inspections: Sequence[Inspection]) -> str:
    sizes = [inspection.lengths["prompt_words"] for inspection in inspections]
    low, high = min(size["p10"] for size in sizes), max(size["p90"] for size in sizes)
    return f"10 % have up to {low:,} words, 10 % have {high:,} or more"


def _training(inspections: Sequence[Inspection]) -> list[str]:
    """A training section for `siftune run`; its length holds the rows of which neither side is unusually long."""
    words = max(
        inspection.lengths["prompt_words"]["p99"] + inspection.lengths["answer_words"]["p99"]
        for inspection in inspections
    )
    tokens = math.ceil(max(64, _TOKENS_PER_WORD * words) / 64) * 64
    return [
        "# training:  # for `siftune run`; needs `splits`",
        "#   budget: {tokens: 200000}",
        f"#   max_length: {tokens}  # about {words:,} words, which 98 % of the rows do not exceed",
    ]


def path_in_recipe(path: str, data_folder: Path, recipe_folder: Path) -> str:
    """`path`, which is relative to `data_folder`, as a recipe in `recipe_folder` writes it."""
    if path.startswith((HUB, "~")) or Path(path).is_absolute():
        return path
    return os.path.relpath(data_folder / path, recipe_folder)


def _line(text: str) -> str:
    """`text` on one line, so that it stays inside a comment whatever the data hold."""
    return visible(" ".join(text.split()))[:300]
