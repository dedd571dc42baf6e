"""How much of known contamination each rule finds, and how many honest neighbours it flags.

    python tests/benchmarks/contamination.py [--fit [--without SET ...]]

Labelled sets: rephrased HumanEval (Python, JavaScript, C) and MMLU subjects of the LMSYS decontaminator, semantic
duplicates of MBPP, verdicts on CodeAlpaca, and twenty GSM8K test questions rephrased by hand (gsm8k_rephrased.json,
by position). Empty lines of the rephrased files are left out. Honest neighbours: rows of one benchmark against
another of its kind; a few are the same task all the same (HumanEval and MBPP both ask for the largest prime factor).

The criterion of `layered/semantic` was fitted on the items of one half (`half` below is 0); "held out" and the
operating curve are about the other half only. `--fit` fits the weights anew on half 0 and prints them with the
operating curve of half 0, by which the constants were chosen; `--without SET` leaves a set out of the fit.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import minimize

from siftune.curation.decontamination import search
from siftune.curation.decontamination.paraphrases import CODE, PROSE, candidates, rephrased
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.ingest.references import read_reference

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
RULES = ("layered", "gpt3-13gram", "tulu3-8gram", "llama3-token-ratio")
ENGLISH = ("humaneval python", "abstract algebra", "us history", "sociology", "gsm8k by hand")
SLACKS = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Labelled:
    """Rows beside a reference. `truth`: the item that each row rephrases, or -1 for an honest neighbour."""

    name: str
    rows: pl.DataFrame
    truth: np.ndarray
    references: pl.DataFrame

    @property
    def honest(self) -> bool:
        return bool((self.truth < 0).all())


def lines(path: Path) -> list[dict]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def reference(name: str, *, answers: bool = True) -> pl.DataFrame:
    found = read_reference(str(DATA / "benchmarks" / name), base=DATA)
    return found if answers else found.with_columns(answer=pl.lit(None, dtype=pl.String))


def labelled(name: str, texts: Iterable[tuple[str, str, int]], references: pl.DataFrame) -> Labelled:
    kept = [text for text in texts if (text[0] + text[1]).strip()]
    table = [(str(place), prompt, prompt, answer) for place, (prompt, answer, _) in enumerate(kept)]
    rows = pl.DataFrame(table, schema=["id", "prompt", "core", "answer"], orient="row")
    return Labelled(name, rows, np.array([text[2] for text in kept]), references)


def mmlu(subject: str, name: str) -> Labelled:
    with (DATA / "pairs" / f"{subject}_test.csv").open() as file:
        table = [(row[0], row[1 + "ABCD".index(row[5])]) for row in csv.reader(file)]
    items = pl.DataFrame(
        [(f"{subject}:{place}", *item) for place, item in enumerate(table)],
        schema=["reference", "prompt", "answer"],
        orient="row",
    )
    rephrased = lines(DATA / "pairs" / f"{subject}_test_rephrase_english_filtered_question.jsonl")
    return labelled(name, ((row["text"], "", place) for place, row in enumerate(rephrased)), items)


def against(name: str, rows: pl.DataFrame, references: pl.DataFrame) -> Labelled:
    return labelled(name, ((prompt, answer or "", -1) for prompt, answer in rows.rows()), references)


def mmlu_against_itself() -> Labelled:
    """Questions of MMLU against others of MMLU: honest but for the questions that MMLU holds twice."""
    every = reference("mmlu_test.jsonl.gz", answers=False)
    short = every.filter(pl.col("prompt").str.count_matches(r"\w+").is_between(6, 45)).sample(
        5000, seed=1, shuffle=True
    )
    return against("mmlu / mmlu, which repeats itself", short[:2500].select("prompt", "answer"), short[2500:])


def sets() -> list[Labelled]:
    human, mbpp = reference("humaneval.jsonl"), reference("mbpp.jsonl")
    gsm, math = reference("gsm8k_test.jsonl", answers=False), reference("math_test.json.gz", answers=False)
    task = {row["task_id"]: place for place, row in enumerate(lines(DATA / "benchmarks" / "mbpp.jsonl"))}
    with (DATA / "pairs" / "mbpp_semantic_duplicates.csv").open() as file:
        twins = [(row["prompt"], row["code"], task[int(row["task_id"])]) for row in csv.DictReader(file)]
    by_hand = json.loads((HERE / "gsm8k_rephrased.json").read_text())
    train = pl.DataFrame(lines(DATA / "instructions" / "gsm8k_train.jsonl.gz")).select("question", "answer")
    verdicts = lines(DATA / "pairs" / "CodeAlpacaDB.jsonl")
    alpaca = [("", row["train"][0], place if row["results"][0] else -2) for place, row in enumerate(verdicts)]
    return [
        *(
            labelled(
                f"humaneval {kind}",
                (
                    ("", row["text"], place)
                    for place, row in enumerate(lines(DATA / "pairs" / f"humaneval_{code}.jsonl"))
                ),
                human,
            )
            for code, kind in (("python", "python"), ("js", "js"), ("c", "c"))
        ),
        mmlu("abstract_algebra", "abstract algebra"),
        mmlu("high_school_us_history", "us history"),
        mmlu("sociology", "sociology"),
        labelled("gsm8k by hand", ((text, "", int(place)) for place, text in by_hand.items()), gsm),
        labelled("mbpp duplicates", twins, mbpp),
        labelled("codealpaca: same", (row for row in alpaca if row[2] >= 0), human),
        labelled("codealpaca: not", (row for row in alpaca if row[2] < 0), human),
        against("gsm8k train / gsm8k test", train, gsm),
        against("humaneval / mbpp", human.select("prompt", "answer"), mbpp),
        against("mbpp / humaneval", mbpp.select("prompt", "answer"), human),
        against("math / gsm8k test", math.select("prompt", "answer"), gsm),
        mmlu_against_itself(),
    ]


def half(item: np.ndarray | pl.Series) -> np.ndarray:
    """0 for the items the criterion was fitted on, 1 for the held-out ones."""
    return (pl.Series(np.asarray(item)).cast(pl.UInt32).hash(3) % 2).to_numpy()


def rates(each: Labelled, row: np.ndarray, item: np.ndarray, *, part: int = 1) -> tuple[float, float, float]:
    """Share of rows flagged; the same on one half; share of the reference's items that were hit."""
    flagged = len(np.unique(row)) / each.rows.height
    if each.honest:
        chosen = half(item) == part
        of_half = len(np.unique(row[chosen])) / (each.rows.height / 2)
    else:
        mine = half(each.truth) == part
        of_half = len(np.intersect1d(np.unique(row), np.flatnonzero(mine))) / max(1, mine.sum())
    return flagged, of_half, len(np.unique(item)) / each.references.height


def table(every: list[Labelled], store: EmbeddingStore) -> None:
    print("| set | rows | " + " | ".join(RULES) + " | layered, held out | layered, items hit | seconds |")
    print("|---" * (len(RULES) + 5) + "|")
    for each in every:
        position = {name: place for place, name in enumerate(each.references["reference"])}
        start, told = time.perf_counter(), []
        for rule in RULES:
            found = search.matches(
                lambda each=each: iter([each.rows]), each.references, rules=[rule], embed=store.embed
            )
            row = found["id"].cast(pl.Int64).to_numpy()
            item = np.array([position[name] for name in found["reference"]], dtype=np.int64)
            told.append(rates(each, row, item))
        seconds = time.perf_counter() - start
        shares = " | ".join(f"{flagged:.4f}" for flagged, _, _ in told)
        print(f"| {each.name} | {each.rows.height} | {shares} | {told[0][1]:.4f} | {told[0][2]:.4f} | {seconds:.1f} |")


def judged(each: Labelled, store: EmbeddingStore) -> pl.DataFrame:
    found = candidates(lambda: iter([each.rows]), each.references, embed=store.embed)
    return found.with_columns(odds=pl.when("code").then(CODE.judge()).otherwise(PROSE.judge()))


def curve(every: list[Labelled], store: EmbeddingStore, *, part: int = 1) -> None:
    name = ("fitted", "held-out")[part]
    print(f"\nOperating curve of layered/semantic alone on the {name} half: the criterion moved by some log-odds.\n")
    print("| set | " + " | ".join(f"{slack:+}" for slack in SLACKS) + " |")
    print("|---" * (len(SLACKS) + 1) + "|")
    pooled: dict[str, list[np.ndarray]] = {"english rephrases, pooled": [], "honest neighbours, pooled": []}
    for each in every:
        # One search that accepts the most; the odds of each match follow from its score.
        most = max(SLACKS)
        found = rephrased(lambda each=each: iter([each.rows]), each.references, embed=store.embed, slack=most)
        found = found.with_columns(odds=(pl.col("score") / (1 - pl.col("score"))).log() - most)
        shares, counts = [], []
        total = each.rows.height / 2 if each.honest else max(1, int((half(each.truth) == part).sum()))
        for slack in SLACKS:
            hit = found.filter(pl.col("odds") + slack >= -1e-9)
            share = rates(each, hit["row"].to_numpy(), hit["item"].to_numpy(), part=part)[1]
            shares.append(f"{share:.4f}")
            counts.append(share * total)
        print(f"| {each.name} | " + " | ".join(shares) + " |")
        group = "honest neighbours, pooled" if " / " in each.name else "english rephrases, pooled"
        if (" / " in each.name and "itself" not in each.name) or each.name in ENGLISH:
            pooled[group].append(np.array([*counts, total]))
    for name, parts in pooled.items():
        both = np.sum(parts, axis=0)
        print(f"| {name} | " + " | ".join(f"{count / both[-1]:.4f}" for count in both[:-1]) + " |")


def fit(every: list[Labelled], store: EmbeddingStore, without: list[str]) -> None:
    """Penalised maximum likelihood on half 0: every set weighs the same, honest ones by their closest rows."""
    frames = []
    for each in every:
        if each.name in without:
            continue
        told = judged(each, store)
        truth = pl.Series(each.truth).gather(told["row"])
        told = told.with_columns(truth=truth, set=pl.lit(each.name)).filter(pl.Series(half(told["item"]) == 0))
        # MMLU holds many questions twice: the closest pairs of its two halves are no honest neighbours.
        repeats = pl.lit(each.name.startswith("mmlu")) & (pl.col("cosine") >= 0.9)
        frames.append(told.filter(~repeats))
    pairs = pl.concat(frames, how="diagonal_relaxed").filter(pl.col("over_rows") >= 0.1)
    prose = ["cosine", "over_row", "same_numbers", "other_numbers", "other_names", "contrary"]
    programs = ["cosine", "over_row", "over_item", "words", "acts", "values"]
    for name, signs, code in (("PROSE", prose, False), ("CODE", programs, True)):
        mine = pairs.filter(pl.col("code") == code)
        same = mine.filter(pl.col("item") == pl.col("truth"))
        honest = mine.filter(pl.col("truth") < 0).sort(pl.col("cosine") + pl.col("over_row"), descending=True)
        honest = honest.group_by("set", maintain_order=True).head(300).select(same.columns)
        both = pl.concat([same.with_columns(y=1.0), honest.with_columns(y=0.0)])
        weight = both.select(weight=1 / pl.len().over("set", "y"))["weight"].to_numpy()
        values, y = both.select(signs).to_numpy(), both["y"].to_numpy()
        against = {"other_numbers", "other_names", "contrary"}
        bounds = [(None, None)] + [(None, 0) if sign in against else (0, None) for sign in signs]

        def loss(b: np.ndarray, values=values, y=y, weight=weight) -> float:
            odds = values @ b[1:] + b[0]
            likelihood = np.logaddexp(0, -odds) * y + np.logaddexp(0, odds) * (1 - y)
            return float((weight * likelihood).sum() + 1e-3 * np.square(b[1:]).sum())

        found = minimize(loss, np.zeros(len(signs) + 1), method="L-BFGS-B", bounds=bounds).x
        print(name, dict(zip(["constant", *signs], found.round(2).tolist(), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fit", action="store_true", help="fit the criterion again on half 0 and print it")
    parser.add_argument("--without", nargs="*", default=[], metavar="SET", help="sets that are left out of the fit")
    arguments = parser.parse_args()
    store, every = EmbeddingStore(load("auto")), sets()
    if arguments.fit:
        fit(every, store, arguments.without)
        curve(every, store, part=0)
        return
    table(every, store)
    curve(every, store)


if __name__ == "__main__":
    main()
