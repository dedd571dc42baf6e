"""The dataset card of a curated set."""

from __future__ import annotations

from siftune.curation.markdown import table
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.review.funnel import funnel
from siftune.curation.run.manifest import Manifest
from siftune.curation.split_names import HELD_OUT, TRAIN

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def text(manifest: Manifest, recipe: Recipe) -> str:
    """A dataset card as the Hugging Face hub reads it: the sources, what was removed and why, how to load the set."""
    counts = manifest.finished_counts()
    size = next((label for limit, label in _SIZES if counts.kept < limit), "1M<n<10M")
    splits = [TRAIN, *(name for name in HELD_OUT if getattr(counts, name))]
    files = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in splits)
    steps = [
        [step.stage, f"{step.rows:,}", f"{step.removed:,}", f"{step.kept:,}"]
        for step in funnel(manifest)
        if step.stage != "write"
    ]
    funnel_table = "\n".join(table(["stage", "rows in", "removed", "rows out"], steps, numbers=(1, 2, 3)))
    sources = "\n".join(f"- `{source.path}`" for source in recipe.sources)
    return f"""---
configs:
- config_name: default
  data_files:
{files}
size_categories:
- {size}
task_categories:
- text-generation
tags:
- instruction-tuning
- siftune
---

# {manifest.recipe_name}, curated

Instruction data curated by siftune {manifest.siftune.version}.
{counts.kept:,} of {counts.input:,} rows were kept.
Licences are those of the sources.

{funnel_table}
Sources:

{sources}

Columns: `id` (source:row of the input), `source`, `messages` (role, content), `meta` (JSON text: everything else the
row had). Load it with `datasets.load_dataset("parquet", data_dir=THIS_FOLDER)`. The run's `ledger.parquet` names the
reason, the score and the witness of every row that is not here.
"""
