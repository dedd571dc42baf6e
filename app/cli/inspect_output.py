"""What is said of data before they are curated: the summary of `siftune inspect`, and the defaults of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from siftune.app.cli.terminal import line, notes, table
from siftune.curation.review.inspect import Inspection, QuarantineReason
from siftune.curation.review.wording import percent
from siftune.curation.stages import stages

if TYPE_CHECKING:
    from siftune.curation.run.recipe_file import RecipeFile

_MOST_TURNS = 4  # of each sample


def inspection_report(inspection: Inspection, columns: Mapping[str, str]) -> RenderableType:
    """The summary of a data set: format, columns, counts, lengths, samples, warnings.

    `columns` are the roles that the user gave to columns.
    """
    source = inspection.source
    files = f"{len(source.files):,} files, " if len(source.files) != 1 else ""
    parts: list[RenderableType] = [
        Text.assemble((line(source.path), "bold"), f": {source.format}, {files}{source.rows:,} rows"),
        Text.assemble(("columns  ", "dim"), line(", ".join(source.columns) or "none")),
        *_text_columns(inspection),
        *(_counts_line(label, counts) for label, counts in _counts(inspection) if counts),
        Text(),
        _row_table(inspection),
    ]
    for quarantined in inspection.quarantined:
        parts += [Text(), *_quarantine_lines(quarantined)]
    if inspection.lengths:
        quantiles = list(next(iter(inspection.lengths.values())))
        rows = [(name.replace("_", ", "), *sizes.values()) for name, sizes in inspection.lengths.items()]
        parts += [Text(), table("Lengths", ["", *quantiles], rows)]
    for sample in inspection.samples:
        parts += [Text(), *_sample_lines(sample)]
    if inspection.warnings:
        parts += [Text(), *notes(inspection.warnings)]
    if source.examples:
        parts += [Text(), _next_commands(inspection, columns)]
    return Group(*parts)


def defaults_report(recipe_file: RecipeFile) -> RenderableType:
    """What a run without a recipe does and does not do, and where its results will be."""
    recipe = recipe_file.recipe
    steps = [
        stage.title.lower() + (f" (similarity {stage.similarity.threshold:g} or more)" if stage.similarity else "")
        for stage in stages(recipe, base=recipe_file.base)
    ]
    sections = {
        "duplicates in other words": recipe.duplicates.semantic,
        "benchmark items": recipe.contamination,
        "held-out rows": recipe.splits or any(source.split for source in recipe.sources) or None,
        "balance of lengths": recipe.balance,
    }
    left_out = [words for words, section in sections.items() if section is None]
    paths = [source.path for source in recipe.sources]
    files = " ".join(map(quote, paths))
    return Group(
        Text.assemble((f"{line(', '.join(paths))}: no recipe, so the defaults decide", "bold")),
        Text.assemble(("stages      ", "dim"), ", ".join(steps)),
        Text.assemble(("left out    ", "dim"), ", ".join(left_out)),
        Text.assemble(("run folder  ", "dim"), line(str(recipe_file.run_folder))),
        Text.assemble(("to change   ", "dim"), f"siftune recipe new {line(files)} --out {recipe_file.name}.yaml"),
    )


def _next_commands(inspection: Inspection, columns: Mapping[str, str]) -> Text:
    """What somebody types next: data of unusual columns need a recipe, others can do without."""
    name = line(quote(inspection.source.path))
    options = "".join(f" --column {line(quote(f'{role}={column}'))}" for role, column in columns.items())
    commands = [
        (f"siftune recipe new {name}{options} --out {line(quote(inspection.source.name))}.yaml", "write a recipe")
    ]
    if not columns:
        commands.insert(0, (f"siftune curate {name}", "curate with the defaults"))
    width = max(len(command) for command, _ in commands)
    return Text("\n").join(
        Text.assemble((label, "dim"), f"{command:{width}}  ", (words, "dim"))
        for label, (command, words) in zip(("Next  ", "      "), commands, strict=False)
    )


def _text_columns(inspection: Inspection) -> Iterator[Text]:
    """Which column is read as what; nothing where rows have no columns."""
    roles = [f"{column} (as {role})" if role != column else column for role, column in inspection.text_columns.items()]
    if roles:
        yield Text.assemble(("text in  ", "dim"), line(", ".join(roles)))


def _counts(inspection: Inspection) -> Iterator[tuple[str, dict[str, int]]]:
    yield (
        "splits ",
        {name or "none": count for name, count in inspection.splits.items()} if any(inspection.splits) else {},
    )
    yield "roles  ", inspection.roles
    yield "turns  ", {f"{turns} turns": count for turns, count in inspection.turns.items()}


def _counts_line(label: str, counts: dict[str, int]) -> Text:
    words = ", ".join(
        f"{name} {count:,}" if "turn" not in name else f"{name}: {count:,}" for name, count in counts.items()
    )
    return Text.assemble((f"{label}  ", "dim"), line(words))


def _row_table(inspection: Inspection) -> Table:
    """Usable, quarantined and duplicate rows."""
    source = inspection.source
    rows = [("usable", source.examples)]
    rows += [(f"quarantined: {reason}", count) for reason, count in source.quarantined.items()]
    if inspection.duplicates:
        duplicates = inspection.duplicates
        rows.append(("exact duplicates", duplicates.exact))
        if duplicates.prefixes:
            rows.append(("beginnings of longer dialogues", duplicates.prefixes))
        if duplicates.near is not None:
            rows.append((f"further near duplicates (Jaccard ≥ {duplicates.near_threshold:g})", duplicates.near))
        if duplicates.answers:
            rows.append(("rows over the limit per answer", duplicates.answers))
        rows.append(("same prompt, different answer", duplicates.conflicts))
    shares = [(label, count, percent(count, source.rows)) for label, count in rows]
    return table("Rows", ["", "rows", "share"], shares)


def _quarantine_lines(quarantined: QuarantineReason) -> Iterator[Text]:
    """Why rows cannot be used, the first of them, and what to do."""
    yield Text.assemble(
        (quarantined.reason, "bold"),
        line(f": {quarantined.meaning} ({quarantined.rows:,} rows)"),
    )
    where = f"first: row {quarantined.row} of {quarantined.file} (counted from 0)"
    yield Text(line(f"  {where}: {quarantined.detail}" if quarantined.detail else f"  {where}"))
    yield Text.assemble(("  ", ""), (line(quarantined.text), "dim"))
    yield Text.assemble("  to do: ", line(quarantined.advice))


def _sample_lines(sample: dict[str, Any]) -> Iterator[Text]:
    yield Text(line(sample["id"]), style="bold")
    turns = sample["messages"]
    for turn in turns[:_MOST_TURNS]:
        yield Text.assemble((f"{line(turn['role'])}: ", "cyan"), line(turn["content"], most=300))
    if len(turns) > _MOST_TURNS:
        yield Text(f"… and {len(turns) - _MOST_TURNS} more turns", style="dim")
