"""The sections of a recipe: one YAML file describes everything that a run does. An unknown key is an error.

Every parameter is documented once, under its field; the commented starting recipe and the JSON Schema come from here.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(gt=0.0, le=1.0)]
Severity = Literal["off", "report", "drop"]
SystemPrompts = Literal["distinguish", "ignore"]
GuardClass = Literal["numbers", "operators", "identifiers", "negations", "questions"]
Rule = Literal[
    "layered",
    "gpt3-13gram",
    "palm-8gram",
    "llama2-skipgram",
    "llama3-token-ratio",
    "tulu3-8gram",
    "qwen2-lcs",
    "decon",
]
ArmName = Literal["raw", "curated", "random", "random-2", "balanced-random", "longest", "base"]
#: What an arm by stage can leave out: the stages of `siftune.curation.stages`, and `balance`. Splits always decide.
StageName = Literal[
    "checks", "exact", "prefixes", "near", "answers", "conflicts", "semantic", "contamination", "balance"
]
FormatName = Literal[
    "auto",
    "alpaca",
    "sharegpt",
    "messages",
    "prompt_completion",
    "question_answer",
    "preference",
    "marked_text",
    "text",
]


class Section(BaseModel):
    """A part of the recipe: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Source(Section):
    """A source of rows."""

    path: str = Field(
        description="A file (json, jsonl, csv, tsv, parquet, arrow; also .gz, .zst), a folder of such files, a glob, "
        "a `datasets.save_to_disk` folder, or `hf://owner/name`. Relative to the recipe."
    )
    name: str | None = Field(
        None, description="The prefix of its rows' ids. Default: the file name without its ending."
    )
    format: FormatName = Field("auto", description="The format of its rows; `auto` detects it from the columns.")
    columns: dict[str, str] = Field(
        {}, description="Which column of the file plays which role, as `role: column`, where names are unusual."
    )
    roles: dict[str, Literal["user", "assistant", "system", "tool"]] = Field(
        {}, description="What unusual roles of dialogues mean, as `name: user` (or assistant, system, tool)."
    )
    split: str | None = Field(
        None, description="The split of all its rows (train, validation, test). Default: what the rows say."
    )
    source_column: str | None = Field(
        None,
        description="The column of a mixture that says which data set a row is from: rows then count as source "
        "`NAME/VALUE` in strata, caps, templates and tables. Ids do not change.",
    )
    limit: int | None = Field(None, gt=0, description="The most rows to read.")


class Keys(Section):
    """Which text of a row is compared."""

    duplicates: Literal["prompt", "dialogue"] = Field(
        "dialogue", description="The text in which duplicates are searched for."
    )
    leaks: Literal["prompt", "dialogue"] = Field("prompt", description="The text in which leaks are searched for.")
    template_rows: int = Field(
        50, ge=2, description="Eight consecutive prompt words that occur in at least this many rows of a source, and"
    )
    template_share: Share = Field(
        0.002, description="in at least this share of its rows, are a template and are left out of the compared text."
    )


class Checks(Section):
    """Checks of each row by itself, before rows are compared: off, report or drop."""

    empty_answer: Severity = Field("drop", description="The last answer has no letter or digit.")
    placeholder_answer: Severity = Field(
        "report", description="The answer is what tables write into an empty cell: nan, None, null, N/A."
    )
    truncated_answer: Severity = Field(
        "report", description="The answer stops in the middle of a sentence or a code block."
    )
    copied_answer: Severity = Field("report", description="The answer repeats the prompt.")
    refusal: Severity = Field("report", description="The answer refuses, or calls itself a language model.")
    encoding: Literal["off", "report", "repair", "drop"] = Field(
        "repair",
        description="Text decoded with the wrong encoding; `repair` repairs it with ftfy and records it in the ledger.",
    )
    template_tokens: Severity = Field(
        "report", description="Role markers such as <|im_start|> or [INST] inside a text."
    )
    length: Severity = Field("report", description="A prompt or an answer longer than `max_words`.")
    max_words: int = Field(4096, gt=0, description="The most words a prompt or an answer may have.")
    language: Severity = Field("off", description="The row is in none of `languages`.")
    languages: list[str] = Field(["en"], description="ISO 639-1 codes of the languages to keep.")


def _check_floor(section: Any) -> Any:
    if section.floor > section.threshold:
        raise ValueError(
            f"floor ({section.floor}) is above threshold ({section.threshold}); it must be at most the threshold"
        )
    return section


class Near(Section):
    """Near duplicates: Jaccard similarity of word shingles, of prompts and of answers."""

    threshold: Threshold = Field(
        0.6, description="Rows are duplicates whose prompts and whose answers are at least this similar, and"
    )
    answers: Threshold = Field(
        0.8, description="whose answers are at least this similar (the prompts, where only prompts are compared)."
    )
    floor: Threshold = Field(0.5, description="Pairs at least this similar are stored, for `what-if` and the app.")
    shingle: int = Field(3, ge=1, le=13, description="Words per shingle.")
    permutations: int = Field(128, ge=16, le=1024, description="Number of MinHash permutations.")

    @model_validator(mode="after")
    def _floor_below_threshold(self) -> Near:
        return _check_floor(self)


class Semantic(Section):
    """Semantic duplicates: cosine of sentence embeddings, of prompts and of answers."""

    threshold: Threshold = Field(
        0.9, description="Rows are duplicates whose prompts and whose answers are at least this similar."
    )
    floor: Threshold = Field(0.8, description="Pairs at least this similar are stored, for `what-if` and the app.")
    rows: Threshold = Field(
        0.95, description="Only rows that are at least this similar as a whole are compared side by side."
    )
    exact_rows: int = Field(
        200_000, ge=0, description="Up to this many rows the search is exact; above, approximate by an index."
    )
    preselect: bool = Field(
        True,
        description="Encode prompts first, and of whole rows only those whose prompt resembles another one; of these "
        "first the rows that share the most rare words with another row, until the rest is estimated to hold less than "
        "1 % of the pairs. False: encode every row.",
    )

    @model_validator(mode="after")
    def _floor_below_threshold(self) -> Semantic:
        return _check_floor(self)


class Answers(Section):
    """Repeated answers: the same answer, exactly or nearly, to many different prompts."""

    max_per_answer: int = Field(5, ge=1, description="The most rows that may share an answer.")
    threshold: Threshold = Field(0.9, description="Answers with at least this Jaccard similarity are the same.")
    floor: Threshold = Field(0.8, description="Pairs at least this similar are stored.")
    min_words: int = Field(12, ge=1, description="Shorter answers ('yes', a label, a number) may repeat without limit.")

    @model_validator(mode="after")
    def _floor_below_threshold(self) -> Answers:
        return _check_floor(self)


class Duplicates(Section):
    """How duplicates are found. A stage set to null is left out."""

    guard: list[GuardClass] = Field(
        ["numbers", "operators", "identifiers", "negations", "questions"],
        description="Rows that differ in words of these classes are not duplicates. `questions`, for near duplicates: "
        "each prompt has a word that the other lacks, and the answers are short or differ too. Empty list: no guard.",
    )
    system: SystemPrompts = Field(
        "distinguish", description="Whether rows with different system prompts are different examples."
    )
    exact: bool = Field(True, description="Drop rows with the same normalised prompt and answer.")
    prefixes: bool = Field(
        True,
        description="Drop rows whose dialogue is the beginning of another row's, word for word: the longest stays.",
    )
    near: Near | None = Field(Near(), description=Near.__doc__)
    answers: Answers | None = Field(Answers(), description=Answers.__doc__)
    semantic: Semantic | None = Field(None, description=Semantic.__doc__)
    conflicts: Severity = Field("report", description="The same prompt with different answers.")


class Reference(Section):
    """A benchmark, or any other data that must not be trained on."""

    path: str = Field(description="As in `sources`.")
    name: str | None = Field(None, description="Its name in matches. Default: the file name without its ending.")
    format: FormatName = Field("auto", description="As in `sources`.")
    columns: dict[str, str] = Field({}, description="As in `sources`.")


def _check_endpoint(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValueError("`endpoint` is an http(s) address without user name and key, such as http://127.0.0.1:8000/v1")


class SecondOpinion(Section):
    """A model that is asked about items in other words, in both orders; it overrules matches and never adds any."""

    cross_encoder: str | None = Field(
        None,
        description="A cross-encoder of sentence-transformers that gives one score: a folder or a hub name. Instead of "
        "`endpoint`.",
    )
    threshold: Threshold = Field(0.5, description="The lowest score of the cross-encoder that says the same task.")
    endpoint: str | None = Field(
        None,
        description="The address of an OpenAI-compatible server, to where `/chat/completions` begins, such as "
        "`http://127.0.0.1:8000/v1`. It receives the texts of the rows that are asked about.",
    )
    model: str | None = Field(None, description="The name of the model on that server.")
    key_variable: str | None = Field(
        None, description="The environment variable that holds the server's key. The key itself is stored nowhere."
    )
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for the server.")

    @model_validator(mode="after")
    def _one_model(self) -> SecondOpinion:
        if (self.cross_encoder is None) == (self.endpoint is None):
            raise ValueError("set exactly one of `cross_encoder` and `endpoint`")
        if self.endpoint is not None:
            _check_endpoint(self.endpoint)
            if self.model is None:
                raise ValueError("`endpoint` needs `model`, the name of the model on that server")
        return self


class Contamination(Section):
    """Contamination: rows that match items of a benchmark."""

    references: list[Reference] = Field([], description=Reference.__doc__)
    rules: list[Rule] = Field(["layered"], min_length=1, description="The rules; a match by any of them counts.")
    token_ratios: dict[str, Threshold] = Field(
        {},
        description="For `llama3-token-ratio`: the share of an item's words from which it counts as contaminated, by "
        "the name of the reference. Default: 0.8.",
    )
    threshold: float = Field(
        0.5,
        ge=0.5,
        le=1,
        description="The lowest score at which `layered` counts a row as an item in other words. Higher values drop "
        "fewer rows that only resemble an item, and miss more paraphrases.",
    )
    max_false_discovery: Share | None = Field(
        0.1,
        description="The greatest estimated share of false matches among a benchmark's paraphrases: where decoys say "
        "that it is greater, the threshold of that benchmark is raised. Null: `threshold` alone decides.",
    )
    action: Literal["report", "drop"] = Field("drop", description="What happens to a row that holds an item.")
    related: Literal["report", "drop", "off"] = Field(
        "report",
        description="What happens to a row that holds a related task: other numbers, a part of an item, a harder "
        "variant.",
    )
    verify: SecondOpinion | None = Field(None, description=SecondOpinion.__doc__)


class Splits(Section):
    """Training and held-out splits, with no similar pair of rows across them, and none inside another."""

    test: float = Field(0.05, ge=0, description="Size of the test set: a share below 1, or a number of rows.")
    validation: float = Field(0.0, ge=0, description="Size of the validation set, in the same way.")
    near: Threshold = Field(0.6, description="The leak threshold in Jaccard similarity of word shingles.")
    semantic: Threshold = Field(0.9, description="The leak threshold in cosine similarity, where there is an encoder.")
    yield_to: Literal["eval", "train"] = Field(
        "eval",
        description="Where the data has splits and rows leak: `eval` drops training rows, `train` held-out ones.",
    )


class Balance(Section):
    """Balance of instruction lengths."""

    bins: int = Field(12, ge=2, le=100, description="Number of bins of instruction length.")
    spacing: Literal["log", "quantile"] = Field("log", description="How bin edges are chosen.")
    target: Literal["uniform", "temperature", "reference"] = Field(
        "temperature", description="The target distribution over bins."
    )
    temperature: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The target is proportional to share^temperature: 1 keeps the distribution, 0 is uniform.",
    )
    reference: str | None = Field(None, description="A file whose length distribution is the target.")
    rows: int | None = Field(None, gt=0, description="Budget in rows.")
    tokens: int | None = Field(None, gt=0, description="Budget in instruction and answer tokens.")
    max_per_source: int | None = Field(None, gt=0, description="The most rows of one source.")
    by_turns: bool = Field(False, description="Separate bins for single-turn and multi-turn rows.")
    repeat: bool = Field(False, description="Whether a bin with too few rows may repeat them.")

    @model_validator(mode="after")
    def _needs(self) -> Balance:
        if self.target == "reference" and self.reference is None:
            raise ValueError("target 'reference' needs `reference:`, a file whose length distribution is the target")
        if self.rows is not None and self.tokens is not None:
            raise ValueError("set `rows` or `tokens`, not both")
        return self


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


_ARM_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_RESERVED_ARM_NAMES = (*get_args(ArmName), "train", "validation", "test")


class StageArm(Section):
    """An arm by stage: what curation keeps when some of its stages do not decide."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(description="The name of the arm: lower-case letters, digits and hyphens.")
    without: list[StageName] | None = Field(
        None, min_length=1, description="The stages that do not decide, while all others do. Or:"
    )
    only: list[StageName] | None = Field(
        None, min_length=1, alias="with", description="The stages that decide, while no other does."
    )

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

    @model_validator(mode="after")
    def _one_list(self) -> StageArm:
        if (self.without is None) == (self.only is None):
            raise ValueError(f"the arm {self.name!r} needs a list of stages, `without: […]` or `with: […]`, not both")
        return self


def _kind_of_arm(value: Any) -> str:
    return "member-table" if isinstance(value, (dict, StageArm)) else "member-name"


class Training(Section):
    """Fine-tuning of the arms. Defaults of the QLoRA paper where it states one."""

    arms: list[
        Annotated[
            Annotated[ArmName, Tag("member-name")] | Annotated[StageArm, Tag("member-table")],
            Discriminator(_kind_of_arm),
        ]
    ] = Field(
        ["raw", "curated", "random"],
        min_length=1,
        description="The arms to train, by name; or by stage, as `{name: no-balance, without: [balance]}` or "
        "`{name: dedup-only, with: [exact, near]}`.",
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
        """The names of all arms, in their order."""
        return [arm.name if isinstance(arm, StageArm) else arm for arm in self.arms]

    @property
    def stage_arms(self) -> list[StageArm]:
        """The arms by stage."""
        return [arm for arm in self.arms if isinstance(arm, StageArm)]

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
        _check_endpoint(endpoint)
        return endpoint


class Compare(Section):
    """How the trained arms are evaluated and compared."""

    bootstrap: int = Field(10_000, ge=1_000, description="Resamples of the cluster bootstrap.")
    permutations: int = Field(10_000, ge=1_000, description="Permutations of the sign-flip test.")
    max_rows: int | None = Field(None, gt=0, description="The most held-out rows to evaluate on.")
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


class Recipe(Section):
    """A recipe: everything that a run does."""

    name: str | None = Field(None, description="Default: the recipe's file name.")
    run: str | None = Field(None, description="The run folder, relative to the recipe. Default: runs/NAME beside it.")
    seed: int = Field(0, ge=0, description="Seed of all random choices but those of training.")
    sources: list[Source] = Field(min_length=1, description="The data, most trusted source first.")
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
    splits: Splits | None = Field(None, description=Splits.__doc__)
    balance: Balance | None = Field(None, description=Balance.__doc__)
    model: Model = Field(Model(), description=Model.__doc__)
    training: Training | None = Field(None, description=Training.__doc__)
    compare: Compare = Field(Compare(), description=Compare.__doc__)

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
        return self

    @model_validator(mode="after")
    def _needs_heldout(self) -> Recipe:
        if self.training and not self.splits:
            raise ValueError("arms are evaluated on held-out rows: add `splits:` (the defaults will do: `splits: {}`)")
        return self
