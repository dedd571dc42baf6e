"""The recipe: one YAML file describes everything that a run does. An unknown key is an error."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from siftune.curation.recipe.rule_sections import FailIf
from siftune.curation.recipe.sections import (
    Balance,
    Checks,
    Contamination,
    Duplicates,
    Engine,
    EngineSettings,
    Keys,
    NamedSet,
    Section,
    Source,
    Splits,
    Topics,
)
from siftune.curation.recipe.training_sections import Compare, Model, Training


class Recipe(Section):
    """A recipe: everything that a run does."""

    name: str | None = Field(None, description="Default: the recipe's file name.")
    run: str | None = Field(None, description="The run folder, relative to the recipe. Default: runs/NAME beside it.")
    seed: int = Field(0, ge=0, description="Seed of all random choices but those of training.")
    sources: list[Source] = Field(min_length=1, description="The data, most trusted source first.")
    against: list[NamedSet] = Field(
        [],
        description="Runs (their folders) or data sets that are curated already: new rows are compared with theirs, "
        "which stay as they are and are in no arm of this run. See docs/incremental.md.",
    )
    keep: list[Literal["source", "answer", "row"]] = Field(
        ["source", "answer", "row"],
        description="Which of two duplicates is kept: earlier source, longer answer, earlier row; in this order.",
    )
    keys: Keys = Field(Keys(), description=Keys.__doc__)
    checks: Checks = Field(Checks(), description=Checks.__doc__)
    duplicates: Duplicates = Field(Duplicates(), description=Duplicates.__doc__)
    encoder: str | None = Field(
        "auto",
        description="A sentence-transformers model by hub name or folder (relative to the recipe); `auto`: "
        "all-MiniLM-L6-v2, or none where sentence-transformers is not installed; null: none.",
    )
    contamination: Contamination | None = Field(None, description=Contamination.__doc__)
    topics: Topics | None = Field(None, description=Topics.__doc__)
    splits: Splits | None = Field(
        None,
        description=f"{Splits.__doc__} In a recipe that does not mention them, splits that the data came with are kept "
        "apart; null makes all rows training rows.",
    )
    balance: Balance | None = Field(None, description=Balance.__doc__)
    model: Model = Field(Model(), description=Model.__doc__)
    training: Training | None = Field(None, description=Training.__doc__)
    compare: Compare = Field(Compare(), description=Compare.__doc__)
    engine: Engine = Field(EngineSettings(), description="`local`, this machine, or `ray`, a cluster: docs/cluster.md.")
    fail_if: FailIf | None = Field(None, description=FailIf.__doc__)

    @field_validator("sources")
    @classmethod
    def _distinct_names(cls, sources: list[Source]) -> list[Source]:
        names = [source.name for source in sources if source.name]
        for name in sorted(set(names)):
            if names.count(name) > 1:
                raise ValueError(f"two sources have the name {name!r}; each needs its own, since ids begin with it")
        return sources

    @model_validator(mode="after")
    def _needs_encoder(self) -> Recipe:
        if self.duplicates.semantic and self.encoder is None:
            raise ValueError("duplicates.semantic needs an encoder; set `encoder: auto`, or `semantic: null`")
        if self.encoder is None and self.selects_by_embedding:
            raise ValueError("selecting by coverage or by examples needs an encoder; set `encoder: auto`")
        return self

    @model_validator(mode="after")
    def _needs_topics(self) -> Recipe:
        if self.topics and self.encoder is None:
            raise ValueError("topics need an encoder; set `encoder: auto`, or `topics: null`")
        uses = {
            "splits.by_topic": self.splits and self.splits.by_topic,
            "balance.max_per_topic": self.balance and self.balance.max_per_topic,
            "compare.by_topic": self.compare.by_topic,
        }
        for name, is_set in uses.items():
            if is_set and self.topics is None:
                raise ValueError(f"{name} needs topics: add `topics:` (the defaults will do: `topics: {{}}`)")
        return self

    @model_validator(mode="after")
    def _needs_heldout(self) -> Recipe:
        if self.training and not self.splits:
            raise ValueError("arms are evaluated on held-out rows: add `splits:` (the defaults will do: `splits: {}`)")
        return self

    @property
    def selects_by_embedding(self) -> bool:
        """Whether an arm is selected by embeddings."""
        return any(arm.select.by != "score" for arm in self.training.selected_arms) if self.training else False
