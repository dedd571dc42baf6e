"""Check the certificate of a run folder without any code of the project: plain Python sets over what was written.

    python tests/curation/splits/brute_force.py RUN

Reads the arms, the held-out sets and the compared texts of the run, and compares every held-out row with every row of
every arm (and the two held-out sets with each other) by equality and by Jaccard similarity of word shingles.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq

UNSPACED = (
    "[\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)


def words_of(text: str) -> list[str]:
    """The lower-case words of a text; one character is a word in scripts without spaces."""
    return re.findall(rf"{UNSPACED}|(?:(?!{UNSPACED})\w)+", unicodedata.normalize("NFKC", text).lower())


def shingles(text: str, size: int) -> frozenset[tuple[str, ...]]:
    """Runs of `size` lower-case words; one run of all words when there are fewer."""
    words = words_of(text)
    width = min(size, len(words))
    return (
        frozenset(tuple(words[start : start + width]) for start in range(len(words) - width + 1))
        if words
        else frozenset()
    )


def jaccard(one: str, two: str, size: int) -> float:
    """The Jaccard similarity of the shingles of two texts; 0 for a text without any."""
    a, b = shingles(one, size), shingles(two, size)
    return len(a & b) / len(a | b) if a and b else 0.0


Passage = tuple[str, ...]


def passages(turns: list[str], core: str | None) -> set[Passage]:
    """What is searched for of a row: the turns of its prompt, and its core where that is another text, as words."""
    asked = tuple(spaced for turn in turns if (spaced := " ".join(words_of(turn))))
    left = " ".join(words_of(core or ""))
    return {passage for passage in (asked, (left,) if left else ()) if passage}


def stands_in(passage: Passage, text: str) -> bool:
    """Whether the turns of a passage stand in a text of words, in order and without overlap."""
    rest = f" {text} "
    for turn in passage:
        _before, found, after = rest.partition(f" {turn} ")
        if not found:
            return False
        rest = f" {after}"
    return True


def containments(
    rows: dict[str, tuple[list[str], str | None, str]], *, most_prompts: int
) -> tuple[set[tuple[str, str]], set[Passage]]:
    """Which row stands inside which, and the passages that identify nothing.

    Args:
        rows: by id the turns of the prompt, the core where it is another text, and the whole dialogue.
        most_prompts: a passage that so many other prompts hold identifies nothing.
    """
    own = {name: passages(turns, core) for name, (turns, core, _) in rows.items()}
    prompt = {
        name: tuple(" ".join(words_of(turn)) for turn in turns if words_of(turn))
        for name, (turns, _, _) in rows.items()
    }
    texts = {
        name: [" ".join(words_of(text)) for text in (dialogue, core) if text]
        for name, (_, core, dialogue) in rows.items()
    }
    # Only rows with the rarest word of a passage can hold it.
    having = defaultdict(set)
    for name, parts in texts.items():
        for word in " ".join(parts).split():
            having[word].add(name)
    inside, common = set(), set()
    all_owners = defaultdict(set)
    for name, its_passages in own.items():
        for passage in its_passages:
            all_owners[passage].add(name)
    for passage, owners in all_owners.items():
        if max(len(turn.split()) for turn in passage) < 4:
            continue
        candidates = min((having[word] for turn in passage for word in turn.split()), key=len)
        holders = {name for name in candidates if any(stands_in(passage, text) for text in texts[name])}
        limit = most_prompts if sum(len(turn.split()) for turn in passage) >= 8 else min(5, most_prompts)
        if len({prompt[name] for name in holders - owners}) >= limit:
            common.add(passage)
        else:
            inside |= {(owner, name) for owner in owners for name in owners | holders if name != owner}
    return inside, common


def normal(text: str) -> str:
    """The exact key: NFC, white space made one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def similar(
    left: dict[str, str], right: dict[str, str], *, size: int, threshold: float
) -> list[tuple[str, str, float]]:
    """Pairs of ids at or above the threshold, by equality (1.0) or by Jaccard similarity."""
    holders, keys = defaultdict(list), defaultdict(list)
    sets = {name: shingles(text, size) for name, text in right.items()}
    for name, text in right.items():
        keys[normal(text)].append(name)
        for shingle in sets[name]:
            holders[shingle].append(name)
    pairs = []
    for name, text in left.items():
        own = shingles(text, size)
        shared = Counter(other for shingle in own for other in holders.get(shingle, ()))
        scores = {other: count / (len(own) + len(sets[other]) - count) for other, count in shared.items()}
        scores |= dict.fromkeys(keys[normal(text)] if normal(text) else (), 1.0)
        pairs += [(name, other, score) for other, score in scores.items() if score >= threshold]
    return pairs


def containment_leaks(run: Path, held: dict[str, list[str]], trained: set[str]) -> list[tuple[str, str, float]]:
    """Pairs across the splits one of which stands inside the other, found by searching every passage in every row."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    texts = pq.read_table(run / manifest["files"]["texts"], columns=["id", "prompt", "core"]).to_pylist()
    messages = pq.read_table(run / manifest["files"]["examples"], columns=["id", "messages"]).to_pylist()
    rows = {}
    for text, example in zip(texts, messages, strict=True):
        turns = [turn["content"] for turn in example["messages"] if turn["role"] not in ("system", "assistant")]
        core = text["core"] if text["core"] != text["prompt"] else None
        rows[text["id"]] = (turns, core, "\n".join(turn["content"] for turn in example["messages"]))
    most_prompts = max(50, -int(-0.002 * len(rows) // 1))  # the defaults of `keys`
    inside, _ = containments(rows, most_prompts=most_prompts)
    split_of = {name: split for split, names in held.items() for name in names} | dict.fromkeys(trained, "train")
    across = {tuple(sorted(pair)) for pair in inside if {*pair} <= split_of.keys()}
    return [(one, other, 1.0) for one, other in sorted(across) if split_of[one] != split_of[other]]


def leaks(run: Path) -> list[tuple[str, str, float]]:
    """All pairs across the splits of a run at or above its own leak threshold."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    threshold = manifest["certificate"]["thresholds"]["near"]
    size = int(re.search(r"(\d+)-word", manifest["certificate"]["method"])[1])
    table = pq.read_table(run / manifest["files"]["texts"], columns=["id", "core", "answer"]).to_pydict()
    dialogue = "leaks: dialogue" in manifest["recipe"]
    texts = {
        name: f"{core}\n{answer}" if dialogue else core
        for name, core, answer in zip(table["id"], table["core"], table["answer"], strict=True)
    }
    held, trained = {}, {}
    for file in sorted((run / "heldout").glob("*.parquet")):
        held[file.stem] = {name: texts[name] for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}
    for file in sorted((run / "arms").glob("*.parquet")):
        trained |= {name: texts[name] for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}
    pairs = [pair for part in held.values() for pair in similar(trained, part, size=size, threshold=threshold)]
    if "containment" in manifest["certificate"]["thresholds"]:
        pairs += containment_leaks(run, {name: list(part) for name, part in held.items()}, set(trained))
    return pairs + similar(held.get("validation", {}), held.get("test", {}), size=size, threshold=threshold)


if __name__ == "__main__":
    pairs = leaks(Path(sys.argv[1]))
    sys.stdout.write(f"{len(pairs)} pairs across splits at or above the threshold\n")
    sys.stdout.writelines(f"{score:.3f}  {one}  {two}\n" for one, two, score in pairs[:20])
    sys.exit(bool(pairs))
