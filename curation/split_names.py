"""The names that data sets give to their splits, and the three splits that they mean."""

from __future__ import annotations

import re
from typing import Final

import polars as pl

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
HELD_OUT: Final = (TEST, VALIDATION)

#: The split that each usual name means.
SPLIT_NAMES: Final[dict[str, str]] = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "eval", "evaluation", "holdout", "heldout"), TEST),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), VALIDATION),
}


def standard_split(name: str) -> str:
    """`train`, `validation` or `test` for a usual name of it, in any letter case; any other name as it is."""
    return SPLIT_NAMES.get(name.strip().lower(), name)


def standard_splits(names: pl.Series) -> pl.Series:
    """The split that each name means by its first word, so that `test_sft` and `test[:5]` are `test`.

    Args:
        names: String[n], the names as the data has them.

    Returns:
        String[n]: `train`, `validation`, `test`, or null for null and for a name that means none of these.
    """
    first_words = {name: re.split(r"[^a-z]", name.lower(), maxsplit=1)[0] for name in names.unique().drop_nulls()}
    splits = {name: SPLIT_NAMES.get(word) for name, word in first_words.items()}
    return names.replace_strict(splits, default=None, return_dtype=pl.String)
