"""The output of the commands about a run: tables and sentences for a terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from siftune.app.cli.terminal import bar, beside, line, notes, plain, table
from siftune.curation.replay import Replay
from siftune.curation.review.arm_facts import selection_sentences
from siftune.curation.review.data_rules import RuleResult
from siftune.curation.review.diff import summary
from siftune.curation.review.difficulty import KNOWN_FAILURES, IfdSummary
from siftune.curation.review.diversity import diversity_sentence
from siftune.curation.review.explain import Chapter, Story
from siftune.curation.review.funnel import (
    GUARDED_MEANING,
    against_sentences,
    by_hand_sentence,
    funnel,
    kept_sentence,
    meaning_of_decisions,
    other_decisions,
    warnings,
)
from siftune.curation.review.leakage import certificate_sentence, given_split_sentence, random_split_sentence
from siftune.curation.review.lengths import balance_summary
from siftune.curation.review.matched_items import CONTAMINATION
from siftune.curation.review.pairs import GUARDED
from siftune.curation.review.samples import compared_texts, witness_texts
from siftune.curation.review.tables import benchmark_table, no_contamination_sentence
from siftune.curation.review.wording import decision_text, false_discovery_text, percent, reason_text
from siftune.curation.run.folder import RunFolder
from siftune.curation.text.differences import word_differences

if TYPE_CHECKING:
    from siftune.training.dry_run import DryRun
    from siftune.training.result import TrainingResult

_MOST_EXAMPLES = 4  # removals shown after curation
_MOST_ROWS = 20  # of a list of rows


def curation_report(run: RunFolder) -> RenderableType:
    """The funnel of a run, its splits and balance, its warnings and examples of removed rows."""
    parts: list[RenderableType] = [Text(), funnel_table(run)]
    if meaning := meaning_of_decisions(run.manifest):
        parts.append(Text(meaning, style="dim"))
    parts += [Text(), *_outcome(run)]
    if run.recipe.contamination is not None and run.recipe.contamination.references:
        parts += [Text(), *_benchmarks(run)]
    parts += notes(warnings(run))
    for decision in borderline_removals(run):
        parts += [Text(), *removal_report(run, decision)]
    parts += [Text(), _files(run)]
    return Group(*parts)


def funnel_table(run: RunFolder) -> Table:
    """Rows into and out of each stage, and the share of the input that is left, as a bar."""
    total = run.manifest.finished_counts().input
    rows = [
        (
            step.stage,
            step.rows,
            step.removed or None,
            step.kept,
            Text(bar(step.kept / total if total else 0.0), style="cyan"),
            other_decisions(step),
            "cached" if step.reused else f"{step.seconds:,.1f} s",
        )
        for step in funnel(run.manifest)
        if step.stage != "write"
    ]
    return table("Funnel", ["stage", "rows in", "removed", "rows out", "", "other decisions", "time"], rows)


def _outcome(run: RunFolder) -> Iterator[Text]:
    """Sentences about the rows kept, leakage under a random split, the certificate, and the balance of lengths."""
    yield Text(kept_sentence(run), style="bold")
    if by_hand := by_hand_sentence(run):
        yield Text(by_hand)
    yield from (Text(plain(sentence)) for sentence in against_sentences(run))
    if leaked := given_split_sentence(run) or random_split_sentence(run):
        yield Text(leaked)
    if certificate := run.manifest.certificate:
        yield Text(certificate_sentence(run), style="green" if certificate.passed else "bold red")
    if balance := balance_summary(run):
        yield Text(balance.sentence)
    if diversity := diversity_sentence(run):
        yield Text(diversity)
    arms = run.manifest.finished_counts().arms
    yield from map(Text, selection_sentences({name: arms[name] for name in run.selections() if name in arms}))


def _benchmarks(run: RunFolder) -> Iterator[RenderableType]:
    """For each benchmark that rows match how many do, and how many of those are estimated to be false."""
    lines = benchmark_table(run).to_dicts()
    if not lines:
        yield Text(no_contamination_sentence(run))
        return
    rows = [(line["benchmark"], line["same"], line["related"], false_discovery_text(line)) for line in lines]
    yield table("Benchmarks", ["benchmark", "same item", "related", "estimated false discovery rate"], rows)


def _files(run: RunFolder) -> Text:
    return Text.assemble(
        ("Run folder  ", "dim"),
        f"{run.path}\n",
        ("Curated set ", "dim"),
        f"{run.curated_folder}\n",
        ("Report      ", "dim"),
        f"{run.report_html}\n",
        ("Next        ", "dim"),
        f"siftune app {run.path}\n"
        + _threshold_to_try(run)
        + f"            siftune explain {run.path} {shlex.quote(_row_to_explain(run))}\n"
        f"            siftune push {run.path} hf://OWNER/NAME --dry-run",
    )


def _threshold_to_try(run: RunFolder) -> str:
    """The command that replays the threshold at which the next stored pair of near duplicates would be one; nothing
    where no stored pair lies below the threshold."""
    near = run.recipe.duplicates.near
    if near is None:
        return ""
    scores = pl.scan_parquet(run.file("near"), glob=False).filter(pl.col("score") < near.threshold)
    highest = scores.select(pl.col("score").max()).collect().item()
    if highest is None:
        return ""
    threshold = max(math.floor(highest * 100) / 100, near.floor)
    return f"            siftune what-if {run.path} near={threshold:g}\n"


def _row_to_explain(run: RunFolder) -> str:
    """A row on which the run decided something, a removal before all others; the first row where it decided nothing."""
    ledger = run.ledger().sort(pl.col("action") != "drop", "step", "id", maintain_order=True)
    ids = ledger["id"] if ledger.height else run.rows()["id"]
    return str(ids[0]) if len(ids) else "ROW_ID"


def borderline_removals(run: RunFolder) -> list[dict[str, Any]]:
    """For each stage that compares rows with rows or with benchmarks, the removal that is closest to its threshold."""
    drops = run.ledger().filter(pl.col("action") == "drop", pl.col("witness").is_not_null(), pl.col("stage") != "exact")
    nearest = drops.sort((pl.col("score") - pl.col("threshold")).abs(), "id", nulls_last=True).unique(
        "stage", keep="first", maintain_order=True
    )
    return nearest.sort("step").head(_MOST_EXAMPLES).to_dicts()


def removal_report(run: RunFolder, decision: dict[str, Any]) -> list[RenderableType]:
    """A removed row beside its witness, with the words that differ marked."""
    stage, witness = decision["stage"], decision["witness"]
    text = compared_texts(run, [decision["id"]]).get(decision["id"], "")
    sides = word_differences(text, witness_texts(run, stage, [witness]).get(witness, ""))
    heads = (f"removed: {decision['id']}", f"{'item' if stage == CONTAMINATION else 'kept'}: {witness}")
    return [Text(decision_text(decision, witness=False)), beside(heads, sides)]


def story_report(story: Story) -> RenderableType:
    """The history of one row: its text, decisions on it, the chain of witnesses, and similar rows."""
    row = story.row
    cause = f" by {row['stage']} ({reason_text(row['reason'])})" if row["stage"] else ""
    colour = {"kept": "green", "dropped": "red"}.get(row["fate"], "yellow")
    parts: list[RenderableType] = [Text.assemble((line(row["id"]), "bold"), ": ", (f"{row['fate']}{cause}", colour))]
    membership = [f"split {row['split']}"] if row["split"] else []
    membership += [f"arms {', '.join(row['arms'])}"] if row["arms"] else []
    if membership:
        parts.append(Text("; ".join(membership), style="dim"))
    if story.override is not None:
        note = f" ({line(story.override.note)})" if story.override.note else ""
        verb = "keep" if story.override.action == "restore" else "drop"
        parts.append(Text(f"By hand: {verb} it{note}. `siftune curate` obeys it the next time.", style="bold"))
    parts += [Text.assemble((f"{line(turn['role'])}: ", "cyan"), plain(turn["content"])) for turn in story.messages]
    for chapter in story.chapters:
        parts += [Text(), *_chapter(row["id"], chapter)]
    if len(story.chain) > 1:
        steps = " → ".join(f"{step['witness']} ({step['fate'] or 'a reference'})" for step in story.chain)
        parts += [Text(), Text(f"Witnesses: {line(row['id'])} → {plain(steps)}")]
    if story.selections:
        lines = [(one.arm, plain(one.sentence)) for one in story.selections]
        parts += [Text(), table("Selected arms", ["arm", "this row"], lines)]
    if story.neighbours:
        columns = ["measure", "id", "score", "fate"]
        rows = [[*(row[name] for name in columns), GUARDED if row["guarded"] else ""] for row in story.neighbours]
        parts += [Text(), table("Most similar rows", [*columns, ""], rows)]
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


def difficulty_report(run: RunFolder, summary: IfdSummary) -> RenderableType:
    """IFD by source, the rows whose answer does not depend on the prompt, and what the measure does not tell."""
    lines = [
        [f"{value:.2f}" if isinstance(value, float) else value for value in row] for row in summary.by_source.rows()
    ]
    parts: list[RenderableType] = [Text(), Text(summary.sentence, style="bold"), Text()]
    parts.append(table("By source", ["source", "rows", "median IFD", "median tokens", "no need of the prompt"], lines))
    if summary.independent.height:
        rows = [
            (row_id, f"{value:.2f}", tokens, line(answer))
            for row_id, value, tokens, answer in summary.independent.rows()
        ]
        title = "The answer does not depend on the prompt"
        parts += [Text(), table(title, ["row", "IFD", "tokens", "answer"], rows)]
    return Group(*parts, Text(), *notes([KNOWN_FAILURES]), Text.assemble(("Every row    ", "dim"), str(run.ifd_path)))


def replay_report(run: RunFolder, replay: Replay) -> RenderableType:
    """Rows that each stage removes in the run and in a replay, and the first rows whose fate differs."""
    dropped = run.ledger().filter(pl.col("action") == "drop", pl.col("stage").is_in(list(replay.decisions)))
    before, after = dropped.select("id", "stage"), replay.dropped()
    rows, any_guarded = [], False
    for stage, decisions in replay.decisions.items():
        in_run, in_replay = (frame.filter(pl.col("stage") == stage).height for frame in (before, after))
        change = f"{in_replay - in_run:+,}" if in_replay != in_run else ""
        guarded = decisions.filter(pl.col("action") == "guard")["id"].n_unique()
        any_guarded = any_guarded or guarded > 0
        rows.append((stage, in_run, in_replay, change, guarded or None, replay.unmeasured.get(stage)))
    parts: list[RenderableType] = [
        table("Removed rows", ["stage", "in the run", "what-if", "change", "guarded now", "not measured"], rows),
        Text(f"{replay.left.height:,} rows left before splits and balance."),
    ]
    if before.sort("id").equals(after.sort("id")):
        parts.append(Text("Nothing would change: every row keeps the fate that it has in the run."))
    if any_guarded:
        parts.append(Text(f"{GUARDED_MEANING.capitalize()}."))
    if (near := run.recipe.duplicates.near) is not None and "near" in replay.decisions:
        parts.append(Text(f"near: the answers must be alike as well, at {near.answers:g} or more (near.answers)."))
    if replay.unmeasured:
        parts.append(
            Text("Rows 'not measured' did not reach that stage in the run and count as kept. Curate to measure them.")
        )
    for title, changed in (
        ("Also dropped", after.join(before, on="id", how="anti", maintain_order="left")),
        ("No longer dropped", before.join(after, on="id", how="anti", maintain_order="left")),
    ):
        if changed.height:
            first = changed.head(_MOST_ROWS).select("stage", "id").iter_rows()
            parts += [Text(), table(f"{title}: {changed.height:,} rows", ["stage", "id"], first)]
    return Group(*parts)


def diff_report(changed: pl.DataFrame) -> RenderableType:
    """Rows whose fate differs between two runs: counts, and the first rows."""
    rows = [
        (_fate(row["fate"], row["stage"]), _fate(row["fate_after"], row["stage_after"]), row["rows"])
        for row in summary(changed).iter_rows(named=True)
    ]
    first = [
        (row["id"], _fate(row["fate"], row["stage"]), _fate(row["fate_after"], row["stage_after"]), row["reason_after"])
        for row in changed.head(_MOST_ROWS).iter_rows(named=True)
    ]
    if not first:
        return Text("All rows have the same fate in both runs.")
    return Group(
        table(f"{changed.height:,} rows have another fate", ["before", "after", "rows"], rows),
        Text(),
        table(_first_of(len(first), changed.height), ["id", "before", "after", "reason"], first),
    )


def check_report(run: RunFolder, results: Sequence[RuleResult]) -> RenderableType:
    """Each rule with what was measured, its limit and whether it passes."""
    total = run.manifest.finished_counts().input
    rows = []
    for result in results:
        is_share = result.rule.endswith("_rate") or result.rule.startswith("checks.")
        measured = f"{percent(result.measured, 1)}" if is_share else f"{result.rows:,}"
        counted = f"{result.rows:,} of {total:,} rows" if is_share and result.rows is not None else ""
        limit = f"{'at least' if result.rule == 'kept_below' else 'at most'} " + (
            f"{100 * result.limit:g} %" if is_share else f"{result.limit:,}"
        )
        verdict = Text("pass", style="green") if result.passed else Text("FAIL", style="bold red")
        rows.append((result.rule, measured, counted, limit, verdict))
    failed = sum(not result.passed for result in results)
    return Group(
        table("Rules", ["rule", "measured", "", "limit", "result"], rows),
        Text(),
        Text(f"{failed} of {len(results)} rules fail." if failed else f"All {len(results)} rules pass."),
        Text.assemble(("Run folder  ", "dim"), str(run.path)),
    )


def _first_of(shown: int, rows: int) -> str:
    return f"The first {shown:,} of {rows:,} rows" if shown < rows else "Rows"


def _fate(fate: str, stage: str | None) -> str:
    return f"{fate} by {stage}" if stage else fate


def training_report(results: Sequence[TrainingResult]) -> RenderableType:
    """What the training of each arm and seed took."""
    columns = ["arm", "seed", "usable rows", "cut or left out"]
    columns += ["steps", "trained tokens", "tokens/s", "minutes", "last loss"]
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
    warnings = dict.fromkeys(f"{result.arm}: {warning}" for result in results for warning in result.warnings)
    return Group(table("Training", columns, rows), *notes(warnings))


def dry_run_report(estimate: DryRun) -> RenderableType:
    """What training would take."""
    columns = ["arm", "usable rows", "cut or left out", "tokens per epoch", "steps", "trained tokens", "minutes"]
    rows = [
        (arm.arm, arm.rows, arm.truncated_rows, arm.arm_tokens, arm.steps, arm.tokens, arm.minutes)
        for arm in estimate.arms
    ]
    seeds = f", each of {estimate.seeds} seeds" if estimate.seeds > 1 else ""
    load, memory = estimate.load, estimate.memory
    return Group(
        table(f"Training under the budget{seeds}", columns, rows),
        *notes(f"{arm.arm}: {warning}" for arm in estimate.arms for warning in arm.warnings),
        Text(
            f"\n{estimate.tokens_per_second:,.0f} trained tokens per second on this machine (from three steps): "
            f"about {estimate.minutes:,.1f} minutes of training in total."
        ),
        Text(
            line(
                f"{load['load']} weights on the {load['device']}, computed in {load['compute']}: {load['why']}. "
                f"Memory: {memory['total']:,} of {memory['free']:,} MiB that are free (weights {memory['weights']:,}, "
                f"adapter {memory['adapter']:,}, activations {memory['activations']:,})"
                + ("; gradient checkpointing is on." if memory["checkpointing"] else ".")
            ),
            style="dim",
        ),
    )


def mask_report(tokens: Sequence[tuple[str, bool]]) -> RenderableType:
    """The tokens of a row; those that are trained are in colour and brackets."""
    masked = Text()
    for text, trained in tokens:
        masked.append(f"[{plain(text)}]" if trained else plain(text), style="bold green" if trained else "dim")
    return masked
