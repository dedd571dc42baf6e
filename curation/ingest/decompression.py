"""The bytes of a file in pieces, decompressed; of a damaged or truncated file, everything that can be read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from siftune.curation.errors import UserError
from siftune.curation.ingest.file_kinds import COMPRESSED_ENDINGS

#: Is called with what the user should know of a file.
Warn = Callable[[str], None]
#: Is called with the number of bytes that were read since the last call.
OnBytes = Callable[[int], None]

_MAGIC: dict[bytes, str] = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_WINDOW = 1 << 31  # bytes: of `zstd --long=31`
_PIECE = 1 << 18  # bytes that are read from disk at a time
#: Bytes that are inflated in one go: gzip makes at most 1,032 times as many of them, zstd 32,000 times (a block of four
#: bytes that says "128 KiB of this byte").
_SLICE = 1 << 13
#: Where a compressed file stops: text compresses 5 to 50 times, copies of one row a few hundred times. Below the least
#: number of bytes nothing is refused.
MOST_EXPANSION, LEAST_REFUSED = 500, 1 << 28


def compression(path: Path) -> str | None:
    """The compression of a file (`.gz`, `.zst` or None) by its first bytes, since its name may be wrong.

    Raises:
        UserError: the file is named as compressed and is not, or is a pointer of Git LFS.
    """
    with path.open("rb") as file:
        head = file.read(len(_LFS_POINTER))
    if head == _LFS_POINTER:
        raise UserError(f"{path} is a pointer of Git LFS, not the data. Fetch the data with: git lfs pull")
    ending = next((ending for magic, ending in _MAGIC.items() if head.startswith(magic)), None)
    if ending is None and path.suffix.lower() in COMPRESSED_ENDINGS and head:
        raise UserError(f"{path} ends in {path.suffix} but is not compressed. Rename it, or compress it again.")
    return ending


def read_pieces(path: Path, *, warn: Warn, on_bytes: OnBytes | None = None) -> Iterator[bytes]:
    """The content of a file, decompressed, in pieces.

    Args:
        path: The file.
        warn: Is called when the compressed file is truncated or damaged.
        on_bytes: Is called with the number of bytes read from disk for each piece.

    Raises:
        UserError: see `compression`; or the file grows without end.
    """
    ending = compression(path)
    with path.open("rb") as file:
        raw = _counted(iter(lambda: file.read(_PIECE), b""), on_bytes)
        yield from raw if ending is None else _decompressed(raw, ending, path, warn)


def _counted(pieces: Iterator[bytes], on_bytes: OnBytes | None) -> Iterator[bytes]:
    for piece in pieces:
        if on_bytes is not None:
            on_bytes(len(piece))
        yield piece


def _decompressed(pieces: Iterator[bytes], ending: str, path: Path, warn: Warn) -> Iterator[bytes]:
    """Decompress members (gzip) or frames (zstd), one after the other as both formats allow."""
    unused = _decompressor(ending)  # None while a member is being read
    inflate = unused
    size = inflated = 0
    try:
        for part in (piece[at : at + _SLICE] for piece in pieces for at in range(0, len(piece), _SLICE)):
            size += len(part)
            rest = part
            while rest:
                content = inflate.decompress(rest)
                inflated += len(content)
                if inflated > max(LEAST_REFUSED, MOST_EXPANSION * size):
                    raise UserError(
                        f"{path} grows to more than {MOST_EXPANSION} times its size; files that do are made to fill "
                        "memory and disks. If it is data all the same, unpack it and give the unpacked file."
                    )
                yield content
                rest = inflate.unused_data if inflate.eof else b""
                if inflate.eof:
                    inflate = unused = _decompressor(ending)
                    rest = rest.lstrip(b"\0")  # archives may be padded with zeros
                else:
                    unused = None
    except (zlib.error, zstandard.ZstdError) as error:
        warn(f"the {ending} file is damaged ({error}); everything after the damage was lost")
        return
    if inflate is not unused:
        warn(f"the {ending} file is truncated")


def _decompressor(ending: str) -> Any:
    return (
        zlib.decompressobj(wbits=31)
        if ending == ".gz"
        else zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
    )
