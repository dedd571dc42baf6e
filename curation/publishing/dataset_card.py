"""The dataset card of a curated set."""

from __future__ import annotations

from pathlib import PurePath

from siftune.curation.ingest.source_location import HUB
from siftune.curation.markdown import escape, table
from siftune.curation.publishing.trainer_entries import axolotl_datasets, entry_name
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.review.funnel import funnel
from siftune.curation.run.manifest import Manifest
from siftune.curation.split_names import HELD_OUT, TRAIN
from siftune.curation.text.hidden_characters import visible

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def published_splits(manifest: Manifest) -> list[str]:
    """The splits of the curated set that have rows, and `train` in any case."""
    counts = manifest.finished_counts()
    return [TRAIN, *(name for name in HELD_OUT if getattr(counts, name))]


def text(manifest: Manifest, recipe: Recipe, *, hub: str = "") -> str:
    """A dataset card as the Hugging Face hub reads it: the sources, what was removed and why, how to load the set.

    Args:
        manifest: of the finished run.
        recipe: of the run.
        hub: `owner/name` of the set on the hub; empty: the card stands in the folder of the set.
    """
    counts, splits = manifest.finished_counts(), published_splits(manifest)
    size = next((label for limit, label in _SIZES if counts.kept < limit), "1M<n<10M")
    files = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in splits)
    steps = [
        [step.stage, f"{step.rows:,}", f"{step.removed:,}", f"{step.kept:,}"]
        for step in funnel(manifest)
        if step.stage != "write"
    ]
    funnel_table = "\n".join(table(["stage", "rows in", "removed", "rows out"], steps, numbers=(1, 2, 3)))
    sources = "\n".join(f"- {_source_name(source.path)}" for source in recipe.sources)
    name = manifest.recipe_name
    evaluation = "".join(f"\neval_dataset: {entry_name(name, split)}" for split in splits[1:2])
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

# {escape(visible(name))}, curated

Instruction data curated by siftune {manifest.siftune.version}.
{counts.kept:,} of {counts.input:,} rows were kept.
Licences are those of the sources.

{funnel_table}
Sources:

{sources}

Columns: `id` (source:row of the input), `source`, `messages` (role, content), `meta` (JSON text: everything else the
row had). The run's `ledger.parquet` names the reason, the score and the witness of every row that is not here.

## Use

```python
from datasets import load_dataset

load_dataset("{hub or "PATH/OF/THIS/FOLDER"}")
```

[LLaMA-Factory](https://github.com/hiyouga/LLaMA-Factory) reads `dataset_info.json` beside this card (format of version
0.9.5):

```yaml
dataset_dir: {f"REMOTE:{hub}" if hub else "PATH/OF/THIS/FOLDER"}
dataset: {entry_name(name, TRAIN)}{evaluation}
```

[axolotl](https://docs.axolotl.ai) (format of version 0.19.0){"" if hub else "; paths are relative to this folder"}:

```yaml
{axolotl_datasets(splits, hub=hub)}```

Both train every assistant turn. What turns had besides role and content (weights, reasoning, tool calls) is in `meta`
under `_turns`, which only siftune reads.
"""


def _source_name(path: str) -> str:
    """A source without the folders that it was in, which are nobody else's business."""
    return escape(visible(path if path.startswith(HUB) else PurePath(path).name or path))
