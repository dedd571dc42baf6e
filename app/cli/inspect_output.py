"""What `siftune inspect` says: a source at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from siftune.app.cli.terminal import line, notes, table
from siftune.curation.review.inspect import Inspection
from siftune.curation.review.wording import percent

_TURNS = 4


def inspection(found: Inspection) -> RenderableType:
    """A source at a glance."""
    source = found.source
    files = f"{len(source.files):,} files, " if len(source.files) != 1 else ""
    parts: list[RenderableType] = [
        Text.assemble((line(source.path), "bold"), f": {source.format}, {files}{source.rows:,} rows"),
        Text.assemble(("columns  ", "dim"), line(", ".join(source.columns) or "none")),
        *(_tallied(label, counts) for label, counts in _tallies(found) if counts),
        Text(),
        _counted(found),
    ]
    if found.lengths:
        quantiles = list(next(iter(found.lengths.values())))
        rows = [(name.replace("_", ", "), *sizes.values()) for name, sizes in found.lengths.items()]
        parts += [Text(), table("Lengths", ["", *quantiles], rows)]
    for sample in found.samples:
        parts += [Text(), *_sampled(sample)]
    if found.warnings:
        parts += [Text(), *notes(found.warnings)]
    return Group(*parts)


def _tallies(found: Inspection) -> Iterator[tuple[str, dict[str, int]]]:
    yield "splits ", {name or "none": count for name, count in found.splits.items()} if any(found.splits) else {}
    yield "roles  ", found.roles
    yield "turns  ", {f"{turns} turns": count for turns, count in found.turns.items()}


def _tallied(label: str, counts: dict[str, int]) -> Text:
    words = ", ".join(
        f"{name} {count:,}" if "turn" not in name else f"{name}: {count:,}" for name, count in counts.items()
    )
    return Text.assemble((f"{label}  ", "dim"), line(words))


def _counted(found: Inspection) -> Table:
    """How many rows can be used, how many are lost and why, how many repeat others."""
    source = found.source
    rows = [("usable", source.examples)]
    rows += [(f"quarantined: {reason}", count) for reason, count in source.quarantined.items()]
    if found.duplicates:
        copies = found.duplicates
        rows.append(("exact duplicates", copies.exact))
        if copies.near is not None:
            rows.append((f"near duplicates besides (Jaccard ≥ {copies.near_threshold:g})", copies.near))
        if copies.answers:
            rows.append(("answers that too many rows share", copies.answers))
        rows.append(("prompt repeats with another answer", copies.conflicts))
    shares = [(label, count, percent(count, source.rows)) for label, count in rows]
    return table("Rows", ["", "rows", "share"], shares)


def _sampled(sample: dict[str, Any]) -> Iterator[Text]:
    yield Text(line(sample["id"]), style="bold")
    turns = sample["messages"]
    for turn in turns[:_TURNS]:
        yield Text.assemble((f"{line(turn['role'])}: ", "cyan"), line(turn["content"], most=300))
    if len(turns) > _TURNS:
        yield Text(f"… and {len(turns) - _TURNS} turns more", style="dim")
