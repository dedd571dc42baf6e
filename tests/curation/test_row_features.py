"""Features of rows: what is stored is read, what is not is computed, and the order is that of the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.corpus import Corpus, EarlierSet
from siftune.curation.row_features import RowFeatures, feature_path, row_features

NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6]


def written_texts(path: Path, prompts: list[str]) -> Path:
    frame = pl.DataFrame({"id": [f"s:{row}" for row in range(len(prompts))], "prompt": prompts})
    schema.conform(frame, schema.TEXTS).write_parquet(path)
    return path


def lengths(prompts: list[str]) -> RowFeatures:
    """Of each prompt its number, and as many zeros to it as it says."""
    sizes = np.array([int(prompt) for prompt in prompts], np.int64)
    return RowFeatures({"number": sizes}, sizes, np.repeat(sizes, sizes))


@given(
    own=st.lists(st.sampled_from(NUMBERS), max_size=4),
    earlier=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=6),
    data=st.data(),
)
def test_stored_features_are_read_and_others_computed(
    tmp_path_factory: object, own: list[int], earlier: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("features")  # type: ignore[attr-defined]
    theirs = written_texts(folder / "theirs.parquet", list(map(str, earlier)))
    ours = written_texts(folder / "ours.parquet", list(map(str, own)))
    positions = st.lists(st.sampled_from(range(len(earlier))), unique=True).map(sorted)
    stored = np.array(data.draw(positions), np.uint32)
    if stored.size:
        lengths([str(earlier[row]) for row in stored]).write(feature_path(theirs, "length", {}), stored)
    kept = np.array(data.draw(positions), np.uint32)
    corpus = Corpus(ours, ours, "", earlier=(EarlierSet("old:", theirs, theirs, kept),))
    computed: list[str] = []

    def compute(rows: np.ndarray) -> RowFeatures:
        ids = [row_id for frame in corpus.frames(["id", "prompt"], rows) for row_id in frame["id"]]
        computed.extend(ids)
        return lengths([prompt for frame in corpus.frames(["prompt"], rows) for prompt in frame["prompt"]])

    wanted = data.draw(st.lists(st.sampled_from(range(len(own) + len(kept)) or [0]), unique=True).map(sorted))
    wanted = wanted if len(own) + len(kept) else []
    features = row_features(corpus, np.array(wanted, np.uint32), name="length", settings={}, compute=compute)
    numbers = [*own, *(earlier[row] for row in kept)]
    expected = lengths([str(numbers[row]) for row in wanted])
    assert features.by_row["number"].tolist() == expected.by_row["number"].tolist()
    assert features.flat is not None
    assert expected.flat is not None
    assert features.flat.tolist() == expected.flat.tolist()
    unstored = {f"old:s:{kept[row - len(own)]}" for row in wanted if row >= len(own)}
    unstored -= {f"old:s:{row}" for row in stored}
    assert set(computed) == unstored | {f"s:{row}" for row in wanted if row < len(own)}
    if own_rows := [row for row in wanted if row < len(own)]:
        with np.load(feature_path(ours, "length", {})) as file:
            assert file["rows"].tolist() == own_rows


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    texts = written_texts(tmp_path / "theirs.parquet", ["3", "1"])
    empty = written_texts(tmp_path / "ours.parquet", [])
    feature_path(texts, "length", {}).write_bytes(b"PK\x03\x04 no archive")
    corpus = Corpus(empty, empty, "", earlier=(EarlierSet("old:", texts, texts, np.array([0, 1], np.uint32)),))

    def compute(rows: np.ndarray) -> RowFeatures:
        return lengths([prompt for frame in corpus.frames(["prompt"], rows) for prompt in frame["prompt"]])

    rows = np.array([0, 1], np.uint32)
    features = row_features(corpus, rows, name="length", settings={}, compute=compute)
    assert features.by_row["number"].tolist() == [3, 1]
