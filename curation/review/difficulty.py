"""Instruction-following difficulty as it is reported: its distribution, and the rows whose answer needs no prompt."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import polars as pl

from siftune.curation.checksums import checksum
from siftune.curation.run.folder import RunFolder
from siftune.curation.schema import IFD

#: From here on the prompt makes the answer no more probable.
INDEPENDENT = 1.0
_MOST_ROWS = 20
_SNIPPET = 100  # characters of an answer

#: What is known of where the measure fails, wherever it is shown.
KNOWN_FAILURES = (
    "IFD is reported and chooses nothing. Code and other answers with a fixed form have low values whatever their "
    "worth; short answers have extreme ones, since a few tokens decide; sources differ by their style more than by "
    "their quality, so values are to be compared inside of a source and a length. Selecting by it helped in chat and "
    "cost skills (docs/selection.md)."
)


@dataclass(frozen=True)
class IfdSummary:
    """IFD of the rows of an arm.

    Attributes:
        sentence: what was measured and the outcome.
        by_source: source, rows, median IFD, median tokens, rows at or above 1.
        independent: id, ifd, tokens and the answer's beginning of the rows at or above 1, the highest first, at most
            20.
    """

    sentence: str
    by_source: pl.DataFrame
    independent: pl.DataFrame


def ifd_summary(run: RunFolder) -> IfdSummary | None:
    """The IFD that the run holds; None before it was measured. Of an arm that has other rows now nothing is shown."""
    if not run.ifd_path.is_file():
        return None
    notes = pl.read_parquet_metadata(run.ifd_path)
    arm = run.arm(notes["arm"])
    if not arm.is_file() or checksum(arm) != notes["rows"]:
        again = f"{notes['arm']} has other rows than when IFD was measured. Measure again: siftune ifd {run.path}"
        return IfdSummary(again, pl.DataFrame(), pl.DataFrame())
    stored = pl.read_parquet(run.ifd_path, columns=list(IFD), glob=False)
    rows = stored.join(run.rows().select("id", "source"), on="id", how="inner", maintain_order="left")
    measured = rows.filter(pl.col("ifd").is_not_null())
    independent = pl.col("ifd") >= INDEPENDENT
    by_source = measured.group_by("source").agg(
        pl.len().alias("rows"),
        pl.col("ifd").median().alias("median"),
        pl.col("tokens").median().cast(pl.Int64).alias("tokens"),
        independent.sum().alias("independent"),
    )
    texts = pl.scan_parquet(run.texts, glob=False).select("id", answer=pl.col("answer").str.head(_SNIPPET))
    highest = measured.filter(independent).sort("ifd", "id", descending=[True, False]).head(_MOST_ROWS)
    highest = highest.join(texts.join(highest.lazy().select("id"), on="id").collect(), on="id", maintain_order="left")
    return IfdSummary(
        sentence=_sentence(notes, rows, measured),
        by_source=by_source.sort("median", "source", descending=[True, False]),
        independent=highest.select("id", "ifd", "tokens", "answer"),
    )


def _sentence(notes: dict[str, str], rows: pl.DataFrame, measured: pl.DataFrame) -> str:
    count = int((measured["ifd"] >= INDEPENDENT).sum())
    cut = measured["note"].count()
    left_out = rows.height - measured.height
    correlation = measured.select(pl.corr("ifd", "tokens", method="spearman")).item()
    by_length = ""
    if correlation is not None and not isnan(correlation):  # of one row, or of equal values
        by_length = f" Its rank correlation with the length of the answer is {correlation:.2f}."
    counted = f"{cut:,} answers were cut to fit into {notes['max_length']} tokens" if cut else "no answer was cut"
    counted += f", {left_out:,} rows have none" if left_out else ""
    median = measured.select(pl.median("ifd")).item()
    return (
        f"{measured.height:,} rows of {notes['arm']} under the untrained {notes['model']}, without a chat template: "
        f"median IFD {median:.2f}; {count:,} rows at or above {INDEPENDENT:g}, where the answer does "
        f"not depend on the prompt ({counted}).{by_length}"
    )
