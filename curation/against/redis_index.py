"""An index of curated rows in Redis that a team shares: MinHash LSH of datasketch, and the rows themselves.

Two indices of `datasketch.MinHashLSH`, each under a base name: NAME over whole rows (prompt and answer, as the near
stage compares them), NAME/prompts over prompts alone. Keys are the ids `RUN:ID` in UTF-8; nothing is pickled. Besides
them NAME/settings, a JSON document of what must be equal on both sides; NAME/runs, a hash of the runs that were put in;
and NAME/rows, a hash of the rows by id, as JSON compressed with zstd. Signatures are those of datasketch's scheme
`affine32` with seed 1, see `siftune.curation.dedup.minhash`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from siftune.curation.dedup.minhash import Sketches, bands, signatures
from siftune.curation.errors import UserError, missing_extra

if TYPE_CHECKING:
    from datasketch import MinHashLSH

SCHEME = "redis://"
PASSWORD = "REDIS_PASSWORD"  # noqa: S105 - the name of an environment variable
_NAME = "siftune"
_BATCH = 1000  # rows that are sent or asked for at a time
_SECONDS = 30  # to wait for an answer


@dataclass(frozen=True)
class IndexSettings:
    """What an index and a recipe must have in common.

    Attributes:
        keys: the recipe's `keys`.
        shingle: words in a shingle.
        permutations: MinHash permutations.
        floor: rows at least this similar are candidates.
        prompt_floor: rows with prompts at least this similar are candidates.
    """

    keys: dict[str, Any]
    shingle: int
    permutations: int
    floor: float
    prompt_floor: float

    def bands(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Bands and values in a band of the index of rows and of that of prompts: recall 0.99 at each floor."""
        return bands(self.floor, self.permutations), bands(self.prompt_floor, self.permutations)

    def require_fit(self, recipe: IndexSettings, *, address: str) -> None:
        """Raise `UserError` unless an index with these settings finds what a recipe with those compares.

        Args:
            recipe: of the recipe.
            address: of the index.
        """
        for name in ("keys", "shingle", "permutations"):
            if (ours := getattr(recipe, name)) != (theirs := getattr(self, name)):
                raise UserError(
                    f"The index {address} was made with {name}: {theirs}, and this recipe says {ours}. Set it as "
                    "there, or make another index with `siftune index`."
                )
        named = {"floor": "duplicates.near.floor", "prompt_floor": "splits.near"}
        for name, field in named.items():
            if getattr(recipe, name) < getattr(self, name):
                raise UserError(
                    f"The index {address} finds rows from a similarity of {getattr(self, name)} on, and {field} is "
                    f"{getattr(recipe, name)}. Raise it to that, or make another index with `siftune index`."
                )


@dataclass(frozen=True)
class RedisIndex:
    """An index under its name on a server.

    Attributes:
        server: how datasketch and redis connect.
        name: the base name.
        address: as the user wrote it.
    """

    server: dict[str, Any]
    name: str
    address: str

    @classmethod
    def at(cls, address: str) -> Self:
        """The index that `redis://HOST:PORT/DATABASE?index=NAME` names; nothing is connected.

        Raises:
            UserError: the address is not of this form, or the client is not installed.
        """
        parts = urlsplit(address)
        if parts.username or parts.password:
            raise UserError(
                f"The address of an index holds no password, since it is kept with the run. Set {PASSWORD} in the "
                "environment and write redis://HOST:PORT/DATABASE?index=NAME."
            )
        query = parse_qs(parts.query)
        database = parts.path.strip("/") or "0"
        try:
            port = parts.port or 6379
        except ValueError:
            port = 0
        if not parts.hostname or not port or not database.isdigit() or set(query) - {"index"}:
            raise UserError(f"{address} is no address of an index. Write redis://HOST:PORT/DATABASE?index=NAME.")
        try:
            import redis  # noqa: F401 - datasketch defines its storage in Redis only where this is installed
        except ImportError:
            raise missing_extra("redis", "redis") from None
        server = {
            "host": parts.hostname,
            "port": port,
            "db": int(database),
            "password": os.environ.get(PASSWORD),
            "socket_timeout": _SECONDS,
            "socket_connect_timeout": _SECONDS,
        }
        return cls(server, query.get("index", [_NAME])[0], address)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A `redis.Redis` client. Raises `UserError` when the server is not there, or is lost."""
        import redis

        try:
            with redis.Redis(**self.server) as client:
                yield client
        except redis.RedisError as fault:
            raise UserError(
                f"The index {self.address} cannot be reached ({' '.join(str(fault).split())}). Start its server, or "
                "correct the address, and run the same command again: what was done is kept."
            ) from None

    def settings(self) -> IndexSettings | None:
        """The settings of the index; None where there is none of this name."""
        with self.connected() as client:
            document = client.get(self._key("settings"))
        try:
            return IndexSettings(**orjson.loads(document)) if document else None
        except (TypeError, orjson.JSONDecodeError):
            raise UserError(
                f"What stands at {self.address} is no index of this version of siftune. Give the index another name: "
                "?index=NAME."
            ) from None

    def create(self, settings: IndexSettings) -> None:
        """Make the index, or see that there is one of the same settings.

        Raises:
            UserError: there is an index of this name with other settings.
        """
        with self.connected() as client:
            client.set(self._key("settings"), orjson.dumps(settings), nx=True)
        there = self.settings()
        assert there is not None
        there.require_fit(settings, address=self.address)
        if there != settings:
            raise UserError(
                f"The index {self.address} was made with another floor ({there.floor}, for prompts "
                f"{there.prompt_floor}). Give the new one another name: ?index=NAME."
            )

    def claim(self, run: str, fingerprint: str) -> None:
        """Say which rows stand in the index under the name of a run.

        Raises:
            UserError: rows of another run have this name already.
        """
        with self.connected() as client:
            client.hsetnx(self._key("runs"), run, fingerprint)
            if client.hget(self._key("runs"), run).decode() != fingerprint:
                raise UserError(
                    f"The index {self.address} holds other rows under the name {run!r}. Give this run another name "
                    "there: siftune index RUN ADDRESS --name NAME"
                )

    def insert(self, ids: Sequence[str], rows: Sequence[Mapping[str, Any]], sketches: Sketches) -> None:
        """Put rows into the index that are not in it.

        Args:
            ids: their ids in the index.
            rows: the rows as JSON types.
            sketches: of the rows.
        """
        compress = zstandard.ZstdCompressor().compress
        with self.connected() as client:
            known = client.hmget(self._key("rows"), ids)
            missing = [row for row, value in enumerate(known) if value is None]
            settings = self.settings()
            assert settings is not None
            for prompts, lsh in enumerate(self._lsh(settings)):
                signed = signatures(sketches, permutations=settings.permutations, prompts=bool(prompts))
                with lsh.insertion_session() as session:
                    for row in missing:
                        if not _is_empty(signed[row]):
                            session.insert(ids[row].encode(), _minhash(signed[row]), check_duplication=False)
            # A row counts as put in once it is whole.
            if missing:
                client.hset(self._key("rows"), mapping={ids[row]: compress(orjson.dumps(rows[row])) for row in missing})

    def candidates(self, sketches: Sketches, settings: IndexSettings) -> set[str]:
        """The ids of rows that share a band with one of these, by whole rows or by prompts."""
        ids: set[bytes] = set()
        with self.connected():
            for prompts, lsh in enumerate(self._lsh(settings)):
                signed = signatures(sketches, permutations=settings.permutations, prompts=bool(prompts))
                filled = signed[~(signed == _EMPTY).all(axis=1)]
                # As `lsh.query` for each row, but one message for the rows of a band.
                for table, (start, end) in zip(lsh.hashtables, lsh.hashranges, strict=True):
                    for at in range(0, len(filled), _BATCH):
                        part = np.ascontiguousarray(filled[at : at + _BATCH, start:end]).byteswap()
                        for bucket in table.getmany(*{row.tobytes() for row in part}):
                            ids.update(bucket)
        return {key.decode() for key in ids}

    def rows(self, ids: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of these ids as they were put in; one that is still being put in is left out."""
        decompress = zstandard.ZstdDecompressor().decompress
        with self.connected() as client:
            for start in range(0, len(ids), _BATCH):
                part = ids[start : start + _BATCH]
                for row_id, value in zip(part, client.hmget(self._key("rows"), part), strict=True):
                    if value is not None:
                        try:
                            yield row_id, orjson.loads(decompress(value))
                        except (zstandard.ZstdError, orjson.JSONDecodeError):
                            raise UserError(
                                f"The row {row_id} in the index {self.address} is damaged. Delete it there and put its "
                                "run in again: siftune index RUN ADDRESS"
                            ) from None

    def _key(self, part: str) -> str:
        return f"{self.name}/{part}"

    def _lsh(self, settings: IndexSettings) -> tuple[MinHashLSH, MinHashLSH]:
        """The index of whole rows and that of prompts."""
        from datasketch import MinHashLSH

        def index(name: str, shape: tuple[int, int]) -> MinHashLSH:
            storage = {"type": "redis", "basename": name.encode(), "redis": self.server}
            return MinHashLSH(num_perm=settings.permutations, params=shape, storage_config=storage, prepickle=False)

        of_rows, of_prompts = settings.bands()
        return index(self.name, of_rows), index(self._key("prompts"), of_prompts)


#: The values of the signature of an empty set.
_EMPTY = np.uint32(0xFFFFFFFF)


def _is_empty(signature: NDArray[np.uint32]) -> bool:
    return bool((signature == _EMPTY).all())


def _minhash(signature: NDArray[np.uint32]) -> Any:
    from datasketch import MinHash

    return MinHash(hashvalues=signature, scheme="affine32")
