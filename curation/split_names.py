"""The names that data sets give to their splits, and the three splits that they mean.

One rule reads them all: files, folders, and the values of a column `split`. It is the rule of the Hugging Face hub
(`datasets.data_files`): a name means a split when one of its words does, where words are separated by `-`, `_`, `.`,
blanks, digits and brackets. So `test_sft`, `faq_test.jsonl`, `train-00000-of-00002` and `test[:5]` are read alike.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePath
from typing import Final

import polars as pl

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
HELD_OUT: Final = (TEST, VALIDATION)

#: The split that each usual word means.
SPLIT_NAMES: Final[dict[str, str]] = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout", "heldout"), TEST),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), VALIDATION),
}

_SEPARATORS = re.compile(r"[\s\-._0-9\[\]():,;+/\\%]+")
_HELD_OUT_IN_TWO_WORDS = re.compile(r"\b(held|hold)[\s_-]out\b|(?<=[_.\d])(held|hold)[\s_-]out")


@lru_cache(maxsize=10_000)
def split_of(name: str) -> str | None:
    """`train`, `validation` or `test` when a word of `name` means it, in any letter case; None for any other name.

    Where the words mean several splits, a held-out one counts, the first of them: training on held-out rows does more
    harm than leaving out a few training rows.
    """
    joined = _HELD_OUT_IN_TWO_WORDS.sub("heldout", name.lower())
    meant = [SPLIT_NAMES[word] for word in _SEPARATORS.split(joined) if word in SPLIT_NAMES]
    return next((split for split in meant if split in HELD_OUT), meant[0] if meant else None)


def split_of_path(path: PurePath) -> str | None:
    """The split that the name of a file or the name of one of its folders means, as in `split_of`.

    Args:
        path: A path relative to the source, so that folders above it do not count. The ending of a file is no word.

    Returns:
        A held-out split where the file or a folder means one, the nearest first; else `train` or None.
    """
    meant = [split_of(part) for part in reversed(path.parts)]
    return next((split for split in meant if split in HELD_OUT), TRAIN if TRAIN in meant else None)


def standard_split(name: str) -> str:
    """`train`, `validation` or `test` for a name that means it (see `split_of`); any other name as it is."""
    return split_of(name) or name


def standard_splits(names: pl.Series) -> pl.Series:
    """The split that each name means, as in `split_of`.

    Args:
        names: String[n], the names as the data has them.

    Returns:
        String[n]: `train`, `validation`, `test`, or null for null and for a name that means none of these.
    """
    splits = {name: split_of(name) for name in names.unique().drop_nulls()}
    return names.replace_strict(splits, default=None, return_dtype=pl.String)


def given_splits(names: pl.Series) -> pl.Series | None:
    """The splits that the data came with, as train, validation or test; None when no row is in a held-out one.

    Args:
        names: String[n], as in `standard_splits`; rows without a split or with a name that is none of the usual ones
            for held-out data are training rows.
    """
    splits = standard_splits(names).fill_null(TRAIN)
    return splits if splits.is_in(HELD_OUT).any() else None
