# ruff: noqa: E402 - the path comes first
"""What preselection keeps: the pairs of the semantic stage as it ships against those of every row.

    python tests/benchmarks/preselect.py [--rows 5000] [--duplicates] [SET ...]

SETS are names of instruction sets in ../shared/data, all by default; their rows are drawn at random and read and
measured as in a run. With `--duplicates`, half of the rows are drawn from those that resemble another row by their
words, so that a sample of a large set holds more of its pairs. Below them stand sets of pairs that were made by
paraphrasing: texts without answers, of which only the preselection by words is asked. Embeddings come from the default
cache, and go there.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import polars as pl

from siftune.curation.dedup import embedding_pairs, preselect
from siftune.curation.dedup.semantic import SemanticDuplicates
from siftune.curation.embeddings.store import EmbeddingStore, load
from siftune.curation.prepare import prepare
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import Semantic
from siftune.curation.run.folder import RunFolder
from tests.real_data import DATA, json_rows, read_text

PARAPHRASES = ("mbpp_semantic_duplicates.csv", "clinc150.json.gz", "CodeAlpacaDB.jsonl")


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in inner for text in strings(part)]


def read_distinct(path: Path) -> list[str]:
    """Distinct rows of a file as texts."""
    if path.suffix == ".csv":
        rows: list[Any] = [row["prompt"] for row in csv.DictReader(io.StringIO(read_text(path)))]
    elif ".jsonl" in path.name:
        rows = json_rows(path)
    else:
        document = json.loads(read_text(path))
        rows = [row[0] for part in document.values() for row in part] if "clinc" in path.name else document
    return list(dict.fromkeys("\n".join(strings(row)) for row in rows))


def of_rows(name: str, file: Path, *, rows: int, duplicates: bool) -> str:
    """One line of the table: the stage on a sample of a set with preselection, and without."""
    document = {"sources": [{"path": str(file), "name": name}], "duplicates": {"semantic": {}}}
    recipe = Recipe.model_validate(document)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", recipe_name=name)
        prepared = prepare(recipe, run, base=Path(folder))
        draw = np.random.default_rng(0).permutation(prepared.index.height)
        if duplicates:
            everything = prepared.index["row"].to_numpy()
            texts = pl.concat(list(prepared.corpus.key_texts("dialogue", everything)))
            alike = np.argsort(-preselect.overlaps(texts), kind="stable")[: rows // 2]
            draw = np.concatenate([alike, draw[~np.isin(draw, alike)]])
        sample = prepared.index[np.sort(draw[:rows])]
        frames, notes = [], {}
        for on in (False, True):
            settings = recipe.model_copy(
                update={"duplicates": recipe.duplicates.model_copy(update={"semantic": Semantic(preselect=on)})}
            )
            stage = SemanticDuplicates.from_recipe(settings, base=Path(folder))
            assert stage is not None
            measured = stage.measure(prepared.corpus, sample, None)
            frames.append(measured.frame)
            notes = measured.notes
    searched = int(notes["prompts"].split()[0].replace(",", "")) if "prompts" in notes else sample.height
    encoded = int(notes["search"].split()[2]) if "among" in notes["search"] else searched
    kept = []
    for threshold in (stage.settings.floor, stage.settings.threshold):
        full, some = (frame.filter(pl.col("score") >= threshold) for frame in frames)
        both = full.join(some, on=["a", "b"], how="semi").height
        kept.append(f"{both} of {full.height}")
    return f"| {name} | {sample.height} | {searched} | {encoded} | {kept[0]} | {kept[1]} |"


def of_texts(name: str, texts: list[str], *, rows: int) -> str:
    """One line of the table: the preselection by words on texts without answers."""
    embed, defaults = EmbeddingStore(load("auto")).embed, Semantic()
    sample = pl.Series(texts).gather(np.random.default_rng(0).permutation(len(texts))[:rows])
    full = embedding_pairs.cosine_pairs(embed([sample]), floor=defaults.rows)
    some = embedding_pairs.preselected_pairs(sample, embed, floor=defaults.rows)
    encoded = int(some.method.split()[2]) if "among" in some.method else len(sample)
    return f"| {name} | {len(sample)} | – | {encoded} | {len(some)} of {len(full)} | – |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--duplicates", action="store_true", help="draw half of the rows from those like another row")
    parser.add_argument("sets", nargs="*", metavar="SET")
    options = parser.parse_args()
    head = ["set", "rows", "prompt like another", "whole rows encoded", "pairs kept", "at the threshold"]
    print(f"| {' | '.join(head)} |\n" + "|---" * len(head) + "|", flush=True)
    for file in sorted((DATA / "instructions").iterdir()):
        name = file.name.partition(".")[0]
        if not options.sets or name in options.sets:
            print(of_rows(name, file, rows=options.rows, duplicates=options.duplicates), flush=True)
    for name in () if options.sets else PARAPHRASES:
        print(of_texts(name, read_distinct(DATA / "pairs" / name), rows=options.rows), flush=True)


if __name__ == "__main__":
    main()
