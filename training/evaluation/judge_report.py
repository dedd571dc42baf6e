"""What a judge model said, in words and as a table: the same in verdict.md and in the app."""

from __future__ import annotations

from collections.abc import Iterator

from siftune.curation.markdown import Raw, table
from siftune.training.evaluation.formatting import format_p
from siftune.training.evaluation.judge_model import JudgedPair, JudgeResult

HEAD = ("arms", "wins", "ties (by order)", "unclear", "share [exact 95 %]", "p", "mean words", "longer won")
NOTE = (
    "Wins, share and words are of the first arm against the second. An arm wins a prompt where the judge names it in "
    "both orders; else the prompt is a tie, by order where the two orders named different arms. Unclear replies count "
    "nowhere. Longer won: wins that went to the longer answer. The answers are those of one training run of each "
    "arm, and p is not adjusted: this is exploratory."
)


def markdown_lines(result: JudgeResult | None) -> Iterator[str]:
    """The section of verdict.md; nothing where there is no judge."""
    if result is None:
        return
    yield from [f"## Answers compared by {result.model} (exploratory)", "", NOTE, ""]
    rows = [[str(name), *(Raw(str(cell)) for cell in cells)] for name, *cells in map(pair_cells, result.pairs)]
    yield from table(list(HEAD), rows)
    yield from [f"{shortage_sentence(result)}{agreement_sentence(result)}", ""]


def pair_cells(pair: JudgedPair) -> tuple[str | int, ...]:
    """One line of the table under `HEAD`."""
    votes = pair.result
    share = "—" if votes.share is None else f"{votes.share:.0%} [{votes.low:.0%}, {votes.high:.0%}]"
    decisive = votes.wins + votes.losses
    return (
        f"{pair.arm} against {pair.against}",
        f"{votes.wins} : {votes.losses}",
        f"{votes.ties} ({pair.order_decided})",
        pair.unclear,
        share,
        format_p(votes.p),
        f"{pair.mean_words[0]:.0f} : {pair.mean_words[1]:.0f}",
        f"{pair.longer_wins} of {decisive}",
    )


def shortage_sentence(result: JudgeResult) -> str:
    """That the run has fewer held-out prompts than the recipe asks for, with a space behind it; else nothing."""
    if result.heldout_asked >= result.heldout_prompts:
        return ""
    return (
        f"The recipe asks for {result.heldout_prompts:,} held-out prompts; the run has {result.heldout_asked:,} with "
        "one turn and no system prompt. "
    )


def agreement_sentence(result: JudgeResult) -> str:
    """How far the judge agrees with the blind votes."""
    agreement = result.agreement
    if agreement is None:
        return "How far this judge agrees with people is not known: there are no blind votes to compare it with."
    if not agreement.rounds:
        return (
            f"The judge was shown the {agreement.voted:,} rounds with a blind vote; on none of them did both name a "
            "better answer, so how far they agree is not known."
        )
    return (
        f"Of {agreement.voted:,} rounds with a blind vote, judge and voter both named a better answer on "
        f"{agreement.rounds:,}, and the same one on {agreement.same:,} "
        f"({agreement.same / agreement.rounds:.0%} [{agreement.low:.0%}, {agreement.high:.0%}]; 50 % is chance)."
    )
