# ruff: noqa: E402 - the path comes first
"""How much of known contamination each rule finds, and how many honest neighbours it flags.

    python tests/benchmarks/contamination.py [--fit [--without SET ...]] [--programs]

Labelled sets: rephrased HumanEval (Python, JavaScript, C) and MMLU subjects of the LMSYS decontaminator, semantic
duplicates of MBPP, verdicts on CodeAlpaca, and twenty GSM8K test questions rephrased by hand (gsm8k_rephrased.json,
by position). Empty lines of the rephrased files are left out. Honest neighbours: rows of one benchmark against
another of its kind; a few are the same task all the same (HumanEval and MBPP both ask for the largest prime factor).

The two models of `layered/semantic` (the screen of `paraphrases` and the comparison of `verification`) were fitted on
the items of one half (`half` below is 0; of contamination_labelled.jsonl by the hash of the item's name); "held out",
the operating curve, the labelled pairs and the table of reliability are about the other half only. `--fit` fits the
weights anew on half 0 and prints them with the operating curve of half 0; `--without SET` leaves a set out of the fit.
`--only SET ...` measures some sets. For the comparison the pairs of contamination_labelled.jsonl have the log-odds of
the screen that the file gives. It is also fitted on contamination_read.json: rows of the mixture (one in two of five
sources, one in twelve of the others, up to 450 characters) beside items of the fitted half, as
[row of the mixture, item, log-odds of the screen, same]. What scored at -1.2 or above, programs with alike signatures
below, and programs with the same results were read; the rest counts as not the same. Pairs that could be read either
way are left out.

`--programs` says what the results of programs add: on the pairs that were read, on rephrased HumanEval programs, and on
the rows of the mixture that hold or ask for a program, beside HumanEval and MBPP. Sixty of its matches beside held-out
items were drawn and read: contamination_drawn.json, as [row of the mixture, item, same].
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl
from scipy.optimize import minimize
from xxhash import xxh3_64_intdigest

from siftune.curation.contamination_outcomes import false_discovery, settle
from siftune.curation.decontamination.candidates import candidate_pairs
from siftune.curation.decontamination.content_words import WordWeights
from siftune.curation.decontamination.matches import find_matches
from siftune.curation.decontamination.pair_features import gist
from siftune.curation.decontamination.paraphrases import MIN_CROWD_MARGIN, compare, judged_candidates
from siftune.curation.decontamination.program_behaviour import behaviour
from siftune.curation.decontamination.verification import PROGRAM_ALONE, is_another_item, same_item_log_odds
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.exact_interval import clopper_pearson
from siftune.curation.ingest.references import read_reference
from tests.real_data import DATA, json_rows
from tests.stopwatch import timed

READ = Path(__file__).with_name("contamination_read.json")
DRAWN = Path(__file__).with_name("contamination_drawn.json")
BY_HAND = Path(__file__).with_name("gsm8k_rephrased.json")
RULES = ("layered", "gpt3-13gram", "tulu3-8gram", "llama3-token-ratio")
LABELLED = DATA / "pairs" / "contamination_labelled.jsonl"
ENGLISH = ("humaneval python", "abstract algebra", "us history", "sociology", "gsm8k by hand")
#: Added to the log-odds of the comparison, for its operating curve.
BIASES = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)

#: The features that `--fit` weighs, and those of which more may only speak against the same task.
PROSE_FEATURES = ("cosine", "row_margin", "shared_numbers", "different_numbers", "different_names", "opposites")
CODE_FEATURES = ("cosine", "row_margin", "item_margin", "shared_stems", "operations", "example_values")
NEGATIVE_FEATURES = ("different_numbers", "different_names", "opposites")
#: The same of the comparison.
SAME_PROSE_FEATURES = (
    *("screen", "item_missing", "row_missing", "item_weakest"),
    *("answer_agrees", "answer_differs", "answer_silent", "negation_differs"),
)
SAME_PROGRAM_FEATURES = (
    *("screen", "item_missing", "row_missing", "item_weakest"),
    *("operations", "example_values", "signature", "negation_differs", "code_given"),
    *("behaves_alike", "behaves_otherwise"),
)
#: Bounds of these weights: beside their sign, an answer never outweighs the words, and what the row says beyond the
#: item always speaks against it.
SAME_BOUNDS = {
    **dict.fromkeys(("screen", "operations", "example_values", "signature", "behaves_alike"), (0, None)),
    **dict.fromkeys(("item_missing", "item_weakest", "answer_differs", "answer_silent"), (None, 0)),
    **dict.fromkeys(("negation_differs", "code_given", "behaves_otherwise"), (None, 0)),
    "row_missing": (None, -0.5),
    "answer_agrees": (0, 2),
}
#: Added to the fitted constants of the comparison.
SHIFTS = {"PROSE": 1.25, "PROGRAM": -0.5}


@dataclass(frozen=True)
class LabelledSet:
    """Rows beside a reference. `truth`: the item that each row rephrases (int64[n]), negative for none."""

    name: str
    rows: pl.DataFrame
    truth: np.ndarray
    references: pl.DataFrame

    @property
    def honest(self) -> bool:
        return bool((self.truth < 0).all())

    def batches(self) -> Iterable[pl.DataFrame]:
        return iter([self.rows])


def reference(name: str, *, answers: bool = True) -> pl.DataFrame:
    items = read_reference(str(DATA / "benchmarks" / name), base=DATA)
    return items if answers else items.with_columns(answer=pl.lit(None, dtype=pl.String))


def labelled(name: str, texts: Iterable[tuple[str, str, int]], references: pl.DataFrame) -> LabelledSet:
    """A set of (prompt, answer, item) with the empty ones left out."""
    kept = [text for text in texts if (text[0] + text[1]).strip()]
    table = [(str(number), prompt, prompt, answer) for number, (prompt, answer, _) in enumerate(kept)]
    rows = pl.DataFrame(table, schema=["id", "prompt", "core", "answer"], orient="row")
    return LabelledSet(name, rows, np.array([text[2] for text in kept]), references)


def honest(name: str, rows: pl.DataFrame, references: pl.DataFrame) -> LabelledSet:
    """Rows (prompt, answer) of one benchmark against the items of another."""
    return labelled(name, ((prompt, answer or "", -1) for prompt, answer in rows.rows()), references)


def humaneval(language: str, name: str, items: pl.DataFrame) -> LabelledSet:
    rephrased = json_rows(DATA / "pairs" / f"humaneval_{language}.jsonl")
    return labelled(name, (("", row["text"], item) for item, row in enumerate(rephrased)), items)


def mmlu(subject: str, name: str) -> LabelledSet:
    with (DATA / "pairs" / f"{subject}_test.csv").open() as file:
        table = [(row[0], row[1 + "ABCD".index(row[5])]) for row in csv.reader(file)]
    items = pl.DataFrame(
        [(f"{subject}:{number}", *item) for number, item in enumerate(table)],
        schema=["reference", "prompt", "answer"],
        orient="row",
    )
    rephrased = json_rows(DATA / "pairs" / f"{subject}_test_rephrase_english_filtered_question.jsonl")
    return labelled(name, ((row["text"], "", item) for item, row in enumerate(rephrased)), items)


def mmlu_against_itself() -> LabelledSet:
    """Questions of MMLU against others of MMLU: honest but for the questions that MMLU holds twice."""
    questions = reference("mmlu_test.jsonl.gz", answers=False)
    short = questions.filter(pl.col("prompt").str.count_matches(r"\w+").is_between(6, 45))
    drawn = short.sample(5000, seed=1, shuffle=True)
    return honest("mmlu / mmlu, which repeats itself", drawn[:2500].select("prompt", "answer"), drawn[2500:])


def labelled_sets() -> list[LabelledSet]:
    human, mbpp = reference("humaneval.jsonl"), reference("mbpp.jsonl")
    gsm, math = reference("gsm8k_test.jsonl", answers=False), reference("math_test.json.gz", answers=False)
    task = {row["task_id"]: item for item, row in enumerate(json_rows(DATA / "benchmarks" / "mbpp.jsonl"))}
    with (DATA / "pairs" / "mbpp_semantic_duplicates.csv").open() as file:
        twins = [(row["prompt"], row["code"], task[int(row["task_id"])]) for row in csv.DictReader(file)]
    by_hand = json.loads(BY_HAND.read_text())
    train = pl.DataFrame(json_rows(DATA / "instructions" / "gsm8k_train.jsonl.gz")).select("question", "answer")
    verdicts = json_rows(DATA / "pairs" / "CodeAlpacaDB.jsonl")
    alpaca = [("", row["train"][0], item if row["results"][0] else -2) for item, row in enumerate(verdicts)]
    return [
        humaneval("python", "humaneval python", human),
        humaneval("js", "humaneval js", human),
        humaneval("c", "humaneval c", human),
        mmlu("abstract_algebra", "abstract algebra"),
        mmlu("high_school_us_history", "us history"),
        mmlu("sociology", "sociology"),
        labelled("gsm8k by hand", ((text, "", int(item)) for item, text in by_hand.items()), gsm),
        labelled("mbpp duplicates", twins, mbpp),
        labelled("codealpaca: same", (row for row in alpaca if row[2] >= 0), human),
        labelled("codealpaca: not", (row for row in alpaca if row[2] < 0), human),
        honest("gsm8k train / gsm8k test", train, gsm),
        honest("humaneval / mbpp", human.select("prompt", "answer"), mbpp),
        honest("mbpp / humaneval", mbpp.select("prompt", "answer"), human),
        honest("math / gsm8k test", math.select("prompt", "answer"), gsm),
        mmlu_against_itself(),
    ]


def half(item: np.ndarray | pl.Series) -> np.ndarray:
    """0 for the items the model was fitted on, 1 for the held-out ones."""
    return (pl.Series(np.asarray(item)).cast(pl.UInt32).hash(3) % 2).to_numpy()


def rates(data: LabelledSet, row: np.ndarray, item: np.ndarray, *, part: int = 1) -> tuple[float, float, float]:
    """Share of rows flagged; the same on one half; share of the reference's items that were hit.

    Args:
        data: the set.
        row, item: int64[m], the positions of the matches.
        part: which half.
    """
    flagged = len(np.unique(row)) / data.rows.height
    if data.honest:
        flagged_of_half = len(np.unique(row[half(item) == part])) / (data.rows.height / 2)
    else:
        in_half = half(data.truth) == part
        flagged_of_half = len(np.intersect1d(np.unique(row), np.flatnonzero(in_half))) / max(1, in_half.sum())
    return flagged, flagged_of_half, len(np.unique(item)) / data.references.height


def rates_of_rule(data: LabelledSet, rule: str, store: EmbeddingStore) -> tuple[float, float, float]:
    """As `rates`, of what a rule calls the same item; the thresholds of `layered` are those that decoys ask for."""
    matches = settle(matches_of(data, rule, store), threshold=0.5, most=0.1).filter(outcome="same")
    position = {name: number for number, name in enumerate(data.references["reference"])}
    item = np.array([position[name] for name in matches["reference"]], dtype=np.int64)
    return rates(data, matches["id"].cast(pl.Int64).to_numpy(), item)


def matches_of(data: LabelledSet, rule: str, store: EmbeddingStore) -> pl.DataFrame:
    return find_matches(data.batches, data.references, rules=[rule], embed=store.embed)


def print_rates(sets: list[LabelledSet], store: EmbeddingStore) -> None:
    print("| set | rows | " + " | ".join(RULES) + " | layered, held out | layered, items hit | seconds |")
    print("|---" * (len(RULES) + 5) + "|")
    for data in sets:
        run = timed(lambda data=data: [rates_of_rule(data, rule, store) for rule in RULES])
        _, held_out, items_hit = run.result[0]
        shares = " | ".join(f"{flagged:.4f}" for flagged, _, _ in run.result)
        print(f"| {data.name} | {data.rows.height} | {shares} | {held_out:.4f} | {items_hit:.4f} | {run.wall:.1f} |")


def print_false_discovery(sets: list[LabelledSet], store: EmbeddingStore) -> None:
    print("\nWhat decoys say of each set: matches of `layered/semantic`, those of decoys, their ratio and interval.\n")
    print("| set | threshold | matches | decoys | false discovery rate |\n|---|---|---|---|---|")
    for data in sets:
        for line in false_discovery(matches_of(data, "layered", store), threshold=0.5, most=0.1).iter_rows(named=True):
            rate = "none" if line["rate"] is None else f"{line['rate']:.3f} [{line['low']:.3f}, {line['high']:.3f}]"
            print(f"| {data.name} | {line['threshold']:.3f} | {line['matches']} | {line['decoys']} | {rate} |")


def print_operating_curve(sets: list[LabelledSet], store: EmbeddingStore, *, part: int = 1) -> None:
    name = ("fitted", "held-out")[part]
    print(f"\nOperating curve of layered/semantic alone on the {name} half: a bias added to the log-odds.\n")
    print("| set | " + " | ".join(f"{bias:+}" for bias in BIASES) + " |")
    print("|---" * (len(BIASES) + 1) + "|")
    pooled: dict[str, list[np.ndarray]] = {"english rephrases, pooled": [], "honest neighbours, pooled": []}
    for data in sets:
        judged = judged_candidates(data.batches, data.references, embed=store.embed).filter(~pl.col("decoy"))
        judged = judged.with_columns(log_odds=same_item_log_odds())
        shares, counts = [], []
        total = data.rows.height / 2 if data.honest else max(1, int((half(data.truth) == part).sum()))
        for bias in BIASES:
            accepted = judged.filter(pl.col("log_odds") + bias >= 0)
            share = rates(data, accepted["row"].to_numpy(), accepted["item"].to_numpy(), part=part)[1]
            shares.append(f"{share:.4f}")
            counts.append(share * total)
        print(f"| {data.name} | " + " | ".join(shares) + " |")
        group = "honest neighbours, pooled" if " / " in data.name else "english rephrases, pooled"
        if (" / " in data.name and "itself" not in data.name) or data.name in ENGLISH:
            pooled[group].append(np.array([*counts, total]))
    for name, parts in pooled.items():
        if parts:
            sums = np.sum(parts, axis=0)
            print(f"| {name} | " + " | ".join(f"{count / sums[-1]:.4f}" for count in sums[:-1]) + " |")


def labelled_pairs(store: EmbeddingStore, *, part: int) -> pl.DataFrame:
    """The pairs of contamination_labelled.jsonl of one half, compared: `label`, `log_odds`, and what they depend on."""
    pairs = pl.read_ndjson(LABELLED).with_columns(
        half=pl.col("reference").map_elements(lambda name: xxh3_64_intdigest(name.encode()) % 2, return_dtype=pl.Int64),
    )
    of_half = pairs.filter(pl.col("half") == part)
    named = of_half.select(
        "label", "prompt", "answer", "reference", screen="log_odds_first_version", item_prompt="item"
    )
    return compared_pairs(named.with_columns(of_half["item_answer"]), store)


def read_pairs(store: EmbeddingStore) -> pl.DataFrame:
    """The pairs of contamination_read.json, compared, as `labelled_pairs` gives them."""
    mixture = json_rows(DATA / "instructions" / "mix.jsonl.gz")
    lines = []
    for number, item, screen, same in json.loads(READ.read_text()):
        row = mixture[number]
        prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
        lines.append(("same" if same else "other", prompt, row["output"], item, screen))
    names = ["label", "prompt", "answer", "reference", "screen"]
    items = pl.concat(benchmarks().values()).select("reference", item_prompt="prompt", item_answer="answer")
    pairs = pl.DataFrame(lines, schema=names, orient="row")
    return compared_pairs(pairs.join(items, on="reference", how="left", maintain_order="left"), store)


def benchmarks() -> dict[str, pl.DataFrame]:
    files = {"mmlu_test": ".jsonl.gz", "mbpp": ".jsonl", "humaneval": ".jsonl"}
    return {name: reference(name + ending) for name, ending in files.items()}


def compared_pairs(pairs: pl.DataFrame, store: EmbeddingStore) -> pl.DataFrame:
    """`pairs` (label, prompt, answer, reference, screen, item_prompt, item_answer) with `compare` and `log_odds`."""
    weights = WordWeights()
    mixture = json_rows(DATA / "instructions" / "mix.jsonl.gz")[::24]
    weights.count(f"{row['instruction']} {row['input'] or ''}" for row in mixture)
    for name, items in benchmarks().items():
        weights.count_items(name, items["prompt"].to_list())
    distractors = benchmarks()["mmlu_test"].select("reference", "distractors")
    texts = pairs.join(distractors, on="reference", how="left", maintain_order="left").with_columns(
        pl.col("answer", "item_answer").fill_null(""),
        reference=pl.col("reference").str.replace(r":\d+$", ""),
        question_gist=gist(pl.col("prompt")),
        item_gist=gist(pl.col("item_prompt")),
    )
    return compare(texts, weights=weights, embed=store.embed).with_columns(log_odds=same_item_log_odds())


def print_labelled_pairs(store: EmbeddingStore) -> None:
    pairs = labelled_pairs(store, part=1)
    print("\ncontamination_labelled.jsonl, held-out half: what is called the same item.\n")
    print("| criterion | same | related | different | precision | recall |\n|---|---|---|---|---|---|")
    for name, column in (("first version", "screen"), ("now", "log_odds")):
        counts = [pairs.filter(pl.col(column) >= 0, label=label).height for label in ("same", "related", "different")]
        recall = counts[0] / pairs.filter(label="same").height
        print(f"| {name} | {' | '.join(map(str, counts))} | {counts[0] / max(sum(counts), 1):.2f} | {recall:.2f} |")
    print("\nReliability on the same pairs: of the pairs with such a score, how many are the same item.\n")
    print("| score | pairs | same | share |\n|---|---|---|---|")
    scored = pairs.with_columns(score=1 / (1 + (-pl.col("log_odds")).exp()))
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.8), (0.8, 1.0)):
        of_bin = scored.filter(pl.col("score").is_between(low, high, closed="right" if low else "both"))
        same = of_bin.filter(label="same").height
        print(f"| {low} to {high} | {of_bin.height} | {same} | {same / max(of_bin.height, 1):.2f} |")


def print_programs(store: EmbeddingStore) -> None:
    """What the results of programs add."""
    pairs = pl.concat([labelled_pairs(store, part=0), read_pairs(store)], how="diagonal")
    called = pairs.filter(pl.col("log_odds") >= 0)
    for kind, is_program in (("programs", True), ("questions in prose", False)):
        labels = called.filter(program=is_program)["label"]
        print(f"pairs read for the fit: {len(labels)} {kind} called the same, {(labels == 'same').sum()} are")

    rephrased = humaneval("python", "humaneval python", reference("humaneval.jsonl"))
    items = rephrased.references[rephrased.truth]
    programs = rephrased.rows.select("prompt", "answer").hstack(
        items.select(item_prompt="prompt", item_answer="answer")
    )
    alike, otherwise = behaviour(programs.with_columns(pl.all().fill_null(""))).sum().row(0)
    print(f"rephrased HumanEval: {programs.height}, {alike:.0f} with the same results, {otherwise:.0f} with others")

    drawn = json.loads(DRAWN.read_text())
    same = sum(label for *_, label in drawn)
    low, high = clopper_pearson(same, len(drawn))
    print(f"drawn beside held-out items: {same} of {len(drawn)} are the same ({low:.2f} to {high:.2f})")

    mixture = [
        (str(number), f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"], row["output"])
        for number, row in enumerate(json_rows(DATA / "instructions" / "mix.jsonl.gz"))
        if "code" in row["source"] or "def " in row["output"] or "function" in row["instruction"].lower()
    ]
    frame = pl.DataFrame(mixture, schema=["id", "prompt", "answer"], orient="row").with_columns(core="prompt")
    both = pl.concat([benchmarks()["humaneval"], benchmarks()["mbpp"]], how="diagonal")
    matches = find_matches(lambda: iter([frame]), both, rules=["layered"], embed=store.embed)
    of_rows = settle(matches, threshold=0.5, most=0.1).filter(outcome="same", rule="layered/semantic")
    held_out = of_rows.filter([xxh3_64_intdigest(name.encode()) % 2 == 1 for name in of_rows["reference"]])
    counts = f"{of_rows['id'].n_unique()} called the same, {held_out['id'].n_unique()} of them as a held-out item"
    print(f"mixture: {frame.height} rows with programs, {counts}")


def fit_comparison(sets: list[LabelledSet], store: EmbeddingStore, without: list[str]) -> None:
    """Penalised maximum likelihood on half 0: rephrasings and the labelled pairs, which weigh as in the mixture."""
    same, other, alone = [], [], []
    for data in sets:
        if data.name in without:
            continue
        judged = judged_candidates(data.batches, data.references, embed=store.embed)
        truth = pl.Series(data.truth).gather(judged["row"])
        judged = judged.with_columns(truth=truth, set=pl.lit(data.name))
        judged = judged.filter(~pl.col("decoy"), pl.Series(half(judged["item"]) == 0))
        alone.append(judged.filter("alone"))
        judged = judged.filter(~pl.col("alone"))
        best = judged.sort("screen", descending=True, maintain_order=True)
        of_item = best.filter(pl.col("item") == pl.col("truth")).unique("row", keep="first", maintain_order=True)
        same.append(of_item)
        if data.honest and not data.name.startswith("codealpaca"):
            # MMLU holds questions twice: pairs whose words are nearly the same are no honest neighbours.
            repeats = (pl.col("item_missing") < 0.16) & (pl.col("row_missing") < 0.3) & (pl.col("screen") > 3.8)
            other.append(best.filter(~repeats | pl.col("program")).unique("row", keep="first", maintain_order=True))
    fit_alone(pl.concat(alone))
    ordinary = pl.concat([labelled_pairs(store, part=0), read_pairs(store)], how="diagonal")
    is_same = pl.col("label") == "same"
    # One item that many rows repeat must not decide.
    ordinary = ordinary.with_columns(share=(1 / pl.len().over("reference", "item_prompt", is_same)).sqrt())
    for name, features, program in (
        ("PROSE", SAME_PROSE_FEATURES, False),
        ("PROGRAM", SAME_PROGRAM_FEATURES, True),
    ):
        # What `same_item_log_odds` settles without the model says nothing about its weights.
        is_open = (pl.col("program") == program) & ~is_another_item()
        rephrased, neighbours, of_kind = (
            pl.concat(frames).filter(is_open) if len(frames) > 1 else frames[0].filter(is_open)
            for frames in (same, other, [ordinary])
        )
        groups = [
            (rephrased, 1.0, rephrased.select(1 / pl.len().over("set") / pl.col("set").n_unique()) * 0.3),
            (neighbours, 0.0, neighbours.select(pl.lit(0.25) / pl.len())),
            (
                of_kind.filter(is_same),
                1.0,
                of_kind.filter(is_same).select(0.15 * pl.col("share") / pl.col("share").sum()),
            ),
            (
                of_kind.filter(~is_same),
                0.0,
                of_kind.filter(~is_same).select(0.85 * pl.col("share") / pl.col("share").sum()),
            ),
        ]
        values = np.vstack([frame.select(features).to_numpy().astype(np.float64) for frame, _, _ in groups])
        y = np.concatenate([np.full(frame.height, label) for frame, label, _ in groups])
        weight = np.concatenate([np.resize(share.to_numpy().ravel(), frame.height) for frame, _, share in groups])

        def loss(b: np.ndarray, values=values, y=y, weight=weight) -> float:
            log_odds = values @ b[1:] + b[0]
            likelihood = np.logaddexp(0, -log_odds) * y + np.logaddexp(0, log_odds) * (1 - y)
            return float((weight * likelihood).sum() + 3e-4 * np.square(b[1:]).sum())

        bounds = [(None, None), *(SAME_BOUNDS[feature] for feature in features)]
        weights = minimize(loss, np.zeros(len(features) + 1), method="L-BFGS-B", bounds=bounds).x
        weights[0] += SHIFTS[name]
        print("comparison", name, dict(zip(["constant", *features], weights.round(2).tolist(), strict=True)))


def fit_alone(pairs: pl.DataFrame) -> None:
    """What the results of programs without a prompt add to the screen, whose weight and constant stay as they are."""
    known = pairs.filter(pl.col("behaves_alike") + pl.col("behaves_otherwise") > 0)
    y = (known["item"] == known["truth"]).cast(pl.Float64).to_numpy()
    screen = known["screen"].to_numpy() + PROGRAM_ALONE.constant
    values = known.select("behaves_alike", "behaves_otherwise").to_numpy()
    share = known.select(1 / pl.len().over("set", pl.col("item") == pl.col("truth"))).to_numpy().ravel()

    def loss(b: np.ndarray) -> float:
        log_odds = screen + values @ b
        likelihood = np.logaddexp(0, -log_odds) * y + np.logaddexp(0, log_odds) * (1 - y)
        return float((share / share.sum() * likelihood).sum() + 3e-4 * np.square(b).sum())

    weights = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(0, None), (None, 0)]).x
    print("comparison PROGRAM_ALONE", dict(zip(["behaves_alike", "behaves_otherwise"], weights.round(2), strict=True)))


def fit(sets: list[LabelledSet], store: EmbeddingStore, without: list[str]) -> None:
    """Penalised maximum likelihood on half 0: every set weighs the same, honest ones by their closest rows."""
    frames = []
    for data in sets:
        if data.name in without:
            continue
        pairs = candidate_pairs(data.batches, data.references, embed=store.embed).filter(~pl.col("decoy"))
        truth = pl.Series(data.truth).gather(pairs["row"])
        pairs = pairs.with_columns(truth=truth, set=pl.lit(data.name)).filter(pl.Series(half(pairs["item"]) == 0))
        # MMLU holds many questions twice: the closest pairs of its two halves are no honest neighbours.
        repeats = pl.lit(data.name.startswith("mmlu")) & (pl.col("cosine") >= 0.9)
        frames.append(pairs.filter(~repeats))
    pairs = pl.concat(frames, how="diagonal_relaxed").filter(pl.col("crowd_margin") >= MIN_CROWD_MARGIN)
    for name, features, code in (("PROSE", PROSE_FEATURES, False), ("CODE", CODE_FEATURES, True)):
        of_kind = pairs.filter(pl.col("code") == code)
        same = of_kind.filter(pl.col("item") == pl.col("truth"))
        other = of_kind.filter(pl.col("truth") < 0).sort(pl.col("cosine") + pl.col("row_margin"), descending=True)
        other = other.group_by("set", maintain_order=True).head(300).select(same.columns)
        both = pl.concat([same.with_columns(y=1.0), other.with_columns(y=0.0)])
        weight = both.select(weight=1 / pl.len().over("set", "y"))["weight"].to_numpy()
        values, y = both.select(features).to_numpy(), both["y"].to_numpy()
        bounds = [(None, None)] + [(None, 0) if feature in NEGATIVE_FEATURES else (0, None) for feature in features]

        def loss(b: np.ndarray, values=values, y=y, weight=weight) -> float:
            log_odds = values @ b[1:] + b[0]
            likelihood = np.logaddexp(0, -log_odds) * y + np.logaddexp(0, log_odds) * (1 - y)
            return float((weight * likelihood).sum() + 1e-3 * np.square(b[1:]).sum())

        weights = minimize(loss, np.zeros(len(features) + 1), method="L-BFGS-B", bounds=bounds).x
        print("screen", name, dict(zip(["constant", *features], weights.round(2).tolist(), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the model again on half 0 and print it")
    parser.add_argument("--without", nargs="*", default=[], metavar="SET", help="sets that are left out of the fit")
    parser.add_argument("--only", nargs="*", metavar="SET", help="the sets that are measured, by name")
    parser.add_argument("--programs", action="store_true", help="say what the results of programs add")
    options = parser.parse_args()
    if options.programs:
        print_programs(EmbeddingStore(load("auto")))
        return
    store, sets = EmbeddingStore(load("auto")), labelled_sets()
    sets = [data for data in sets if options.only is None or data.name in options.only]
    if options.fit:
        fit(sets, store, options.without)
        fit_comparison(sets, store, options.without)
        print_operating_curve(sets, store, part=0)
        return
    print_labelled_pairs(store)
    print_rates(sets, store)
    print_false_discovery(sets, store)
    print_operating_curve(sets, store)


if __name__ == "__main__":
    main()
