"""What commands say: tables and sentences for a terminal. Dataset text is hostile and is made harmless here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from curation.diff import summary
from curation.differences import Part, word_differences
from curation.explain import Story, spoken
from curation.runfolder import RunFolder
from curation.whatif import Replay

#: Control characters (ANSI sequences begin with one) and bidirectional overrides: they would steer the terminal.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MOST = 600
_INTERESTING = 3


def plain(text: str, *, most: int = _MOST) -> str:
    """`text` with steering characters shown as �, cut after `most` characters."""
    safe = _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)
    return safe if len(safe) <= most else safe[: most - 1] + "…"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A quiet table; numbers stand right."""
    drawn = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    listed = [list(row) for row in rows]
    for place, name in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[place], int | float) or row[place] is None for row in listed)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        drawn.add_row(*[Text(_cell(value)) for value in row])
    return drawn


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else plain(str(value))


def curated(run: RunFolder) -> RenderableType:
    """The funnel of a run, and its most interesting removals beside their witnesses."""
    manifest = run.manifest
    parts: list[RenderableType] = [funnel(manifest), Text()]
    parts += [Text.assemble("Warning: ", plain(warning)) for warning in warnings(manifest)]
    for decision in interesting(run):
        parts += [*removal(run, decision), Text()]
    parts.append(Text(f"Run folder: {run.path}   report: {run.path / 'report.html'}"))
    return Group(*parts)


def funnel(manifest: dict[str, Any]) -> Table:
    """Rows in and out of every stage."""
    rows = [
        (
            each["stage"],
            each["rows"],
            each["rows"] - each["kept"],
            each["kept"],
            _others(each["actions"]),
            each["seconds"],
        )
        for each in manifest["stages"]
    ]
    return table("Funnel", ["stage", "rows in", "removed", "rows out", "also", "seconds"], rows)


def _others(actions: dict[str, int]) -> str:
    said = {
        "report": "reported",
        "guard": "guarded",
        "repair": "repaired",
        "restore": "restored",
        "truncate": "truncated",
    }
    return ", ".join(f"{count:,} {said[action]}" for action, count in actions.items() if action in said)


def warnings(manifest: dict[str, Any]) -> list[str]:
    """What ingest and the stages want a person to know."""
    said = [f"{source['name']}: {warning}" for source in manifest["inputs"] for warning in source.get("warnings", [])]
    return said + list(manifest.get("warnings", []))


def interesting(run: RunFolder) -> list[dict[str, Any]]:
    """For each stage with witnesses, the removal that is closest to its threshold: the one most worth a look."""
    ids = run.rows().select("id")
    drops = run.ledger().filter(pl.col("action") == "drop", pl.col("witness").is_not_null(), pl.col("stage") != "exact")
    drops = drops.join(ids.rename({"id": "witness"}), on="witness", how="semi")
    nearest = drops.sort((pl.col("score") - pl.col("threshold")).abs(), "id").unique(
        "stage", keep="first", maintain_order=True
    )
    return nearest.sort("step").head(_INTERESTING).to_dicts()


def removal(run: RunFolder, decision: dict[str, Any]) -> list[RenderableType]:
    """A removed row above its witness, what differs marked."""
    score = f"{decision['score']:.3f}" if decision["score"] is not None else ""
    head = Text.assemble(
        (decision["id"], "bold"),
        f" removed by {decision['stage']} ({decision['reason']} {score}) for ",
        (decision["witness"], "bold"),
    )
    left, right = word_differences(spoken(run, decision["id"]), spoken(run, decision["witness"]))
    return [head, _marked("- ", left, "red"), _marked("+ ", right, "green")]


def _marked(lead: str, parts: list[Part], colour: str) -> Text:
    line = Text(lead, style="dim")
    room = _MOST
    for kind, text in parts:
        shown = plain(text, most=max(room, 1)).replace("\n", " ")
        line.append(shown, style=f"bold {colour}" if kind == "changed" else "")
        room -= len(shown)
        if room <= 0:
            break
    return line


def story(told: Story) -> RenderableType:
    """The story of one row."""
    row = told.row
    ended = f" by {row['stage']} ({row['reason']})" if row["stage"] else ""
    parts: list[RenderableType] = [Text.assemble((row["id"], "bold"), f": {row['fate']}{ended}")]
    where = [f"split {row['split']}"] if row["split"] else []
    where += [f"arms {', '.join(row['arms'])}"] if row["arms"] else []
    if where:
        parts.append(Text("; ".join(where), style="dim"))
    parts += [Text.assemble((f"{turn['role']}: ", "cyan"), plain(turn["content"])) for turn in told.messages]
    for chapter in told.chapters:
        decision = chapter.decision
        line = f"{decision['stage']}: {decision['action']}, {decision['reason']}"
        if decision["score"] is not None:
            line += f", score {decision['score']:.4f}" + (
                f" (threshold {decision['threshold']})" if decision["threshold"] is not None else ""
            )
        if decision["witness"]:
            line += f", witness {decision['witness']}" + (f" ({chapter.witness_fate})" if chapter.witness_fate else "")
        parts += [Text(), Text(plain(line), style="bold")]
        if decision["detail"]:
            parts.append(Text(plain(decision["detail"])))
        if chapter.differences:
            parts += [_marked("- ", chapter.differences[0], "red"), _marked("+ ", chapter.differences[1], "green")]
    if len(told.chain) > 1:
        steps = " → ".join(f"{step['witness']} ({step['fate']})" for step in told.chain)
        parts += [Text(), Text(f"Witnesses: {row['id']} → {steps}")]
    if told.neighbours:
        columns = ["measure", "id", "score", "guarded", "fate"]
        rows = [
            [each[name] if name != "guarded" else ("yes" if each[name] else "") for name in columns]
            for each in told.neighbours
        ]
        parts += [Text(), table("Most similar rows", columns, rows)]
    return Group(*parts)


def replayed(run: RunFolder, replay: Replay) -> RenderableType:
    """A replay beside what the run did."""
    kept_then = run.ledger().filter(pl.col("action") == "drop")
    rows = []
    for stage, decisions in replay.decisions.items():
        before = kept_then.filter(pl.col("stage") == stage).height
        after = decisions.filter(pl.col("action") == "drop").height
        rows.append((stage, before, after, after - before, replay.unmeasured.get(stage, 0) or None))
    parts: list[RenderableType] = [
        table("Removed rows", ["stage", "in the run", "what if", "change", "not measured"], rows)
    ]
    parts.append(Text(f"{replay.left.height:,} rows are left before splits and balance."))
    if replay.unmeasured:
        parts.append(
            Text("Rows that are 'not measured' did not reach that stage in the run; curate again to measure them.")
        )
    return Group(*parts)


def changes(changed: pl.DataFrame) -> RenderableType:
    """Rows that changed fate between two runs: how many, and the first ones."""
    rows = [
        (_fate(row["fate"], row["stage"]), _fate(row["fate_after"], row["stage_after"]), row["rows"])
        for row in summary(changed).iter_rows(named=True)
    ]
    few = [
        (row["id"], _fate(row["fate"], row["stage"]), _fate(row["fate_after"], row["stage_after"]), row["reason_after"])
        for row in changed.head(20).iter_rows(named=True)
    ]
    if not few:
        return Text("No row changed fate.")
    return Group(
        table("Changes", ["before", "after", "rows"], rows),
        Text(),
        table("First rows", ["id", "before", "after", "reason"], few),
    )


def _fate(fate: str, stage: str | None) -> str:
    return f"{fate} by {stage}" if stage else fate
