"""A short run of the fuzz targets, the same each time: seeds with bytes changed, cut, doubled and joined."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS, seeds

INPUTS = {"reader": 250, "recipe": 100, "template": 12, "program": 60}


def changed(draw: random.Random, seed: bytes, other: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(5):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del data[at : at + draw.randint(1, 30)]
            case 2:
                data[at:at] = data[at : at + 20]
            case 3:
                data[at:] = other[draw.randrange(len(other) + 1) :]
            case _:
                data[at:at] = draw.choice(
                    [b'"', b"{", b"}", b"[", b"]", b"\n", b"\0", b"\xff", b"\\u", b"*", b"&a ", b"{%", b"}}"]
                )
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_changed_seeds(target: str) -> None:
    if target == "template":
        pytest.importorskip("transformers")
    draw, corpus = random.Random(14), sorted(seeds(target))
    for _ in range(INPUTS[target]):
        data = changed(draw, draw.choice(corpus), draw.choice(corpus))
        try:
            TARGETS[target](data)
        except Exception as fault:
            raise AssertionError(f"{target}({data[:2_000]!r})") from fault
