"""How trainers name the curated set: an entry of LLaMA-Factory's dataset_info.json, a snippet of an axolotl config.

The formats are those of LLaMA-Factory 0.9.5 (data/README.md, *OpenAI Format*) and axolotl 0.19.0 (docs,
*Dataset Formats: Conversation* and *Dataset Loading*).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from siftune.curation.split_names import TRAIN

#: The file in the folder of the set, where LLaMA-Factory looks for it (`dataset_dir`).
LLAMA_FACTORY_FILE = "dataset_info.json"
#: Roles of turns as LLaMA-Factory calls them, and as they are called in the set.
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}


def entry_name(recipe_name: str, split: str) -> str:
    """What a split is called in dataset_info.json: LLaMA-Factory takes a list of names with commas between them."""
    name = re.sub(r"[^\w.-]+", "-", recipe_name).strip("-") or "curated"
    return name if split == TRAIN else f"{name}_{split}"


def llama_factory_entries(recipe_name: str, splits: Sequence[str], *, hub: str = "") -> str:
    """The text of dataset_info.json.

    Args:
        recipe_name: the name of the recipe.
        splits: the splits of the set.
        hub: `owner/name` of the set on the hub; empty: the files are in the same folder.
    """
    entries: dict[str, Any] = {}
    for split in splits:
        source = {"hf_hub_url": hub, "split": split} if hub else {"file_name": f"{split}.parquet"}
        layout = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _TAGS}
        entries[entry_name(recipe_name, split)] = source | layout
    return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"


def axolotl_datasets(splits: Sequence[str], *, hub: str = "") -> str:
    """The part of an axolotl config that names the set: all splits but `train` are test data.

    Args:
        splits: the splits of the set.
        hub: `owner/name` of the set on the hub; empty: the files, by their path from the folder of the set.
    """
    config: dict[str, list[dict[str, str]]] = {}
    for split in splits:
        # The only split of a single file is called train.
        source = (
            {"path": hub, "split": split} if hub else {"path": f"{split}.parquet", "ds_type": "parquet", "split": TRAIN}
        )
        entry = source | {"type": "chat_template", "field_messages": "messages"}
        config.setdefault("datasets" if split == TRAIN else "test_datasets", []).append(entry)
    return yaml.safe_dump(config, sort_keys=False)
