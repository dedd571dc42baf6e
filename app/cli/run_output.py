"""What commands say: tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from siftune.app.cli.terminal import bar, beside, line, notes, percent, plain, table
from siftune.curation.review.diff import summary
from siftune.curation.review.explain import Chapter, Story, spoken
from siftune.curation.review.what_if import Replay
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import word_differences

if TYPE_CHECKING:
    from siftune.training.dry_run import DryRun

_INTERESTING = 3
_FIRST = 20
_ACTIONS = {
    "report": "reported",
    "guard": "guarded",
    "repair": "repaired",
    "restore": "restored",
    "truncate": "truncated",
}


def curated(run: RunFolder) -> RenderableType:
    """The funnel of a run, what it says of splits and balance, and its most interesting removals."""
    manifest = run.manifest
    parts: list[RenderableType] = [Text(), funnel(manifest), Text(), *_outcome(manifest)]
    parts += notes(warnings(manifest))
    for decision in interesting(run):
        parts += [Text(), *removal(run, decision)]
    parts += [Text(), _files(run)]
    return Group(*parts)


def funnel(manifest: dict[str, Any]) -> Table:
    """Rows in and out of every stage, and the share of the input that is left."""
    total = manifest["counts"]["input"]
    rows = [
        (
            each["stage"],
            each["rows"],
            each["rows"] - each["kept"] or None,
            each["kept"],
            Text(bar(each["kept"] / total if total else 0.0), style="cyan"),
            _others(each["actions"]),
            "stored" if each["reused"] else f"{each['seconds']:,.1f} s",
        )
        for each in manifest["stages"]
        if each["stage"] != "write"
    ]
    return table("Funnel", ["stage", "rows in", "removed", "rows out", "", "also", "measured"], rows)


def _others(actions: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {_ACTIONS[action]}" for action, count in actions.items() if action in _ACTIONS)


def _outcome(manifest: dict[str, Any]) -> Iterator[Text]:
    """One line each: what is kept, what would have leaked, whether anything leaks now, how lengths changed."""
    counts = manifest["counts"]
    held = counts["test"] + counts["validation"]
    share = percent(counts["kept"], counts["input"])
    yield Text.assemble(
        (f"{counts['kept']:,} of {counts['input']:,} rows kept", "bold"),
        f" ({share}): " if share else ": ",
        f"{counts['train']:,} to train on" + (f", {held:,} held out" if held else ""),
    )
    for each in manifest.get("naive_split", []):
        if each["expected"] > 0:
            yield Text(
                f"A naive random split would have leaked {100 * each['share']:.1f} % of its test rows "
                f"({each['measure']})."
            )
    certificate = manifest.get("certificate")
    if certificate:
        good = "Certificate: no pair across splits reaches a leak threshold"
        bad = "CERTIFICATE FAILED: pairs across splits reach a leak threshold"
        said, colour = (good, "green") if certificate["passed"] else (bad, "bold red")
        yield Text(f"{said} ({certificate['comparisons']:,} comparisons).", style=colour)
    balance = manifest.get("balance")
    if balance:
        before, after = balance["before"]["effective_bins"], balance["after"]["effective_bins"]
        yield Text(f"Instruction length: effective number of bins {before:.2f} → {after:.2f}.")


def warnings(manifest: dict[str, Any]) -> list[str]:
    """What ingest and the stages want a person to know."""
    said = [f"{source['name']}: {warning}" for source in manifest["inputs"] for warning in source.get("warnings", [])]
    for source in manifest["inputs"]:
        if lost := source.get("quarantined"):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.items())
            said.append(f"{source['name']}: rows in quarantine.jsonl: {reasons}")
    return said + list(manifest.get("warnings", []))


def _files(run: RunFolder) -> Text:
    return Text.assemble(
        ("Run folder  ", "dim"),
        f"{run.path}\n",
        ("Curated set ", "dim"),
        f"{run.path / 'curated'}\n",
        ("Report      ", "dim"),
        f"{run.path / 'report.html'}\n",
        ("Look closer ", "dim"),
        f"siftune app {run.path}   siftune explain {run.path} ROW_ID   siftune what-if {run.path} near=0.7",
    )


def interesting(run: RunFolder) -> list[dict[str, Any]]:
    """For each stage with witnesses, the removal that is closest to its threshold: the one most worth a look."""
    ids = run.rows().select("id")
    drops = run.ledger().filter(pl.col("action") == "drop", pl.col("witness").is_not_null(), pl.col("stage") != "exact")
    drops = drops.join(ids.rename({"id": "witness"}), on="witness", how="semi")
    nearest = drops.sort((pl.col("score") - pl.col("threshold")).abs(), "id", nulls_last=True).unique(
        "stage", keep="first", maintain_order=True
    )
    return nearest.sort("step").head(_INTERESTING).to_dicts()


def removal(run: RunFolder, decision: dict[str, Any]) -> list[RenderableType]:
    """A removed row beside its witness, what differs marked."""
    sides = word_differences(spoken(run, decision["id"]), spoken(run, decision["witness"]))
    heads = (f"removed: {decision['id']}", f"kept for it: {decision['witness']}")
    return [Text(said(decision)), beside(heads, sides)]


def said(decision: dict[str, Any]) -> str:
    """A decision in words, without its witness."""
    words = f"{decision['stage']}: {decision['action']}, {str(decision['reason'] or '').replace('_', ' ')}"
    if decision["score"] is not None:
        words += f", score {decision['score']:.4f}"
        if decision["threshold"] is not None:
            words += f" (threshold {decision['threshold']:g})"
    return words


def story(told: Story) -> RenderableType:
    """The story of one row."""
    row = told.row
    ended = f" by {row['stage']} ({str(row['reason']).replace('_', ' ')})" if row["stage"] else ""
    colour = {"kept": "green", "dropped": "red"}.get(row["fate"], "yellow")
    parts: list[RenderableType] = [Text.assemble((line(row["id"]), "bold"), ": ", (f"{row['fate']}{ended}", colour))]
    where = [f"split {row['split']}"] if row["split"] else []
    where += [f"arms {', '.join(row['arms'])}"] if row["arms"] else []
    if where:
        parts.append(Text("; ".join(where), style="dim"))
    parts += [Text.assemble((f"{line(turn['role'])}: ", "cyan"), plain(turn["content"])) for turn in told.messages]
    for chapter in told.chapters:
        parts += [Text(), *_chapter(row["id"], chapter)]
    if len(told.chain) > 1:
        steps = " → ".join(f"{step['witness']} ({step['fate'] or 'a reference'})" for step in told.chain)
        parts += [Text(), Text(f"Witnesses: {line(row['id'])} → {plain(steps)}")]
    if told.neighbours:
        columns = ["measure", "id", "score", "guarded", "fate"]
        rows = [
            [each[name] if name != "guarded" else ("yes" if each[name] else "") for name in columns]
            for each in told.neighbours
        ]
        parts += [Text(), table("Most similar rows", columns, rows)]
    return Group(*parts)


def _chapter(row_id: str, chapter: Chapter) -> Iterator[RenderableType]:
    decision = chapter.decision
    witness = decision["witness"]
    fate = f" ({chapter.witness_fate})" if chapter.witness_fate else ""
    yield Text(line(said(decision) + (f", witness {witness}{fate}" if witness else "")), style="bold")
    if decision["detail"]:
        yield Text(plain(decision["detail"]))
    if chapter.differences:
        yield beside((row_id, f"{witness}{fate}"), chapter.differences)


def replayed(run: RunFolder, replay: Replay) -> RenderableType:
    """A replay beside what the run did, and the first rows whose fate differs."""
    dropped = run.ledger().filter(pl.col("action") == "drop", pl.col("stage").is_in(list(replay.decisions)))
    before, after = dropped.select("id", "stage"), replay.dropped()
    rows = []
    for stage in replay.decisions:
        then, now = (frame.filter(pl.col("stage") == stage).height for frame in (before, after))
        rows.append((stage, then, now, f"{now - then:+,}" if now != then else "", replay.unmeasured.get(stage)))
    parts: list[RenderableType] = [
        table("Removed rows", ["stage", "in the run", "what if", "change", "not measured"], rows),
        Text(f"{replay.left.height:,} rows are left before splits and balance."),
    ]
    if replay.unmeasured:
        parts.append(
            Text("Rows that are 'not measured' did not reach that stage in the run; curate again to measure them.")
        )
    for title, few in (
        ("Dropped besides", after.join(before, on="id", how="anti", maintain_order="left")),
        ("Kept instead", before.join(after, on="id", how="anti", maintain_order="left")),
    ):
        if few.height:
            shown = few.head(_FIRST).select("stage", "id").iter_rows()
            parts += [Text(), table(f"{title}: {few.height:,} rows", ["stage", "id"], shown)]
    return Group(*parts)


def changes(changed: pl.DataFrame) -> RenderableType:
    """Rows that changed fate between two runs: how many, and the first ones."""
    rows = [
        (_fate(row["fate"], row["stage"]), _fate(row["fate_after"], row["stage_after"]), row["rows"])
        for row in summary(changed).iter_rows(named=True)
    ]
    few = [
        (row["id"], _fate(row["fate"], row["stage"]), _fate(row["fate_after"], row["stage_after"]), row["reason_after"])
        for row in changed.head(_FIRST).iter_rows(named=True)
    ]
    if not few:
        return Text("No row changed fate.")
    return Group(
        table(f"{changed.height:,} rows changed fate", ["before", "after", "rows"], rows),
        Text(),
        table("First rows", ["id", "before", "after", "reason"], few),
    )


def _fate(fate: str, stage: str | None) -> str:
    return f"{fate} by {stage}" if stage else fate


def trained(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What each arm and seed used of the budget."""
    columns = ["arm", "seed", "rows", "cut rows", "steps", "trained tokens", "tokens/s", "minutes", "last loss"]
    rows = [
        (
            each["arm"],
            str(each["seed"]),
            each["arm_rows"],
            each["truncated_rows"],
            each["steps"],
            each["tokens"],
            f"{each['tokens_per_second']:.0f}",
            f"{each['minutes']:.1f}",
            f"{each['last_loss']:.3f}",
        )
        for each in found
    ]
    return table("Trained", columns, rows)


def planned(found: DryRun) -> RenderableType:
    """What a training would take."""
    columns = ["arm", "rows", "cut rows", "trained tokens, once", "steps", "trained tokens", "minutes"]
    rows = [
        (arm.arm, arm.rows, arm.truncated_rows, arm.arm_tokens, arm.steps, arm.tokens, arm.minutes)
        for arm in found.arms
    ]
    seeds = f" for each of {found.seeds} seeds" if found.seeds > 1 else ""
    facts = ", ".join(f"{name} {value}" for name, value in {**found.load, **found.memory}.items())
    return Group(
        table(f"What the budget buys{seeds}", columns, rows),
        Text(
            f"\n{found.tokens_per_second:,.0f} trained tokens a second in three steps on this machine: "
            f"about {found.minutes:,.1f} minutes of training in all."
        ),
        Text(line(facts), style="dim"),
    )
