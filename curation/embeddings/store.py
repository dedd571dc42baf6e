"""Texts to vectors: what an encoder is, and a store that encodes each distinct text once and never again.

The store is a folder of immutable segments. A segment is written under a temporary name and moved into place, carries
a checksum, and is named by its content; so a process that is killed leaves nothing half-written, and processes that
write at the same time cannot touch each other's segments.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from siftune.curation.cache_folder import cache_folder
from siftune.curation.embeddings.cosine import unit
from siftune.curation.progress import Progress

_KEY = np.dtype([("high", ">u8"), ("low", ">u8")])
_HEADER = np.dtype([("magic", "S8"), ("rows", "<u8"), ("dimension", "<u8"), ("checksum", "<u8")])
_MAGIC = b"siftune1"
#: Tuning: rows in a segment. A killed process loses at most so many: some 10 seconds of a 2-core CPU.
FLUSH_ROWS = 2048
_CHUNK_ROWS = 32_768  # distinct new texts held in memory, sorted by length


class Encoder(Protocol):
    """Anything that turns texts into unit vectors. `name` identifies weights and precision: it names the cache.

    A vector must depend on its own text alone, not on the other texts of the call.
    """

    @property
    def name(self) -> str:
        """Model, precision and a hash of the weights."""

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Unit vectors, float32 [n, d]."""


@runtime_checkable
class WindowEncoder(Protocol):
    """An encoder that reads only the beginning of a long text, and knows how to cut it."""

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text in pieces that are read to the end; together they cover it."""


def load(name: str | None) -> Encoder | None:
    """The encoder called `name` in a recipe: "auto" (all-MiniLM-L6-v2), a hub name or a folder; None for None.

    Nothing heavy is imported or read until the first text is encoded.

    Raises:
        UserError: the model is not to be had, or has no safetensors weights.
    """
    if name is None:
        return None
    from siftune.curation.embeddings.sentence_transformer import SentenceModel, find

    folder, label = find(name)
    return SentenceModel(folder, label=label)


@dataclass(frozen=True)
class EmbeddingStore:
    """Vectors of texts by content (xxh3-128) and encoder, float16 on disk, memory-mapped."""

    encoder: Encoder
    root: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of this encoder's segments."""
        return (self.root or cache_folder() / "embeddings") / self.encoder.name.replace("/", "--")

    def embed(
        self, texts: Iterable[pl.Series] | Sequence[str], *, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        """Vectors float16 [n, d] of `texts`, a sequence of them or a stream of series (null counts as empty).

        Only texts the store has not seen are encoded, each once, long ones first; they are stored as it goes, so
        a run that was killed goes on where it stopped, with the same result.
        """
        segments = _Segments(self.folder)
        keys: list[NDArray[np.void]] = []
        waiting: dict[bytes, str] = {}
        for batch in _batches(texts):
            digests = list(map(xxhash.xxh3_128_digest, map(str.encode, batch)))
            keys.append(np.frombuffer(b"".join(digests), dtype=_KEY))
            missing = np.flatnonzero(segments.find(keys[-1]) < 0)
            waiting.update({digests[row]: batch[row] for row in missing})
            if len(waiting) >= _CHUNK_ROWS:
                self._encode(waiting, progress)
                waiting, segments = {}, _Segments(self.folder)
        if waiting:
            self._encode(waiting, progress)
            segments = _Segments(self.folder)
        return segments.take(np.concatenate([np.empty(0, dtype=_KEY), *keys]))

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text in pieces that the encoder reads to the end; whole where the encoder does not say."""
        return self.encoder.windows(texts) if isinstance(self.encoder, WindowEncoder) else [[text] for text in texts]

    def stored(self, texts: Iterable[pl.Series] | Sequence[str]) -> StoredVectors:
        """Which of `texts` the store has seen; nothing is encoded. Raises `UserError` when there is no such model."""
        segments = _Segments(self.folder)
        positions = [segments.find(_digests(batch)) for batch in _batches(texts)]
        return StoredVectors(segments, np.concatenate([np.empty(0, np.int64), *positions]))

    def copy_stored(self, texts: Iterable[pl.Series], folder: Path) -> None:
        """Copy the vectors that the store holds of `texts` into a folder of their own, which then holds no others."""
        segments, written = _Segments(self.folder), set()
        digests = np.unique(np.concatenate([np.empty(0, _KEY), *map(_digests, _batches(texts))]))
        known = digests[segments.find(digests) >= 0]
        for start in range(0, len(known), _CHUNK_ROWS):
            part = known[start : start + _CHUNK_ROWS]
            written.add(_write_segment(folder, part.astype(_KEY).tobytes(), segments.take(part)))
        for path in folder.glob("*.vectors"):
            if path not in written:
                path.unlink()

    def adopt(self, folder: Path) -> None:
        """Take in the vectors of a folder that `copy_stored` wrote with this encoder."""
        own = _Segments(self.folder)
        for path in sorted(folder.glob("*.vectors")):
            segment = _read_segment(path)
            if segment is not None and (own.find(segment[0]) < 0).any():
                _write_segment(self.folder, segment[0].tobytes(), segment[1])

    def _encode(self, waiting: dict[bytes, str], progress: Progress | None) -> None:
        """Encode and store. Sorted by length then key: the order of the input must not show in the files."""
        order = sorted(waiting, key=lambda key: (-len(waiting[key]), key))
        for start in range(0, len(order), FLUSH_ROWS):
            part = order[start : start + FLUSH_ROWS]
            vectors = self.encoder.encode([waiting[key] for key in part])
            _write_segment(self.folder, b"".join(part), vectors.astype(np.float16))
            if progress is not None:
                progress("encoding", start + len(part), len(order))


@dataclass(frozen=True)
class StoredVectors:
    """The vectors that a store holds of some texts; they stay on disk."""

    _segments: _Segments
    _positions: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool[n]: which texts have a vector."""
        return self._positions >= 0

    def cosines(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """The cosine of every text with the unit vector `query`; NaN for a text that has no vector."""
        cosine = np.full(len(self._positions), np.nan, dtype=np.float32)
        rows = np.flatnonzero(self.known)
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = rows[start : start + _CHUNK_ROWS]
            cosine[part] = unit(self._segments.at(self._positions[part])) @ query
        return cosine


def _digests(batch: Sequence[str]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(xxhash.xxh3_128_digest(text.encode()) for text in batch), dtype=_KEY)


def _batches(texts: Iterable[pl.Series] | Sequence[str]) -> Iterator[list[str]]:
    """Lists of texts; strings in a row are gathered, a series is one batch."""
    gathered: list[str] = []
    for item in texts:
        if isinstance(item, pl.Series):
            yield item.fill_null("").to_list()
        else:
            gathered.append(item)
    if gathered:
        yield gathered


class _Segments:
    """All whole segments of a folder as one table, sorted by key."""

    def __init__(self, folder: Path) -> None:
        self._vectors: list[NDArray[np.float16]] = []
        keys: list[NDArray[np.void]] = []
        for path in sorted(folder.glob("*.vectors")):
            segment = _read_segment(path)
            if segment is not None:
                keys.append(segment[0])
                self._vectors.append(segment[1])
        sizes = [len(part) for part in keys]
        all_keys = np.concatenate([np.empty(0, dtype=_KEY), *keys])
        order = np.lexsort((all_keys["low"].astype(np.uint64), all_keys["high"].astype(np.uint64)))
        self._high = all_keys["high"].astype(np.uint64)[order]
        self._low = all_keys["low"].astype(np.uint64)[order]
        self._segment = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._row = np.concatenate([np.arange(size) for size in sizes] or [np.empty(0, np.int64)])[order]

    def find(self, keys: NDArray[np.void]) -> NDArray[np.int64]:
        """The position of each key in the table, int64 [n]; -1 where it is not there."""
        high, low = keys["high"].astype(np.uint64), keys["low"].astype(np.uint64)
        if not self._high.size:
            return np.full(len(keys), -1, dtype=np.int64)
        position = np.minimum(np.searchsorted(self._high, high), self._high.size - 1)
        # Two texts that share 64 bits stand side by side: step on until the other 64 bits agree too.
        while True:
            step = (self._high[position] == high) & (self._low[position] != low) & (position + 1 < self._high.size)
            step &= self._high[np.minimum(position + 1, self._high.size - 1)] == high
            if not step.any():
                break
            position = position + step
        equal = (self._high[position] == high) & (self._low[position] == low)
        return np.where(equal, position, -1)

    def take(self, keys: NDArray[np.void]) -> NDArray[np.float16]:
        """The vectors of keys that are all in the table, float16 [n, d]."""
        positions = self.find(keys)
        if (positions < 0).any():
            raise RuntimeError("a vector that was just stored is gone; is another program deleting the cache?")
        return self.at(positions)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """The vectors at these positions of the table, float16 [n, d]."""
        width = self._vectors[0].shape[1] if self._vectors else 0
        vectors = np.empty((len(positions), width), dtype=np.float16)
        segment, row = self._segment[positions], self._row[positions]
        order = np.argsort(segment, kind="stable")
        bounds = np.searchsorted(segment[order], np.arange(len(self._vectors) + 1))
        for number, part in enumerate(self._vectors):
            rows = order[bounds[number] : bounds[number + 1]]
            vectors[rows] = part[row[rows]]
        return vectors


def _write_segment(folder: Path, keys: bytes, vectors: NDArray[np.float16]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    body = keys + np.ascontiguousarray(vectors).tobytes()
    checksum = xxhash.xxh3_64_intdigest(body)
    header = np.array((_MAGIC, *vectors.shape, checksum), dtype=_HEADER).tobytes()
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(header + body)
        file.flush()
        os.fsync(file.fileno())
    return Path(temporary).replace(folder / f"{checksum:016x}.vectors")


def _read_segment(path: Path) -> tuple[NDArray[np.void], NDArray[np.float16]] | None:
    """Keys and vectors of a segment, memory-mapped; None for a file that is not whole (its texts are encoded anew)."""
    if path.stat().st_size < _HEADER.itemsize:
        return None
    data = np.memmap(path, dtype=np.uint8, mode="r")
    magic, rows, dimension, checksum = (value.item() for value in data[: _HEADER.itemsize].view(_HEADER)[0])
    body = data[_HEADER.itemsize :]
    is_whole = magic == _MAGIC and body.size == rows * (_KEY.itemsize + 2 * dimension)
    if not is_whole or xxhash.xxh3_64_intdigest(body.data) != checksum:
        return None
    split = rows * _KEY.itemsize
    return body[:split].view(_KEY), body[split:].view(np.float16).reshape(rows, dimension)


@cache
def embedder(name: str) -> EmbeddingStore:
    """The store of embeddings by the encoder that a recipe names; raises `UserError` when it is not to be had."""
    encoder = load(name)
    assert encoder is not None, "a recipe without an encoder has no semantic measure"
    return EmbeddingStore(encoder)
