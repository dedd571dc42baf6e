"""A judge model: a real server on this machine compares answers in both orders, and is itself compared with votes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from siftune.app.cli.commands import main
from siftune.curation.errors import UserError
from siftune.curation.recipe.loading import parse_recipe
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation import judge_report
from siftune.training.evaluation.compare import compare
from siftune.training.evaluation.judge_model import JudgeResult, judge_answers, read_reply
from siftune.training.evaluation.prompt_answers import ANSWERS, write_answers
from siftune.training.evaluation.verdict import Verdict
from siftune.training.evaluation.votes import StoredTurn, VoteChoice, store_turn, store_vote
from tests.chat_server import ChatServer, chat_server
from tests.training.random_adapters import write_trained

PAIR = [("curated", "raw")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIFTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def with_judge(run: RunFolder, server: ChatServer, **settings: object) -> Recipe:
    """The recipe of a run, with a judge."""
    judge = {"endpoint": server.url, "model": "tiny-judge", **settings}
    document = run.recipe.model_dump(exclude_unset=True)
    return parse_recipe(yaml.safe_dump(document | {"compare": {"max_new_tokens": 8, "judge": judge}}))


def answered(run: RunFolder, answers: Mapping[str, tuple[str, str]]) -> None:
    """Answers of curated and raw to each prompt, as the prompt suite leaves them."""
    rows = [
        {"prompt": prompt, "text": f"What is {prompt}?", "arm": arm, "answer": answer}
        for prompt, both in answers.items()
        for arm, answer in zip(("curated", "raw"), both, strict=True)
    ]
    write_answers(pl.DataFrame(rows, schema=ANSWERS), run)


def vote(run: RunFolder, name: str, curated: str, raw: str, choice: VoteChoice) -> None:
    """A round of Chat with a blind vote; raw stands on the left."""
    for arm, answer in (("raw", raw), ("curated", curated)):
        store_turn(run, StoredTurn(name, arm, f"conversation {name}", 0, "Say it.", answer, {}))
    store_vote(run, round_=name, left="raw", right="curated", choice=choice)


def judged(run: RunFolder, server: ChatServer, **settings: object) -> JudgeResult:
    result = judge_answers(run, with_judge(run, server, **settings), pairs=PAIR)
    assert result is not None
    return result


def test_an_arm_wins_where_both_orders_name_it(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(
        run,
        {
            "a": ("good and long it is", "bad"),
            "b": ("good", "bad and very long"),
            "c": ("bad", "a good one"),
            "d": ("biased", "not so"),  # the server names the first in both orders
            "e": ("bad", "worse"),
            "f": ("the same", "the same"),
        },
    )
    (pair,) = judged(run, server).pairs
    assert (pair.result.wins, pair.result.losses, pair.result.ties) == (2, 1, 3)
    assert (pair.order_decided, pair.unclear) == (1, 0)
    assert pair.longer_wins == 2
    assert pair.mean_words == pytest.approx((11 / 6, 13 / 6))
    assert len(server.requests) == 10, "equal answers are a tie that nobody is asked about"
    assert {request["model"] for request in server.requests} == {"tiny-judge"}
    written = pl.read_parquet(run.judgments_path)
    assert written.filter(prompt="d")["reply"].to_list() == ["first", "first"]
    assert written.filter(prompt="b").select("first", "second_words").rows() == [("curated", 4), ("raw", 1)]


def test_what_was_judged_is_not_asked_again(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(run, {"a": ("good", "bad"), "b": ("bad", "good")})
    before = judged(run, server)
    server.faults = [500] * 20
    assert judged(run, server) == before
    assert len(server.requests) == 4


def test_equal_questions_are_asked_once(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(run, {"a": ("good", "bad")})
    for number in range(20):
        vote(run, str(number), "good", "bad", "right")
    agreement = judged(run, server).agreement
    assert agreement is not None
    assert agreement.same == 20
    assert len(server.requests) == 4  # the suite's prompt and that of the rounds, in two orders each


def test_a_reply_that_says_nothing_counts_nowhere(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(run, {"a": ("good", "bad")})
    server.phrase = "first or second? {}"
    (pair,) = judged(run, server).pairs
    assert (pair.result.wins, pair.result.losses, pair.result.ties, pair.unclear) == (0, 0, 0, 1)
    assert pair.result.share is None


def test_the_judge_is_compared_with_blind_votes(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(run, {"a": ("good", "bad")})
    assert judged(run, server).agreement is None
    vote(run, "1", "good", "bad", "right")  # the voter and the judge name curated
    vote(run, "2", "good", "bad", "left")  # they differ
    vote(run, "3", "bad", "good", "left")  # both name raw
    vote(run, "4", "good", "bad", "tie")  # the voter names none
    vote(run, "5", "bad", "worse", "left")  # the judge names none
    result = judged(run, server)
    agreement = result.agreement
    assert agreement is not None
    assert (agreement.voted, agreement.rounds, agreement.same) == (5, 3, 2)
    assert agreement.low < 2 / 3 < agreement.high
    assert result.pairs[0].result.wins == 1, "votes are not prompts of the comparison"
    sentence = judge_report.agreement_sentence(result)
    assert sentence.startswith("Of 5 rounds with a blind vote, judge and voter both named a better answer on 3")


def test_later_turns_are_not_judged_without_what_came_before(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(run, {"a": ("good", "bad")})
    vote(run, "1", "good", "bad", "right")
    for arm in ("raw", "curated"):
        store_turn(run, StoredTurn("2", arm, "conversation 1", 1, "And then?", f"{arm} goes on", {}))
    store_vote(run, round_="2", left="raw", right="curated", choice="left")
    agreement = judged(run, server).agreement
    assert agreement is not None
    assert agreement.voted == 1


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("First", "first"),
        ("**second**.", "second"),
        ("<think>first or tie?</think> Tie", "tie"),
        ("the first and the second", None),
        ("", None),
        ("firstly", None),
    ],
)
def test_what_a_reply_says(text: str, reply: str | None) -> None:
    assert read_reply(text) == reply


def test_without_a_judge_nothing_is_asked(tiny_run: Path) -> None:
    run = RunFolder.open(tiny_run)
    assert judge_answers(run, run.recipe, pairs=PAIR) is None
    assert not run.judgments_path.exists()


def test_a_server_that_fails_is_one_sentence(tiny_run: Path, server: ChatServer) -> None:
    run = RunFolder.open(tiny_run)
    answered(run, {"a": ("good", "bad")})
    server.faults = [404] * 4
    with pytest.raises(UserError, match=r"The server of compare\.judge, .* answered 404 for the model 'tiny-judge'"):
        judged(run, server)


def test_a_key_that_is_not_set_is_a_fault_before_anything_is_curated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    judge = {"endpoint": "http://127.0.0.1:9/v1", "model": "some", "key_variable": "JUDGE_KEY"}
    recipe = {"sources": [{"path": "there-is-none.jsonl"}], "run": "run", "compare": {"judge": judge}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    result = CliRunner().invoke(main, ["run", str(tmp_path / "r.yaml")])
    assert result.exit_code == 2
    assert "compare.judge reads its key from the environment variable JUDGE_KEY, which is not set" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("endpoint", ["ftp://x/v1", "http://user:key@127.0.0.1/v1", "127.0.0.1:8000"])
def test_a_recipe_names_an_address(tiny_run: Path, server: ChatServer, endpoint: str) -> None:
    with pytest.raises(UserError, match="http"):
        with_judge(RunFolder.open(tiny_run), server, endpoint=endpoint)


@pytest.mark.slow
def test_compare_asks_the_judge_about_real_answers_to_the_suite_and_to_heldout_prompts(
    tiny_run: Path, tiny_model: Path, server: ChatServer
) -> None:
    write_trained(tiny_run, tiny_model, arms=("raw", "curated", "random"))
    recipe = with_judge(RunFolder.open(tiny_run), server, heldout_prompts=4)
    manifest = json.loads((tiny_run / "manifest.json").read_text(encoding="utf-8"))
    manifest["recipe"] = yaml.safe_dump(recipe.model_dump(exclude_unset=True))
    (tiny_run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    run = RunFolder.open(tiny_run)
    verdict = compare(run)
    assert verdict.judge is not None
    assert [(pair.arm, pair.against) for pair in verdict.judge.pairs] == [("curated", "raw"), ("curated", "random")]
    assert all(pair.result.wins + pair.result.losses + pair.result.ties == 14 for pair in verdict.judge.pairs)
    kinds = pl.read_parquet(run.judgments_path).group_by("kind").len().sort("kind")
    assert kinds.rows() == [("held-out", 16), ("suite", 40)]
    page = run.verdict_markdown.read_text(encoding="utf-8")
    assert "## Answers compared by tiny-judge (exploratory)" in page
    assert "there are no blind votes to compare it with" in page
    assert "The recipe asks for" not in page
    assert Verdict.read(run) == verdict
    asked = len(server.requests)
    server.faults = [500] * 20
    assert compare(run) == verdict
    assert len(server.requests) == asked
