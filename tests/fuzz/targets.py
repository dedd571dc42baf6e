"""What is fuzzed: readers of files, recipes, chat templates, and programs of rows.

Each target takes bytes and raises for a fault of ours; a `UserError` is an answer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from siftune.curation.decontamination.program_behaviour import results
from siftune.curation.errors import UserError
from siftune.curation.ingest.sources import read_sources
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.recipe.sections import Source
from tests.hostile_files import RECIPES, cases

KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow", "jsonl.gz", "jsonl.zst")
_LARGEST = 20_000  # bytes of a seed


def reader(data: bytes) -> None:
    """The first byte chooses the kind of the file, the others are its content: every row is read or quarantined."""
    if not data:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"s.{KINDS[data[0] % len(KINDS)]}"
        path.write_bytes(data[1:])
        out, faults = folder / "out.parquet", folder / "faults.jsonl"
        try:
            report = read_sources([Source(path=path.name)], base=folder, out=out, quarantine=faults)
        except UserError:
            return
        quarantined = sum(map(bool, faults.read_bytes().split(b"\n")))
        kept = pl.scan_parquet(out).select(pl.len()).collect().item()
        assert report.rows == kept + quarantined, (report.rows, kept, quarantined)


def recipe(data: bytes) -> None:
    """The bytes are a recipe: it is accepted, or refused in a message."""
    try:
        parse_recipe(data.decode(errors="replace"))
    except UserError:
        return


def template(data: bytes) -> None:
    """The text before the first NUL is a chat template, those after it are turns: what is trained stands in a turn."""
    from siftune.training import masks
    from tests.training.worlds import arm_frame, message

    source, *texts = data.decode(errors="replace").split("\0")
    tokenizer = _tokenizer()
    tokenizer.chat_template = source
    roles = ("user", "assistant")
    turns = [message(roles[number % 2], text) for number, text in enumerate(texts or ["q", "a"])]
    try:
        masks.tokenise(tokenizer, arm_frame([turns]), max_length=2_000)
    except UserError:
        return


@cache
def _tokenizer() -> Any:
    from tests.training.worlds import tiny_tokenizer

    return tiny_tokenizer("chatml")


def program(data: bytes) -> None:
    """The bytes are a text that may hold a program: it gives results, or none."""
    results(data.decode(errors="replace"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "reader": reader,
    "recipe": recipe,
    "template": template,
    "program": program,
}


def seeds(target: str) -> Iterator[bytes]:
    """Inputs to begin with."""
    if target == "recipe":
        yield from (one if isinstance(one, bytes) else one.encode(errors="surrogatepass") for one in RECIPES)
        yield from (path.read_bytes() for path in sorted(Path(__file__).parents[2].glob("data/**/*.yaml")))
    elif target == "program":
        from tests.curation.decontamination import test_program_interpreter as programs

        yield from (programs.source(function).encode() for function in programs.PROGRAMS)
        yield from (f"def f(x):\n    {body}\n".encode() for body in programs.HOSTILE.values())
    elif target == "template":
        from tests.training import chat_template_table

        for source in chat_template_table.templates().values():
            yield source.encode() + b"\0What is a list?\0An ordered collection.\0And <|im_end|> then?\0  {{ x }}\n"
    else:
        with tempfile.TemporaryDirectory() as name:
            for case in cases(Path(name)):
                kind = next((kind for kind in KINDS if case.path.name == f"s.{kind}"), None)
                if kind and case.path.stat().st_size < _LARGEST:
                    yield bytes([KINDS.index(kind)]) + case.path.read_bytes()
        yield b"\0" + json.dumps({"messages": [{"role": "user", "content": "q"}]}).encode()
