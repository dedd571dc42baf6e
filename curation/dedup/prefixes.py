"""Beginnings of dialogues: rows whose turns, all of them, open a longer dialogue that is a row of its own.

A common export writes a dialogue of three answers as three rows, each with one answer more. The longest says all that
the others say, so they are dropped: the same turns in the same roles, word for word; the same system prompt, unless the
recipe ignores it; the same tools and the same fields of turns; and every answer that is trained in the shorter row is
trained in the longer one too. Rows that train only their last answer therefore all stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from siftune.curation.corpus import Corpus
from siftune.curation.dedup.decisions import decisions, pair_positions, pairs_frame
from siftune.curation.dedup.leaders import Pairs
from siftune.curation.formats.turns import MARK_KEYS, is_trained
from siftune.curation.measurement import Knob, Measured
from siftune.curation.progress import Progress
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import SystemPrompts
from siftune.curation.row_features import RowFeatures, row_features
from siftune.curation.schema import EXAMPLES, Key, empty
from siftune.curation.split_names import HELD_OUT, standard_splits
from siftune.curation.text.words import normalise

_SEEDS = (11, 29)  # two hashes of 64 bits stand for a dialogue, as in `siftune.curation.dedup.exact`
_TOOLS = ("tools", "functions")  # in `meta`: what the chat template is given besides the turns
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_NO_ROWS = empty(EXAMPLES)


@dataclass(frozen=True)
class DialoguePrefixes:
    """Rows that are the beginning of another row's dialogue. See `siftune.curation.stages.Stage` for the methods."""

    name: ClassVar[str] = "prefixes"
    title: ClassVar[str] = "Beginnings of dialogues"
    knobs: ClassVar[tuple[Knob, ...]] = ()
    similarity: ClassVar[None] = None
    compares: ClassVar[Key] = "dialogue"
    system: SystemPrompts

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, base: Path) -> Self | None:
        return cls(recipe.duplicates.system) if recipe.duplicates.prefixes else None

    def depends(self) -> dict[str, Any]:
        return {"system": self.system}

    def measure(self, corpus: Corpus, alive: pl.DataFrame, progress: Progress | None) -> Measured:
        def hash_rows(some: NDArray[np.uint32]) -> RowFeatures:
            hashed = [
                dialogue_hashes(frame, with_system=self.system == "distinguish")
                for frame in corpus.example_frames(["messages", "meta"], some)
            ]
            return RowFeatures.joined([dialogue_hashes(_NO_ROWS, with_system=True), *hashed])

        rows = alive["row"].to_numpy()
        shorter, longer = _prefixes(
            row_features(corpus, rows, name="dialogue-hashes", settings=self.depends(), compute=hash_rows)
        )
        return self.measured(alive, shorter, longer)

    def measured(self, alive: pl.DataFrame, shorter: NDArray[np.int64], longer: NDArray[np.int64]) -> Measured:
        """What is stored of rows that begin others, positions in `alive` (INDEX)."""
        fewer = (alive["turns"].gather(shorter) < alive["turns"].gather(longer)).to_numpy()
        a, b = np.minimum(shorter, longer)[fewer], np.maximum(shorter, longer)[fewer]
        order = np.lexsort((b, a))
        pairs = Pairs(a[order].astype(np.uint32), b[order].astype(np.uint32), np.ones(len(order)))
        return Measured(pairs_frame(alive, pairs, measure=self.name, sides=("prompt_score", "answer_score")))

    def decide(self, alive: pl.DataFrame, measured: pl.DataFrame) -> pl.DataFrame:
        pairs, _ = pair_positions(alive, measured)
        turns, rank = alive["turns"].to_numpy().astype(np.int64), alive["rank"].to_numpy()
        a, b = pairs.a.astype(np.int64), pairs.b.astype(np.int64)
        shorter, longer = np.where(turns[a] < turns[b], [a, b], [b, a])
        # A held-out row does not give way to a training row, nor the reverse; nor does a row that was restored.
        split = standard_splits(alive["split"])
        side = split.set(~split.is_in(HELD_OUT).fill_null(value=False), None).fill_null("").to_numpy()
        may_go = (side[shorter] == side[longer]) & ~alive["pinned"].to_numpy()[shorter]
        shorter, longer = shorter[may_go], longer[may_go]
        # The longest dialogue stays; of equally long ones the first in keep order is the witness.
        stays = ~np.isin(longer, shorter)
        shorter, longer = shorter[stays], longer[stays]
        order = np.lexsort((rank[longer], -turns[longer], shorter))
        dropped, first = np.unique(shorter[order], return_index=True)
        witness = longer[order][first]
        ids = alive["id"]
        drops = pl.DataFrame(
            {"id": ids.gather(dropped), "witness": ids.gather(witness), "score": np.ones(len(dropped))}
        )
        details = [
            f"its {turns[one]} turns open a dialogue of {turns[other]}"
            for one, other in zip(dropped, witness, strict=True)
        ]
        decided = decisions(drops, action="drop", reason="dialogue_prefix", threshold=1.0)
        return decided.with_columns(detail=pl.Series(details, dtype=pl.String))


def dialogue_hashes(frame: pl.DataFrame, *, with_system: bool) -> RowFeatures:
    """Hashes of the turns of rows with `messages` and `meta`; without their system turns where these are ignored.

    `flat` has two hashes of each turn and whether it is not trained, uint64 [t, 3]; `context` two hashes of what comes
    before the first turn, the tools, uint64 [n, 2].
    """
    numbered = frame.with_row_index("row")
    notes = [_notes(row, meta) for row, meta in numbered.filter(_has_notes()).select("row", "meta").rows()]
    fields = [(row, position, *of_turn) for row, _, by_turn in notes for position, of_turn in by_turn.items()]
    columns = {"row": pl.UInt32, "position": pl.UInt32, "fields": pl.String, "untrained": pl.Boolean}
    noted = pl.DataFrame(fields, columns, orient="row")
    turns = numbered.select("row", "messages").explode("messages").unnest("messages")
    turns = turns.with_columns(position=pl.int_range(pl.len(), dtype=pl.UInt32).over("row"))
    turns = turns.join(noted, on=["row", "position"], how="left", maintain_order="left")
    if not with_system:
        turns = turns.filter(pl.col("role") != "system")
    turn = pl.struct("role", normalise(pl.col("content").fill_null("")), pl.col("fields").fill_null(""))
    hashes = [turns.select(turn.hash(seed)).to_series().to_numpy() for seed in _SEEDS]
    untrained = turns["untrained"].fill_null(value=False).cast(pl.UInt64).to_numpy()
    of_row = pl.DataFrame(
        [(row, tools) for row, tools, _ in notes], {"row": pl.UInt32, "tools": pl.String}, orient="row"
    )
    tools = numbered.select("row").join(of_row, on="row", how="left", maintain_order="left")["tools"].fill_null("")
    context = np.stack([tools.hash(seed).to_numpy() for seed in _SEEDS], axis=1)
    counts = np.bincount(turns["row"].to_numpy(), minlength=frame.height)
    return RowFeatures({"context": context}, counts, np.stack([*hashes, untrained], axis=1))


def _prefixes(dialogues: RowFeatures) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows, int64[m], and the longer row, int64[m], that each is the beginning of and adds nothing to."""
    states = dialogue_states(dialogues)
    row, longer = joined_prefixes(states)
    offsets = np.concatenate([[0], np.cumsum(dialogues.sizes)])
    silent = add_nothing(offsets, states["is_untrained"].to_numpy(), row, longer)
    return row[silent], longer[silent]


def dialogue_states(dialogues: RowFeatures) -> pl.DataFrame:
    """What each dialogue was after each of its turns, row by row, from what `dialogue_hashes` gives.

    Columns: `one` and `other`, two hashes of all turns so far; `row`; `is_last`, whether the dialogue ends there; and
    `is_untrained`, whether the turn is not trained.
    """
    counts, state, flat = dialogues.sizes, dialogues.by_row["context"].T.copy(), dialogues.flat
    assert flat is not None
    starts = np.concatenate([[0], np.cumsum(counts)])
    turns = flat[:, :2].T.copy()
    # All rows one turn further in each round.
    for depth in range(int(counts.max(initial=0))):
        rows = np.flatnonzero(counts > depth)
        at = starts[rows] + depth
        mixed = (state[:, rows] ^ (state[:, rows] >> np.uint64(29))) * _FACTOR + turns[:, at]
        state[:, rows] = turns[:, at] = mixed
    is_last = np.zeros(turns.shape[1], bool)
    is_last[starts[1:][counts > 0] - 1] = True
    row = np.repeat(np.arange(len(counts)), counts)
    untrained = flat[:, 2].astype(bool)
    return pl.DataFrame({"one": turns[0], "other": turns[1], "row": row, "is_last": is_last, "is_untrained": untrained})


def joined_prefixes(states: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that end as another row was after one of its earlier turns, int64[m], and these others, int64[m]; sorted.

    `states` are those of `dialogue_states`, all of them or all with some hashes.
    """
    frame = states.select("one", "other", pl.col("row").cast(pl.Int64), "is_last")
    dialogue, beginning = frame.filter("is_last"), frame.filter(~pl.col("is_last"))
    beginning = beginning.join(dialogue.select("one").unique(), on="one", how="semi")
    pairs = dialogue.join(beginning, on=["one", "other"], how="inner", suffix="_longer").sort("row", "row_longer")
    return pairs["row"].to_numpy(), pairs["row_longer"].to_numpy()


def add_nothing(
    offsets: NDArray[np.int64], untrained: NDArray[np.bool_], row: NDArray[np.int64], longer: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """For each row and the longer one that it begins, whether every turn that it trains is trained there too: bool [m].

    Args:
        offsets: where the turns of each row begin, int64 [n + 1].
        untrained: which turns are not trained, bool [t].
        row: int64 [m].
        longer: int64 [m].
    """
    if not untrained.any():
        return np.ones(len(row), bool)
    counts = np.diff(offsets)
    return np.array(
        [
            bool((untrained[offsets[one] : offsets[one + 1]] | ~untrained[offsets[other] :][: counts[one]]).all())
            for one, other in zip(row, longer, strict=True)
        ],
        bool,
    )


def _has_notes() -> pl.Expr:
    return pl.any_horizontal(pl.col("meta").str.contains(f'"{name}"', literal=True) for name in ("_turns", *_TOOLS))


def _notes(row: int, meta: str) -> tuple[int, str, dict[int, tuple[str, bool]]]:
    """A row, its tools, and by the position of its turns: their fields but for marks of training, and these marks."""
    document = orjson.loads(meta)
    by_turn = {
        int(position): (_text({key: fields[key] for key in fields if key not in MARK_KEYS}), not is_trained(fields))
        for position, fields in document.get("_turns", {}).items()
    }
    return row, _text({name: document[name] for name in _TOOLS if document.get(name)}), by_turn


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() if value else ""
