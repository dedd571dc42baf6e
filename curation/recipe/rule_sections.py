"""The rules of `siftune check`: what data must not have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from siftune.curation.recipe.sections import Section, Share

Count = Annotated[int, Field(ge=0)]
CheckName = Literal[
    "empty_answer",
    "placeholder_answer",
    "truncated_answer",
    "copied_answer",
    "refusal",
    "encoding",
    "template_tokens",
    "length",
    "language",
    "email",
    "phone",
    "iban",
    "card",
    "ip_address",
    "secret",
]


class FailIf(Section):
    """Rules of `siftune check`, which ends with exit code 1 when one is broken. A rate is a share of all input rows."""

    quarantined_rate: Share | None = Field(None, description="At most this share of the rows cannot be read.")
    exact_rate: Share | None = Field(None, description="At most this share is dropped as exact duplicates.")
    near_rate: Share | None = Field(None, description="At most this share is dropped as near duplicates.")
    semantic_rate: Share | None = Field(None, description="At most this share is dropped as semantic duplicates.")
    duplicate_rate: Share | None = Field(
        None, description="At most this share is dropped by all stages together that compare rows with rows."
    )
    conflict_rate: Share | None = Field(
        None, description="At most this share has the prompt of an earlier row and another answer."
    )
    dropped_rate: Share | None = Field(None, description="At most this share is dropped, for whatever reason.")
    checks: dict[CheckName, Share] = Field(
        {}, description="For a row check, such as `refusal: 0.01`: at most this share is reported, repaired or dropped."
    )
    leaked: Count | None = Field(
        None,
        description="At most so many rows leak: dropped for a row of another split that the data came with, or similar "
        "to a row of another split of the curated set. Needs `splits`.",
    )
    random_split_leak_rate: Share | None = Field(
        None,
        description="At most this share of the test rows of a random split would resemble a training row, by the "
        "measure that finds the most. Needs `splits`.",
    )
    contaminated: Count | None = Field(
        None, description="At most so many rows hold an item of a benchmark. Needs `contamination.references`."
    )
    related: Count | None = Field(None, description="At most so many other rows hold a related task. Needs the same.")
    kept_below: Count | None = Field(None, description="At least so many rows are kept.")

    @property
    def rules(self) -> dict[str, float]:
        """The limits by the name of the rule; a row check is `checks.NAME`."""
        limits = {name: value for name, value in self.model_dump(exclude={"checks"}).items() if value is not None}
        return limits | {f"checks.{name}": share for name, share in self.checks.items()}
