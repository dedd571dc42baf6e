"""The sections of a recipe about curation, and what all sections are. An unknown key is an error.

Every parameter is documented once, under its field; the commented starting recipe and the JSON Schema come from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(gt=0.0, le=1.0)]
Severity = Literal["off", "report", "drop"]
#: Of personal data and secrets; `mask` writes a word such as [EMAIL] in their place.
PersonalDataAction = Literal["off", "report", "mask", "drop"]
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
        "a `datasets.save_to_disk` folder, or `hf://owner/name`. Relative to the recipe. With `engine: ray` also an "
        "address such as s3://bucket/folder."
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


#: A set of rows that is named by its path alone, or like a source.
NamedSet = Annotated[
    Source,
    BeforeValidator(
        lambda value: {"path": value} if isinstance(value, str) else value, json_schema_input_type=str | Source
    ),
]


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
    email: PersonalDataAction = Field(
        "off", description="E-mail addresses: off, report, drop, or mask: write [EMAIL] before rows are compared."
    )
    phone: PersonalDataAction = Field("off", description="Telephone numbers with a country code, and those of")
    phone_regions: list[str] = Field(
        [], description="the countries in which numbers are written without one, such as US."
    )
    iban: PersonalDataAction = Field("off", description="International bank account numbers, by their checksum.")
    card: PersonalDataAction = Field("off", description="Numbers of payment cards, by issuer and check digit.")
    ip_address: PersonalDataAction = Field("off", description="Addresses of the public Internet, IPv4 and IPv6.")
    secret: PersonalDataAction = Field("off", description="Private keys, API tokens, passwords in addresses.")


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


class RayCluster(Section):
    """Curation by tasks on a Ray cluster, with the result of one machine: see docs/cluster.md."""

    address: str | None = Field(
        None,
        description="The address of a running cluster, `HOST:6379` or `auto`. Default: Ray starts on this machine.",
    )
    work: str | None = Field(
        None,
        description="A folder or an address (s3://, gs://, hdfs://) that all nodes reach, for the files of tasks. "
        "Default: `cluster` in the run folder, which all nodes must then share.",
    )
    partitions: int | None = Field(
        None, ge=1, description="Partitions of what is compared across files. Default: one for each 250,000 rows."
    )
    part_rows: int = Field(
        200_000, ge=1, description="The most rows that a task reads; files of more are cut into several parts."
    )


class EngineSettings(Section):
    """Where rows are read and compared: `local`, on this machine, or `ray`."""

    ray: RayCluster | None = Field(None, description=RayCluster.__doc__)


def _engine_by_name(value: Any) -> Any:
    engines: dict[str, Any] = {"local": {}, "ray": {"ray": {}}}
    if isinstance(value, str) and value not in engines:
        raise ValueError(f"there is no engine {value!r}; write `local`, or `ray` with or without settings")
    return engines[value] if isinstance(value, str) else value


#: An engine with its settings, or by its name alone.
Engine = Annotated[
    EngineSettings,
    BeforeValidator(_engine_by_name, json_schema_input_type=Literal["local", "ray"] | EngineSettings),
]


def check_endpoint(address: str) -> None:
    """Raise `ValueError` unless this is an HTTP address without a name and a password in it."""
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
            check_endpoint(self.endpoint)
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
    near: Threshold | None = Field(
        None,
        description="The leak threshold in Jaccard similarity of word shingles. Default: 0.6; 0.8 where the data has "
        "splits, since each leak costs a row there.",
    )
    semantic: Threshold = Field(0.9, description="The leak threshold in cosine similarity, where there is an encoder.")
    yield_to: Literal["eval", "train"] = Field(
        "eval",
        description="Where the data has splits and rows leak: `eval` drops training rows, `train` held-out ones.",
    )
    by_topic: bool = Field(False, description="Draw held-out rows in proportion to `topics` too.")

    def near_threshold(self, *, given: bool) -> float:
        """The leak threshold of `near`.

        Args:
            given: whether the data came with its splits. Splits that are drawn keep prompts of one kind ("What is the
                capital of Spain?", "... of Italy?") on one side and lose hardly a row; from given ones they would go.
        """
        return self.near if self.near is not None else 0.8 if given else 0.6


class Topics(Section):
    """Topics of the rows and their map, from embeddings of the prompts: `topics: {}` takes the defaults."""

    count: int | None = Field(
        None, ge=2, le=1000, description="Number of topics. Default: the square root of the number of rows, at most 50."
    )
    projection: Literal["pca", "pacmap"] = Field(
        "pca", description="How rows are placed on the map: principal components, or PaCMAP (the extra `map`)."
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
    max_per_topic: int | None = Field(None, gt=0, description="The most rows of one of the `topics`.")
    by_turns: bool = Field(False, description="Separate bins for single-turn and multi-turn rows.")
    repeat: bool = Field(False, description="Whether a bin with too few rows may repeat them.")

    @model_validator(mode="after")
    def _needs(self) -> Balance:
        if self.target == "reference" and self.reference is None:
            raise ValueError("target 'reference' needs `reference:`, a file whose length distribution is the target")
        if self.rows is not None and self.tokens is not None:
            raise ValueError("set `rows` or `tokens`, not both")
        return self
