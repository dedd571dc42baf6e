"""The arms that a recipe describes: by stage, and by selection from the curated training rows."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from siftune.curation.recipe.sections import FormatName, Section, Share, StageName

ArmName = Literal["raw", "curated", "random", "random-2", "balanced-random", "longest", "base"]
#: The draws that a selected arm is compared with: as many rows as it has, from the rows that it chose from.
Control = Literal["random", "balanced-random"]

_ARM_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_RESERVED_ARM_NAMES = (*get_args(ArmName), "train", "validation", "test")


class NamedArm(Section):
    """An arm that a recipe describes."""

    name: str = Field(description="The name of the arm: lower-case letters, digits and hyphens.")

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if name in _RESERVED_ARM_NAMES:
            raise ValueError(
                f"the name {name!r} is taken: {', '.join(_RESERVED_ARM_NAMES)} are arms and splits of every run; "
                "choose another, such as no-balance"
            )
        if not _ARM_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name an arm: write a letter and then letters, digits and hyphens, all in lower case "
                "and at most 40, such as no-balance"
            )
        return name


class StageArm(NamedArm):
    """An arm by stage: what curation keeps when some of its stages do not decide."""

    model_config = ConfigDict(serialize_by_alias=True)

    without: list[StageName] | None = Field(
        None, min_length=1, description="The stages that do not decide, while all others do. Or:"
    )
    only: list[StageName] | None = Field(
        None, min_length=1, alias="with", description="The stages that decide, while no other does."
    )

    @model_validator(mode="after")
    def _one_list(self) -> StageArm:
        if (self.without is None) == (self.only is None):
            raise ValueError(f"the arm {self.name!r} needs a list of stages, `without: […]` or `with: […]`, not both")
        return self


class _Selection(Section):
    """How rows are chosen from the curated training rows: so many, or such a share of them."""

    rows: int | None = Field(None, gt=0, description="How many rows are chosen. Or:")
    share: float | None = Field(None, gt=0, le=1, description="The share of the rows that is chosen.")
    needs_size: ClassVar[bool] = True

    @model_validator(mode="after")
    def _one_size(self) -> _Selection:
        given = sum(value is not None for value in (self.rows, self.share))
        if given > 1 or (self.needs_size and not given and getattr(self, "take", "") != "range"):
            raise ValueError("set `rows`, how many are chosen, or `share`, such as 0.2, and not both")
        return self


class CoverageSelection(_Selection):
    """Rows that cover the others: facility location over embeddings, with the quality of a column (QDIT)."""

    by: Literal["coverage"] = Field(description="The selector.")
    text: Literal["prompt", "dialogue"] = Field("prompt", description="The text whose embeddings are covered.")
    quality: str | None = Field(
        None, description="A column of the rows with numbers, higher is better; `a.b` is `b` inside `a`."
    )
    alpha: Share = Field(0.5, description="The weight of quality, where there is one: (1 − α) · gain + α · quality.")


class TargetedSelection(_Selection):
    """Rows that resemble examples of a task, the examples taking turns (RDS+)."""

    by: Literal["targeted"] = Field(description="The selector.")
    examples: str = Field(description="A file with 10 to 500 examples of the task, as a `path` in `sources`.")
    format: FormatName = Field("auto", description="As in `sources`.")
    columns: dict[str, str] = Field({}, description="As in `sources`.")
    text: Literal["prompt", "dialogue"] = Field("prompt", description="The text that is compared with the examples.")


class ScoreSelection(_Selection):
    """Rows by a score that they came with."""

    by: Literal["score"] = Field(description="The selector.")
    column: str = Field(description="The column with the numbers; `a.b` is `b` inside `a`.")
    take: Literal["top", "range", "stratified"] = Field(
        "top",
        description="top: the rows of the highest score. range: the rows from `low` to `high`, all of them or drawn at "
        "random. stratified: the rows of the highest score of each stratum, in the proportions of the strata.",
    )
    low: float | None = Field(None, description="Rows of a lower score are left out.")
    high: float | None = Field(None, description="Rows of a higher score are left out.")
    strata: Literal["source", "length"] = Field(
        "source", description="For `stratified`: sources, or bins of the answer's length in words."
    )

    @model_validator(mode="after")
    def _bounds(self) -> ScoreSelection:
        if self.take == "range" and self.low is None and self.high is None:
            raise ValueError("`take: range` needs `low`, `high` or both, the bounds of the score")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


AnySelection = CoverageSelection | TargetedSelection | ScoreSelection


def _kind_of_selection(value: Any) -> str:
    by = value.get("by") if isinstance(value, dict) else getattr(value, "by", None)
    return f"member-{by}"


class SelectedArm(NamedArm):
    """An arm by selection: a part of the curated training rows, and controls of the same size."""

    select: Annotated[
        Annotated[CoverageSelection, Tag("member-coverage")]
        | Annotated[TargetedSelection, Tag("member-targeted")]
        | Annotated[ScoreSelection, Tag("member-score")],
        Discriminator(
            _kind_of_selection,
            custom_error_type="selector",
            custom_error_message="`select` is a table with `by: coverage`, `by: targeted` or `by: score`",
        ),
    ] = Field(description="How the rows are chosen; docs/selection.md describes each selector.")
    controls: list[Control] = Field(
        ["random", "balanced-random"],
        description="Draws of as many rows from the same rows, which are trained and compared as `NAME-CONTROL`.",
    )

    @property
    def control_names(self) -> dict[str, Control]:
        """The arms that it is compared with, by name."""
        return {f"{self.name}-{control}": control for control in dict.fromkeys(self.controls)}


def kind_of_arm(value: Any) -> str:
    """The tag of an arm in a recipe: a name, or a table by stage or by selection."""
    if isinstance(value, SelectedArm) or (isinstance(value, dict) and "select" in value):
        return "member-selection"
    return "member-table" if isinstance(value, (dict, StageArm)) else "member-name"
