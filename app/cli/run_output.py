"""What commands say: tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from siftune.app.cli.terminal import bar, beside, line, notes, plain, table
from siftune.curation.review.diff import summary
from siftune.curation.review.explain import Chapter, Story
from siftune.curation.review.funnel import funnel, kept_sentence, other_decisions, warnings
from siftune.curation.review.leakage import certificate_sentence, random_split_sentence
from siftune.curation.review.lengths import balance_summary
from siftune.curation.review.samples import compared_texts
from siftune.curation.review.what_if import Replay
from siftune.curation.review.wording import decision_text, reason_text
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import word_differences

if TYPE_CHECKING:
    from siftune.training.dry_run import DryRun
    from siftune.training.result import TrainingResult

_INTERESTING = 3
_FIRST = 20


def curated(run: RunFolder) -> RenderableType:
    """The funnel of a run, what it says of splits and balance, and its most interesting removals."""
    parts: list[RenderableType] = [Text(), funnel_table(run), Text(), *_outcome(run)]
    parts += notes(warnings(run))
    for decision in interesting(run):
        parts += [Text(), *removal(run, decision)]
    parts += [Text(), _files(run)]
    return Group(*parts)


def funnel_table(run: RunFolder) -> Table:
    """Rows in and out of every stage, and the share of the input that is left."""
    total = run.manifest.finished_counts().input
    rows = [
        (
            step.stage,
            step.rows,
            step.removed or None,
            step.kept,
            Text(bar(step.kept / total if total else 0.0), style="cyan"),
            other_decisions(step),
            "stored" if step.reused else f"{step.seconds:,.1f} s",
        )
        for step in funnel(run)
        if step.stage != "write"
    ]
    return table("Funnel", ["stage", "rows in", "removed", "rows out", "", "also", "measured"], rows)


def _outcome(run: RunFolder) -> Iterator[Text]:
    """One line each: what is kept, what would have leaked, whether anything leaks now, how lengths changed."""
    yield Text(f"{kept_sentence(run)}.", style="bold")
    if leaked := random_split_sentence(run):
        yield Text(leaked)
    if certificate := run.manifest.certificate:
        yield Text(certificate_sentence(run), style="green" if certificate.passed else "bold red")
    if balance := balance_summary(run):
        yield Text(balance.sentence)


def _files(run: RunFolder) -> Text:
    return Text.assemble(
        ("Run folder  ", "dim"),
        f"{run.path}\n",
        ("Curated set ", "dim"),
        f"{run.curated_folder}\n",
        ("Report      ", "dim"),
        f"{run.report_html}\n",
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
    texts = compared_texts(run, [decision["id"], decision["witness"]])
    sides = word_differences(texts.get(decision["id"], ""), texts.get(decision["witness"], ""))
    heads = (f"removed: {decision['id']}", f"kept for it: {decision['witness']}")
    return [Text(decision_text(decision, witness=False)), beside(heads, sides)]


def story(told: Story) -> RenderableType:
    """The story of one row."""
    row = told.row
    ended = f" by {row['stage']} ({reason_text(row['reason'])})" if row["stage"] else ""
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
    yield Text(line(decision_text(decision) + fate), style="bold")
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


def trained(results: Sequence[TrainingResult]) -> RenderableType:
    """What each arm and seed used of the budget."""
    columns = ["arm", "seed", "rows", "truncated rows", "steps", "trained tokens", "tokens/s", "minutes", "last loss"]
    rows = [
        (
            result.arm,
            str(result.seed),
            result.arm_rows,
            result.truncated_rows,
            result.steps,
            result.tokens,
            f"{result.tokens_per_second:.0f}",
            f"{result.minutes:.1f}",
            f"{result.last_loss:.3f}",
        )
        for result in results
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
