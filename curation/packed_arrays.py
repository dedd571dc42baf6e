"""Arrays as text, for the metadata of Parquet files."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray


def pack(array: NDArray[np.unsignedinteger]) -> str:
    """The elements of an array, compressed; `unpack` with the same dtype gives them back."""
    return base64.b64encode(zlib.compress(array.tobytes())).decode("ascii")


def unpack(text: str, dtype: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """The array that `pack` was given. Raises `ValueError` or `zlib.error` for any other text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype)
