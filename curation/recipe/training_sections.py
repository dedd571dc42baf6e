"""The sections of a recipe about training and comparing arms."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from siftune.curation.recipe.arm_sections import ArmName, SelectedArm, StageArm, kind_of_arm
from siftune.curation.recipe.sections import FormatName, Section, Share, check_endpoint


class Model(Section):
    """The base model that the arms adapt."""

    name: str = Field(
        "smollm2",
        description="A hub name, a folder or .gguf file (relative to the recipe), or `smollm2` (SmolLM2-135M-Instruct "
        "from its package).",
    )
    load: Literal["nf4", "bf16", "fp32"] = Field(
        "nf4",
        description="nf4: 4-bit, double quantisation (QLoRA, arXiv 2305.14314); bf16, fp32: plain LoRA.",
    )
    revision: str | None = Field(None, description="A hub revision to pin.")
    system: Literal["keep", "fold"] = Field(
        "keep",
        description="System turns of the rows and of chats: `fold` puts their text at the head of the user's turn, for "
        "chat templates that take no system turn (Gemma). Rows that a template cannot write are left out and counted.",
    )


class Budget(Section):
    """The training budget of every arm: exactly one of these."""

    tokens: int | None = Field(None, gt=0, description="Trained (completion) tokens.")
    steps: int | None = Field(None, gt=0, description="Optimiser steps.")
    epochs: float | None = Field(None, gt=0, description="Passes over the rows of the arm.")
    minutes: float | None = Field(None, gt=0, description="Minutes of wall clock.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name in ("tokens", "steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"set exactly one of tokens, steps, epochs, minutes; found {' and '.join(given) or 'none'}"
            )
        return self


class Lora(Section):
    """The LoRA adapter. Defaults of the QLoRA paper (arXiv 2305.14314, table 9 and section 4)."""

    rank: int = Field(64, gt=0, description="Rank r.")
    alpha: int = Field(16, gt=0, description="Scaling alpha.")
    dropout: Share = Field(0.1, description="Dropout on the adapter's input.")
    targets: list[str] | Literal["all-linear"] = Field("all-linear", description="Modules that are adapted.")


class Training(Section):
    """Fine-tuning of the arms. Defaults of the QLoRA paper where it states one."""

    arms: list[
        Annotated[
            Annotated[ArmName, Tag("member-name")]
            | Annotated[StageArm, Tag("member-table")]
            | Annotated[SelectedArm, Tag("member-selection")],
            Discriminator(kind_of_arm),
        ]
    ] = Field(
        ["raw", "curated", "random"],
        min_length=1,
        description="The arms to train, by name; or by stage, as `{name: no-balance, without: [balance]}` or "
        "`{name: dedup-only, with: [exact, near]}`; or by selection, as "
        "`{name: diverse, select: {by: coverage, share: 0.2}}`.",
    )
    budget: Budget = Field(Budget(tokens=200_000), description=Budget.__doc__)
    seeds: list[int] = Field(
        [0, 1, 2],
        min_length=1,
        description="Each arm is trained once for each seed. The verdict needs two seeds or more; five are better.",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate (QLoRA: 2e-4 up to 13B).")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="The learning rate after the warm-up: down to zero (linear, cosine), or constant."
    )
    average_last: Share = Field(
        0.0,
        description="The adapter is the mean of its weights over this share of the steps, the last ones "
        "(arXiv 1803.05407); 0: the weights of the last step.",
    )
    warmup: Share = Field(0.03, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(0.3, gt=0, description="Gradient clipping.")
    neftune: float | None = Field(None, gt=0, description="Noise on embeddings (NEFTune, arXiv 2310.05914).")
    batch_rows: int = Field(16, gt=0, description="Rows per optimiser step.")
    micro_rows: int = Field(4, gt=0, description="Rows per forward pass; the rest is gradient accumulation.")
    max_length: int = Field(512, gt=8, description="The most tokens of a row; longer rows are truncated, and counted.")
    checkpoint_steps: int = Field(25, gt=0, description="Steps between checkpoints.")
    lora: Lora = Field(Lora(), description=Lora.__doc__)
    report_to: list[Literal["trackio", "tensorboard", "wandb"]] = Field(
        [], description="Trackers that are fed besides the log."
    )

    @property
    def arm_names(self) -> list[str]:
        """The names of all arms, in their order; the controls of a selected arm come behind it."""
        names: list[str] = []
        for arm in self.arms:
            names.append(arm.name if isinstance(arm, (StageArm, SelectedArm)) else arm)
            names += arm.control_names if isinstance(arm, SelectedArm) else []
        return names

    @property
    def stage_arms(self) -> list[StageArm]:
        """The arms by stage."""
        return [arm for arm in self.arms if isinstance(arm, StageArm)]

    @property
    def selected_arms(self) -> list[SelectedArm]:
        """The arms by selection."""
        return [arm for arm in self.arms if isinstance(arm, SelectedArm)]

    @model_validator(mode="after")
    def _distinct_arms(self) -> Training:
        for name in dict.fromkeys(self.arm_names):
            if self.arm_names.count(name) > 1:
                raise ValueError(f"two arms have the name {name!r}; each needs its own, since files are named by it")
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> Training:
        if self.batch_rows % self.micro_rows:
            raise ValueError(f"batch_rows ({self.batch_rows}) is not a multiple of micro_rows ({self.micro_rows})")
        return self


class Prompt(Section):
    """A prompt of the prompt suite, with checks of its answer."""

    text: str = Field(min_length=1, description="The prompt.")
    name: str | None = Field(None, description="A short name. Default: its first words.")
    max_sentences: int | None = Field(None, gt=0, description="The most sentences of a correct answer.")
    expect: str | None = Field(None, description="A word or number that a correct answer contains.")
    forbid: str | None = Field(None, description="A regular expression that a correct answer does not match.")


class Task(Section):
    """A set of questions that every arm and seed answers: an outcome besides held-out loss."""

    path: str = Field(description="As in `sources`; of kind `lm-eval` the name of a task or group of tasks.")
    name: str | None = Field(
        None,
        pattern=r"^[\w-][\w.-]*$",
        description="Its name in tables and its folder in the run. Default: the file name without its ending.",
    )
    kind: Literal["choice", "exact", "regex", "number", "ifeval", "lm-eval"] = Field(
        "choice",
        description="choice: the probability of the right choice's text among the texts of all choices. exact: the "
        "answer is the expected text. regex: the expected regular expression occurs in the answer. number: the last "
        "number of the answer is the expected one. ifeval: the answer follows all instructions (extra `eval`). "
        "lm-eval: a task of lm-evaluation-harness (extra `eval`), whose data come from the hub.",
    )
    include: str | None = Field(
        None, description="Of kind `lm-eval`: a folder with tasks of one's own, relative to the recipe."
    )
    primary: bool = Field(
        False, description="Whether this outcome, in place of held-out loss, is the one that the verdict is about."
    )
    subjects: list[str] | Literal["mmlu-15"] = Field(
        [],
        description="Only items of these clusters; all by default. `mmlu-15`: the 15 subjects of MMLU in which small "
        "models differ most.",
    )
    cluster: str | None = Field(
        None,
        description="The column that says which items belong together (a subject, a document); they are resampled "
        "together. Default: `subject` where there is such a column, else every item by itself.",
    )
    max_items: int | None = Field(None, gt=0, description="The most items, drawn at random with the recipe's seed.")
    max_new_tokens: int | None = Field(
        None, gt=0, description="The most tokens of an answer. Default: that of `compare`."
    )
    format: FormatName = Field("auto", description="As in `sources`.")
    columns: dict[str, str] = Field({}, description="As in `sources`.")

    @model_validator(mode="after")
    def _folder_of_harness(self) -> Task:
        if self.include is not None and self.kind != "lm-eval":
            raise ValueError("`include` is a folder of tasks for `kind: lm-eval`; other kinds read the file in `path`")
        return self

    @property
    def label(self) -> str:
        """Its name, or what stands for it: the file name up to its first dot."""
        return self.name or re.sub(r"[^\w-]+", "-", PurePath(self.path).name.partition(".")[0]) or "task"


class AnswerJudge(Section):
    """A model behind an OpenAI-compatible server that compares the answers of two arms, in both orders."""

    endpoint: str = Field(
        description="The address of the server, to where `/chat/completions` begins, such as "
        "`http://127.0.0.1:8000/v1`. It receives prompts and answers."
    )
    model: str = Field(min_length=1, description="The name of the model on that server.")
    key_variable: str | None = Field(
        None, description="The environment variable that holds the server's key. The key itself is stored nowhere."
    )
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for the server.")
    heldout_prompts: int = Field(
        0,
        ge=0,
        description="Held-out prompts that every arm answers for the judge, besides the prompt suite; drawn at random "
        "from the rows with one turn and no system prompt.",
    )

    @field_validator("endpoint")
    @classmethod
    def _address(cls, endpoint: str) -> str:
        check_endpoint(endpoint)
        return endpoint


class Compare(Section):
    """How the trained arms are evaluated and compared."""

    bootstrap: int = Field(10_000, ge=1_000, description="Resamples of the cluster bootstrap.")
    permutations: int = Field(10_000, ge=1_000, description="Permutations of the sign-flip test.")
    max_rows: int | None = Field(None, gt=0, description="The most held-out rows to evaluate on.")
    by_topic: bool = Field(
        False, description="Show differences by topic too, for `topics` with at least 20 held-out rows."
    )
    prompts: list[Prompt] = Field([], description="Prompts in addition to the ten of the default suite.")
    default_prompts: bool = Field(True, description="Whether the default suite is included.")
    max_new_tokens: int = Field(200, gt=0, description="The most tokens of an answer.")
    tasks: list[Task] = Field([], description="Outcomes besides held-out loss; docs/tasks.md describes them.")
    judge: AnswerJudge | None = Field(None, description=AnswerJudge.__doc__)

    @field_validator("tasks")
    @classmethod
    def _distinct_tasks(cls, tasks: list[Task]) -> list[Task]:
        labels = [task.label for task in tasks]
        for label in sorted(set(labels)):
            if labels.count(label) > 1:
                raise ValueError(f"two tasks have the name {label!r}; give each a `name` of its own")
        if sum(task.primary for task in tasks) > 1:
            raise ValueError("more than one task is `primary`; the verdict is about one outcome")
        return tasks
