"""The plan of a sweep: which base models and settings are compared, on which arm, with which seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import load_section
from siftune.curation.recipe.sections import Section
from siftune.curation.recipe.training_sections import Budget, Model, Training


class SettingChanges(Training):
    """Fields of the recipe's `training:` section with other values; a field that is not named stays as it is there."""

    @model_validator(mode="after")
    def _whole_steps(self) -> SettingChanges:
        """In place of the recipe's check, since rows per step are known only together with the recipe."""
        if {"arms", "seeds"} & self.model_fields_set:
            raise ValueError("`arms` and `seeds` are the same for all settings: write `arm:` and `seeds:` beside them")
        return self


class SweepSetting(Section):
    """Changes to the recipe's `training:` section."""

    name: str = Field("recipe", min_length=1, description="How it is called in the table.")
    changes: SettingChanges = Field(
        SettingChanges(),
        description="Fields of `training:` with other values, e.g. {schedule: cosine, lora: {rank: 8}}.",
    )


class SweepPlan(Section):
    """What a sweep compares: each model with each setting, every such cell with the first one."""

    arm: str = Field("curated", description="The arm that every cell is trained on.")
    budget: Budget | None = Field(
        None, description="What every cell may spend where its setting says nothing else. Default: the recipe's."
    )
    models: list[Model] = Field([], description="Base models. Default: the recipe's.")
    settings: list[SweepSetting] = Field([SweepSetting()], min_length=1, description="Settings. Default: the recipe's.")
    seeds: list[int] = Field(
        [0, 1, 2],
        min_length=1,
        description="Every cell is trained once for each seed. With one seed no cell is called better or worse.",
    )
    heldout_rows: int | None = Field(
        100,
        gt=1,
        description="The most held-out rows that losses are computed on, the same for all cells. null: all of them.",
    )
    questions: int = Field(4, ge=0, description="Held-out prompts that each model answers, for the time it takes.")
    max_new_tokens: int = Field(64, gt=0, description="The most tokens of such an answer.")

    @field_validator("settings")
    @classmethod
    def _distinct_settings(cls, settings: list[SweepSetting]) -> list[SweepSetting]:
        if len({setting.name for setting in settings}) < len(settings):
            raise ValueError("two settings have the same name")
        return settings

    @field_validator("models", "seeds")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        if any(value in values[:index] for index, value in enumerate(values)):
            raise ValueError("the same one stands in the list twice")
        return values


def load_plan(path: Path) -> SweepPlan:
    """Read and check a sweep plan (YAML). Raises `UserError` naming every fault, as for recipes."""
    return load_section(path, SweepPlan, kind="sweep plan")


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep plan, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SweepPlan.model_json_schema()}


def apply_setting(base: Training, setting: SweepSetting, budget: Budget | None) -> Training:
    """The recipe's training section with the changes of a setting.

    Args:
        base: The recipe's section.
        setting: What differs. Fields of `lora` that it does not name stay; a budget is replaced whole.
        budget: The budget of the sweep, where the setting has none.

    Raises:
        UserError: the two together are no section that a recipe accepts.
    """
    document = base.model_dump()
    if budget is not None:
        document["budget"] = budget.model_dump()
    for name, value in setting.changes.model_dump(exclude_unset=True).items():
        document[name] = {**document[name], **value} if name == "lora" else value
    try:
        return Training.model_validate(document)
    except ValidationError as fault:
        messages = " ".join(error["msg"].removeprefix("Value error, ") for error in fault.errors())
        raise UserError(
            f"Setting {setting.name!r} of the sweep does not go with the recipe: {messages}. Change the setting, or "
            "`training:` in the recipe."
        ) from None
