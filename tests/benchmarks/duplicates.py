# ruff: noqa: E402 - the path comes first
"""The precision of dropping: of the pairs that a stage calls duplicates, how many are the same task?

    python tests/benchmarks/duplicates.py [--no-encoder] [--counts]

Labelled pairs: 100 that the first version dropped as near duplicates (near_labelled.jsonl), and 200 in
duplicate_labels.json as `set, row, row, label`, rows counted from 0 in the set's file: drops by `answers`, and pairs of
`semantic` whose prompts and whose answers have a cosine of 0.7 or more. They were labelled by reading: `copy` (the same
task and answer), `variant` (another template; nothing but wording is lost) and `distinct` (another task or answer
would be lost). Only `distinct` is a wrong drop. Each stage decides about each pair as it does in a run of the whole
set, by its default settings.

The halves are drawn by a hash. Near: only pairs of the half `fitted` were read while the rules were made. Semantic: all
pairs were labelled without their scores, and the threshold of the sides (0.9) was chosen on `fitted`; that whole rows
must reach 0.95 besides was added when `held out` showed 20 of 24 right without, so its precision here is flattered.
`answers` has nothing that was fitted. Recall is of the pairs that are not distinct.
`--counts` adds how many rows each stage drops on each of the eight sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import polars as pl

from siftune.curation.exact_interval import clopper_pearson
from siftune.curation.prepare import Prepared, prepare
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.curation.stages import stages
from tests.real_data import DATA, json_rows

LABELS = Path(__file__).with_name("duplicate_labels.json")
SETS = {
    "t0": "t0_prompt_completion.jsonl.gz",
    "mix": "mix.jsonl.gz",
    "toolformer": "gpteacher_toolformer.json.gz",
    "self_instruct": "self_instruct_5k.jsonl",
    "rasbt": "rasbt_alpaca.json",
    "glaive": "glaive_sharegpt.json",
    "gsm8k": "gsm8k_train.jsonl.gz",
    "hh": "hh_chosen_rejected.jsonl.gz",
}


@dataclass(frozen=True)
class LabelledPair:
    """Two rows of a set by id, and whether they are `copy`, `variant` or `distinct`."""

    dataset: str
    one: str
    other: str
    label: str
    half: str


def half(key: str) -> str:
    return "held out" if hashlib.sha256(key.encode()).digest()[0] % 2 else "fitted"


def recipe(dataset: str, *, encoder: bool = False) -> Recipe:
    source = {"path": str(DATA / "instructions" / SETS[dataset]), "name": dataset}
    document = {"sources": [source], "encoder": "auto" if encoder else None}
    return Recipe.model_validate(document | ({"duplicates": {"semantic": {"preselect": False}}} if encoder else {}))


@cache
def prepared(dataset: str) -> Prepared:
    """The whole set as a run reads it: what is a template depends on all of its rows."""
    folder = Path(tempfile.mkdtemp(prefix="duplicates-"))
    return prepare(recipe(dataset), RunFolder.create(folder / "run", recipe_name=dataset), base=folder)


def near_labelled() -> list[LabelledPair]:
    """The labelled near duplicates, found again in their sets by their texts."""
    pairs = []
    for row in json_rows(DATA / "pairs" / "near_labelled.jsonl"):
        ids = [_id_of(row["set"], row[side]) for side in ("dropped", "kept")]
        key = json.dumps([row["dropped"], row["kept"]], sort_keys=True)
        if None not in ids:
            pairs.append(LabelledPair(row["set"], str(ids[0]), str(ids[1]), row["label"], half(key)))
    return pairs


def _id_of(dataset: str, row: dict[str, str]) -> str | None:
    return _ids_by_text(dataset).get((row["prompt"].strip(), row["answer"].strip()))


@cache
def _ids_by_text(dataset: str) -> dict[tuple[str, str], str]:
    texts = pl.read_parquet(prepared(dataset).corpus.texts, columns=["id", "prompt", "answer"])
    listed = reversed(texts.rows())
    return {(prompt.strip(), answer.strip()): row_id for row_id, prompt, answer in listed}


def labelled_here(stage: str) -> list[LabelledPair]:
    rows = json.loads(LABELS.read_text(encoding="utf-8"))[stage]
    short = {"toolformer": "tool"}  # how the sets were called when the halves were drawn
    return [
        LabelledPair(name, f"{name}:{a}", f"{name}:{b}", label, half(f"{short.get(name, name)}:{a}:{b}:half"))
        for name, a, b, label in rows
    ]


def called_duplicates(stage_name: str, pairs: list[LabelledPair], *, encoder: bool = False) -> list[bool]:
    """Whether a stage calls the rows of each pair duplicates; of all rows it measures only those of the pairs."""
    decided: set[frozenset[str]] = set()
    for dataset in {pair.dataset for pair in pairs}:
        ids = {row for pair in pairs if pair.dataset == dataset for row in (pair.one, pair.other)}
        alive = prepared(dataset).index.filter(pl.col("id").is_in(list(ids)))
        stage = next(
            stage for stage in stages(recipe(dataset, encoder=encoder), base=Path()) if stage.name == stage_name
        )
        measured = stage.measure(prepared(dataset).corpus, alive, None).frame
        threshold = stage.similarity.threshold if stage.similarity else 1.0
        reached = measured.filter(pl.col("score") >= threshold, ~pl.col("guarded"))
        decided |= {frozenset(row) for row in reached.select("a", "b").iter_rows()}
        if stage.similarity is None or stage_name == "answers":  # stars: rows of one star belong together
            for _, star in reached.group_by("a"):
                rows = [star["a"][0], *star["b"]]
                decided |= {frozenset((one, other)) for one in rows for other in rows if one != other}
    return [frozenset((pair.one, pair.other)) in decided for pair in pairs]


def share(part: int, whole: int) -> str:
    if not whole:
        return "none"
    low, high = clopper_pearson(part, whole)
    return f"{part}/{whole} = {part / whole:.3f} [{low:.3f}, {high:.3f}]"


def report(stage: str, pairs: list[LabelledPair], *, encoder: bool = False) -> None:
    called = called_duplicates(stage, pairs, encoder=encoder)
    sets = sorted({pair.dataset for pair in pairs})
    for name, chosen in [("all", sets), *[(one, [one]) for one in sets if len(sets) > 1]]:
        for part in ("fitted", "held out"):
            rows = [
                (pair, hit)
                for pair, hit in zip(pairs, called, strict=True)
                if pair.half == part and pair.dataset in chosen
            ]
            right = sum(hit and pair.label != "distinct" for pair, hit in rows)
            print(
                f"  {stage:<10}{name:<12}{part:<10}"
                f"precision {share(right, sum(hit for _, hit in rows)):<34}"
                f"recall {share(right, sum(pair.label != 'distinct' for pair, _ in rows))}",
                flush=True,
            )


def count_drops(dataset: str) -> None:
    alive, counts = prepared(dataset).index, []
    for stage in stages(recipe(dataset), base=Path()):
        if not stage.compares:
            continue
        decided = stage.decide(alive, stage.measure(prepared(dataset).corpus, alive, None).frame)
        drops = decided.filter(pl.col("action") == "drop")
        alive = alive.join(drops.select("id"), on="id", how="anti", maintain_order="left")
        counts.append(f"{stage.name} {drops.height:,}")
    print(f"  {dataset:<16}{prepared(dataset).index.height:>8,} rows: {', '.join(counts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-encoder", action="store_true", help="leave the semantic stage out")
    parser.add_argument("--counts", action="store_true", help="count the drops of every stage on every set")
    options = parser.parse_args()
    near = near_labelled()
    print(f"{len(near)} labelled near duplicates found in their sets; of these")
    report("exact", near)
    report("near", near)
    print("200 labelled here; of these")
    report("answers", labelled_here("answers"))
    if not options.no_encoder:
        report("semantic", labelled_here("semantic"), encoder=True)
    if options.counts:
        print("Rows dropped, stage after stage, by the default recipe without an encoder")
        for dataset in SETS:
            count_drops(dataset)


if __name__ == "__main__":
    main()
