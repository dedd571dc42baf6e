# ruff: noqa: E402 - the path comes first
"""Does curation help, on which data, and which stage helps? Real training runs, resumable run by run.

    python tests/benchmarks/proof.py [docs] [mix] [t0] [--tokens 10000] [--seeds 5] [--folder runs/proof]

`docs` is the embedded default: raw, curated, random, balanced-random, and curated without each stage; `mix` and `t0`
are the sets of that name beside the checkout: raw, curated, random, balanced-random. Everything else is the recipe of
`settings` below, which was fixed before any result was looked at. Held-out loss is the primary outcome everywhere;
secondary ones are the quiz (docs) and 300 items of MMLU in cloze form (mix, t0).

Each set is curated, trained and compared by the product's own commands in FOLDER/NAME, which keeps what is done: a
second call goes on where the first one stopped. The verdict of each set is printed, and lies in FOLDER/NAME/run.
On two cores a run of 10,000 trained tokens takes minutes, and all of them a night; with CUDA use more tokens.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import yaml

from siftune.curation.pipeline import curate
from siftune.data import python_docs, python_quiz
from siftune.training.arms import train
from siftune.training.evaluation.compare import compare
from tests.real_data import DATA

CONTROLS = ["raw", "curated", "random", "balanced-random"]
#: The stages that are left out in turn of `docs`. The others drop nothing there.
STAGES = ("exact", "near", "answers", "semantic", "contamination", "balance")


def settings(name: str, folder: Path, *, tokens: int, seeds: int) -> dict[str, Any]:
    """The recipe of a set: the demo's, with its own data, arms, budget and tasks."""
    recipe: dict[str, Any] = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text(encoding="utf-8"))
    recipe |= {"name": name, "run": "run"}
    recipe["training"] |= {"arms": CONTROLS, "budget": {"tokens": tokens}, "seeds": list(range(seeds))}
    recipe["compare"] = {"max_rows": 300}
    if name == "docs":
        recipe["sources"] = [{"path": "python_docs.jsonl", "name": "python_docs", "format": "alpaca"}]
        recipe["contamination"]["references"][0]["path"] = str(ROOT / "data" / "quiz.jsonl")
        recipe["training"]["arms"] = [*CONTROLS, *({"name": f"no-{stage}", "without": [stage]} for stage in STAGES)]
        recipe["compare"]["tasks"] = [{"path": str(folder / "python_quiz.jsonl"), "name": "python-quiz"}]
        return recipe
    mmlu = str(DATA / "benchmarks" / "mmlu_test.jsonl.gz")
    recipe["contamination"] = {"references": [{"path": mmlu, "name": "mmlu"}]}
    recipe["compare"]["tasks"] = [{"path": mmlu, "name": "mmlu", "subjects": "mmlu-15", "max_items": 300}]
    if name == "mix":
        source = {"path": str(DATA / "instructions" / "mix.jsonl.gz"), "name": "mix", "source_column": "source"}
    else:
        source = {"path": str(DATA / "instructions" / "t0_prompt_completion.jsonl.gz"), "name": "t0"}
    # The thresholds of the recipe reference: the demo's are those of short questions on documentation.
    return recipe | {"sources": [source], "checks": {}, "duplicates": {"semantic": {}}}


def prove(name: str, folder: Path, *, tokens: int, seeds: int) -> None:
    """Curate a set, train what is not trained yet, compare, and print the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "docs":
        python_docs.build(folder / "python_docs.jsonl")
        python_quiz.build(folder / "python_docs.jsonl")
    recipe = folder / f"{name}.yaml"
    document = settings(name, folder, tokens=tokens, seeds=seeds)
    recipe.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    run = curate(recipe)
    # A seed at a time: after each, every arm has as many runs as any other.
    for seed in range(seeds):
        train(run, seeds=[seed], progress=_print_progress)
    verdict = compare(run, progress=_print_progress)
    print(f"\n# {name}\n\n{verdict.headline}\n\n{run.verdict_markdown.read_text(encoding='utf-8')}", flush=True)


def _print_progress(label: str, done: int, total: int) -> None:
    if done == total:
        print(f"{label} ({done} of {total})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help="docs, mix, t0; default: all three")
    parser.add_argument("--tokens", type=int, default=10_000, help="trained tokens of a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "proof")
    options = parser.parse_args()
    names = options.sets or ["docs", "mix", "t0"]
    for name in names:
        if name not in ("docs", "mix", "t0"):
            parser.error(f"there is no set {name!r}; the sets are docs, mix and t0")
    for name in names:
        prove(name, options.folder / name, tokens=options.tokens, seeds=options.seeds)


if __name__ == "__main__":
    main()
