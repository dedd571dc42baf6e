"""The recipe: one YAML file holds everything a run does. Strict: an unknown key is an error, with the right one named.

Every parameter is documented once, under its field; the commented starting recipe and the JSON Schema come from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(gt=0.0, le=1.0)]
Severity = Literal["off", "report", "drop"]
GuardClass = Literal["numbers", "operators", "identifiers", "negations"]
Rule = Literal["layered", "gpt3-13gram", "tulu3-8gram", "llama3-token-ratio"]
ArmName = Literal["raw", "curated", "random", "longest", "base"]
FormatName = Literal[
    "auto", "alpaca", "sharegpt", "messages", "prompt_completion", "question_answer", "preference", "text"
]


class Section(BaseModel):
    """A part of the recipe: immutable, and no key it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Source(Section):
    """Where rows come from."""

    path: str = Field(
        description="A file (json, jsonl, csv, tsv, parquet, arrow; also .gz, .zst), a folder of such files, a glob, "
        "a `datasets.save_to_disk` folder, or `hf://owner/name`. Relative to the recipe."
    )
    name: str | None = Field(None, description="How ids of its rows begin. Default: the file's stem.")
    format: FormatName = Field("auto", description="How its rows are read; `auto` decides from the columns.")
    columns: dict[str, str] = Field(
        {}, description="Which of the file's columns plays which role, as `role: column`, when names are unusual."
    )
    split: str | None = Field(
        None, description="The split all its rows belong to (train, validation, test). Default: as the rows say."
    )
    source_column: str | None = Field(
        None,
        description="The column of a mixture that says which set a row is from: rows then count as `NAME/VALUE` in "
        "strata, caps, templates and tables. Ids do not change.",
    )
    limit: int | None = Field(None, gt=0, description="Read only the first rows.")


class Keys(Section):
    """What is compared."""

    duplicates: Literal["prompt", "dialogue"] = Field(
        "dialogue", description="The text in which duplicates are sought."
    )
    leaks: Literal["prompt", "dialogue"] = Field("prompt", description="The text in which leaks are sought.")
    template_rows: int = Field(
        50, ge=2, description="A run of 8 prompt words found in at least this many rows of a source, and …"
    )
    template_share: Share = Field(
        0.002, description="… in at least this share of them is a template, and left out of the compared text."
    )


class Checks(Section):
    """What is looked at in each row before rows are compared: off, report or drop."""

    empty_answer: Severity = Field("drop", description="The last answer has no letter or digit in it.")
    truncated_answer: Severity = Field(
        "report", description="The answer stops in the middle of a sentence or a code block."
    )
    copied_answer: Severity = Field("report", description="The answer repeats the prompt.")
    refusal: Severity = Field("report", description="The answer refuses, or speaks of itself as a language model.")
    encoding: Literal["off", "report", "repair", "drop"] = Field(
        "repair", description="Text broken by a wrong encoding; `repair` mends it with ftfy and says so in the ledger."
    )
    template_tokens: Severity = Field(
        "report", description="Role markers such as <|im_start|> or [INST] inside a text."
    )
    length: Severity = Field("report", description="A prompt or an answer outside of the limits below.")
    max_words: int = Field(4096, gt=0, description="The most words a prompt or an answer may have.")
    language: Severity = Field("off", description="The row is not in one of the languages below.")
    languages: list[str] = Field(["en"], description="ISO 639-1 codes of the languages that are wanted.")


def _floor(section: Any) -> Any:
    if section.floor > section.threshold:
        raise ValueError(f"floor ({section.floor}) lies above threshold ({section.threshold}); it must not")
    return section


class Near(Section):
    """Near duplicates: Jaccard similarity of word shingles."""

    threshold: Threshold = Field(0.8, description="Rows at least this similar are duplicates.")
    floor: Threshold = Field(0.65, description="Pairs down to here are stored, for `what-if` and the app.")
    shingle: int = Field(3, ge=1, le=13, description="Words in a shingle.")
    permutations: int = Field(128, ge=16, le=1024, description="MinHash permutations.")

    @model_validator(mode="after")
    def _floor_below_threshold(self) -> Near:
        return _floor(self)


class Semantic(Section):
    """Semantic duplicates: cosine of sentence embeddings."""

    threshold: Threshold = Field(0.95, description="Rows at least this similar are duplicates.")
    floor: Threshold = Field(0.9, description="Pairs down to here are stored, for `what-if` and the app.")
    exact_rows: int = Field(200_000, ge=0, description="Up to this many rows the search is exact; beyond, an index.")
    preselect: bool = Field(
        True,
        description="Encode first the rows that share most rare words with another, and stop when the others are "
        "estimated to hold less than 1 % of the pairs. False: encode every row.",
    )

    @model_validator(mode="after")
    def _floor_below_threshold(self) -> Semantic:
        return _floor(self)


class Answers(Section):
    """The same answer, exactly or nearly, under many different prompts."""

    max_per_answer: int = Field(5, ge=1, description="How many rows may share an answer.")
    threshold: Threshold = Field(0.9, description="Answers at least this similar (Jaccard) are the same.")
    floor: Threshold = Field(0.8, description="Pairs down to here are stored.")
    min_words: int = Field(12, ge=1, description="Shorter answers ('yes', a label, a number) may repeat freely.")

    @model_validator(mode="after")
    def _floor_below_threshold(self) -> Answers:
        return _floor(self)


class Duplicates(Section):
    """How duplicates are found. A stage set to null is left out."""

    guard: list[GuardClass] = Field(
        ["numbers", "operators", "identifiers", "negations"],
        description="Texts that differ in tokens of these classes are not duplicates. An empty list: no guard.",
    )
    exact: bool = Field(True, description="Drop rows whose normalised text is the same.")
    near: Near | None = Field(Near(), description=Near.__doc__)
    answers: Answers | None = Field(Answers(), description=Answers.__doc__)
    semantic: Semantic | None = Field(None, description=Semantic.__doc__)
    conflicts: Severity = Field("report", description="The same prompt with different answers.")


class Reference(Section):
    """A benchmark, or any set that must not be trained on."""

    path: str = Field(description="As in `sources`.")
    name: str | None = Field(None, description="How it is called in matches. Default: the file's stem.")
    format: FormatName = Field("auto", description="As in `sources`.")
    columns: dict[str, str] = Field({}, description="As in `sources`.")


class Contamination(Section):
    """Rows that resemble a benchmark."""

    references: list[Reference] = Field([], description=Reference.__doc__)
    rules: list[Rule] = Field(["layered"], min_length=1, description="The rules that decide; any match counts.")
    threshold: float = Field(
        0.5,
        ge=0.5,
        le=1,
        description="The least score, an estimated chance, at which `layered` takes a row for an item in other words. "
        "Higher spares more rows that are only on an item's subject, and finds fewer rephrased items.",
    )
    action: Literal["report", "drop"] = Field("drop", description="What happens to a row that matches.")


class Splits(Section):
    """Training and held-out rows, with no similar pair across them."""

    test: float = Field(0.05, ge=0, description="Held-out rows: a share below 1, or a number of rows.")
    validation: float = Field(0.0, ge=0, description="The same for a validation set.")
    near: Threshold = Field(0.6, description="The leak threshold in Jaccard similarity of word shingles.")
    semantic: Threshold = Field(0.9, description="The leak threshold in cosine, where there is an encoder.")
    yield_to: Literal["eval", "train"] = Field(
        "eval",
        description="When the data came with splits and rows leak: `eval` drops training rows, `train` eval rows.",
    )


class Balance(Section):
    """Instruction-length diversity."""

    bins: int = Field(12, ge=2, le=100, description="Bins over instruction length.")
    spacing: Literal["log", "quantile"] = Field("log", description="How the bins are cut.")
    target: Literal["uniform", "temperature", "reference"] = Field(
        "temperature", description="The wanted distribution over bins."
    )
    temperature: float = Field(
        0.5, ge=0, le=1, description="p ∝ share^temperature: 1 leaves it as it is, 0 is uniform."
    )
    reference: str | None = Field(None, description="A file whose length distribution is the target.")
    rows: int | None = Field(None, gt=0, description="Budget in rows.")
    tokens: int | None = Field(None, gt=0, description="Budget in instruction and answer tokens.")
    max_per_source: int | None = Field(None, gt=0, description="The most rows of one source.")
    by_turns: bool = Field(False, description="Bins are joint with single- or multi-turn.")
    repeat: bool = Field(False, description="Whether a bin that is too small may repeat its rows.")

    @model_validator(mode="after")
    def _needs(self) -> Balance:
        if self.target == "reference" and self.reference is None:
            raise ValueError("target 'reference' needs `reference:`, a file whose lengths are the target")
        if self.rows is not None and self.tokens is not None:
            raise ValueError("a budget is in rows or in tokens, not both")
        return self


class Model(Section):
    """The base model that the arms adapt."""

    name: str = Field(
        "smollm2",
        description="A hub name, a folder, a .gguf file, or `smollm2` (SmolLM2-135M-Instruct from its package).",
    )
    load: Literal["nf4", "bf16", "fp32"] = Field(
        "nf4",
        description="nf4: 4-bit, double quantisation (QLoRA, arXiv 2305.14314); bf16, fp32: plain LoRA.",
    )
    revision: str | None = Field(None, description="A hub revision to pin.")


class Budget(Section):
    """What every arm may spend: exactly one of these."""

    tokens: int | None = Field(None, gt=0, description="Trained (completion) tokens.")
    steps: int | None = Field(None, gt=0, description="Optimiser steps.")
    epochs: float | None = Field(None, gt=0, description="Passes over the arm's own rows.")
    minutes: float | None = Field(None, gt=0, description="Wall clock.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name in ("tokens", "steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of tokens, steps, epochs, minutes is the budget; found {given or 'none'}")
        return self


class Lora(Section):
    """The adapter. Defaults of the QLoRA paper (arXiv 2305.14314, table 9 and section 4)."""

    rank: int = Field(64, gt=0, description="Rank r.")
    alpha: int = Field(16, gt=0, description="Scaling alpha.")
    dropout: Share = Field(0.1, description="Dropout on the adapter's input.")
    targets: list[str] | Literal["all-linear"] = Field("all-linear", description="Modules that get an adapter.")


class Training(Section):
    """How the arms are trained. Defaults of the QLoRA paper where it states one."""

    arms: list[ArmName] = Field(["raw", "curated", "random"], min_length=1, description="The arms to train.")
    budget: Budget = Field(Budget(tokens=200_000), description=Budget.__doc__)
    seeds: list[int] = Field([0], min_length=1, description="One training run an arm and seed.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate (QLoRA: 2e-4 up to 13B).")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="After the warm-up.")
    warmup: Share = Field(0.03, description="Share of the steps with a rising learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(0.3, gt=0, description="Gradient clipping.")
    neftune: float | None = Field(None, gt=0, description="Noise on embeddings (NEFTune, arXiv 2310.05914).")
    batch_rows: int = Field(16, gt=0, description="Rows in an optimiser step.")
    micro_rows: int = Field(4, gt=0, description="Rows in a forward pass; the rest is gradient accumulation.")
    max_length: int = Field(512, gt=8, description="Tokens of a row; longer rows are truncated and counted.")
    checkpoint_steps: int = Field(25, gt=0, description="Steps between checkpoints.")
    lora: Lora = Field(Lora(), description=Lora.__doc__)
    report_to: list[Literal["trackio", "tensorboard", "wandb"]] = Field([], description="Trackers fed besides the log.")

    @model_validator(mode="after")
    def _whole_steps(self) -> Training:
        if self.batch_rows % self.micro_rows:
            raise ValueError(f"batch_rows ({self.batch_rows}) is not a multiple of micro_rows ({self.micro_rows})")
        return self


class Prompt(Section):
    """A prompt of the suite, with what a machine can check in the answer."""

    text: str = Field(min_length=1, description="The prompt.")
    name: str | None = Field(None, description="A short name. Default: its first words.")
    max_sentences: int | None = Field(None, gt=0, description="The answer may have at most so many sentences.")
    expect: str | None = Field(None, description="A word or number that a right answer holds.")
    forbid: str | None = Field(None, description="A regular expression that a right answer does not match.")


class Compare(Section):
    """How the trained arms are judged."""

    bootstrap: int = Field(10_000, ge=1_000, description="Draws of the cluster bootstrap.")
    permutations: int = Field(10_000, ge=1_000, description="Draws of the sign-flip test.")
    max_rows: int | None = Field(None, gt=0, description="Judge on at most so many held-out rows.")
    prompts: list[Prompt] = Field([], description="Prompts besides the ten of the default suite.")
    default_prompts: bool = Field(True, description="Whether the default suite is asked.")
    max_new_tokens: int = Field(200, gt=0, description="The most tokens of an answer.")


class Recipe(Section):
    """Everything a run does."""

    name: str | None = Field(None, description="Default: the recipe's file name.")
    run: str | None = Field(None, description="The run folder, relative to the recipe. Default: runs/NAME beside it.")
    seed: int = Field(0, ge=0, description="For everything that is drawn at random.")
    sources: list[Source] = Field(min_length=1, description="Where rows come from, most trusted first.")
    keep: list[Literal["source", "answer", "row"]] = Field(
        ["source", "answer", "row"],
        description="Which of two duplicates stays: earlier source, longer answer, earlier row; in this order.",
    )
    keys: Keys = Field(Keys(), description=Keys.__doc__)
    checks: Checks = Field(Checks(), description=Checks.__doc__)
    duplicates: Duplicates = Field(Duplicates(), description=Duplicates.__doc__)
    encoder: str | None = Field(
        "auto", description="A sentence-transformers model by name or folder; `auto`: all-MiniLM-L6-v2; null: none."
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
                raise ValueError(f"two sources are called {name!r}; ids need distinct names")
        return sources

    @model_validator(mode="after")
    def _needs_encoder(self) -> Recipe:
        if self.duplicates.semantic and self.encoder is None:
            raise ValueError("duplicates.semantic needs an encoder; set `encoder: auto`, or `semantic: null`")
        return self

    @model_validator(mode="after")
    def _needs_heldout(self) -> Recipe:
        if self.training and not self.splits:
            raise ValueError("training is judged on held-out rows: add `splits:` (its defaults will do: `splits: {}`)")
        return self
