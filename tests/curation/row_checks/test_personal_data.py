"""Personal data and secrets: what is one, what only looks like one, and what masks leave of a row."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import Checks
from siftune.curation.row_checks import checks
from siftune.curation.row_checks.personal_data import KINDS, find, kinds_with, mask_batch
from tests.worlds import write_recipe, write_source

#: Published test data of the libraries, the standards and the payment networks; none is anybody's.
ARE = {
    "email": ["jo.doe+list@mail.acme-corp.co.uk", "Write to J_D@acme.io."],
    "phone": ["+1 650-253-0000", "call +44 20 7031 3000!"],
    "iban": ["GB33BUKB20201555555555", "DE89 3704 0044 0532 0130 00"],
    "card": ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005"],
    "ip_address": ["8.8.8.8", "2001:4860:4860::8888", "at 93.184.216.34."],
    "secret": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIBVgIBADANBg",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a" * 36,
        "https://user:hunter2@db.acme.io/",
        "xoxb-" + "123456789012-abcdefABCDEF",
    ],
}
ARE_NOT = {
    "email": ["user@example.com", "a@b", "@decorator", "x @ y", "git@localhost", "me@my.test"],
    "phone": ["+1 555", "12345678", "2024-01-02 03:04", "650-253-0000", "371.587 + 46.32 – 217.907"],
    "iban": ["GB33BUKB20201555555556", "AB12CDEF", "DE89 3704 0044 0532 0130 01"],
    "card": ["4111 1111 1111 1112", "1234567890123456", "0.4111111111111111", "9999999999999999"],
    "ip_address": ["192.168.0.1", "127.0.0.1", "192.0.2.7", "1.2.3.4.5", "12:30:45", "std::vector", "::1", "999.1.1.1"],
    "secret": [
        "ghp_short",
        "a" * 40,
        "-----BEGIN CERTIFICATE-----",
        "https://acme.io:8080/@me",
        "d41d8cd98f00b204e980",
    ],
}
ALL = [(kind, text) for kind, texts in ARE.items() for text in texts]
NONE = [(kind, text) for kind, texts in ARE_NOT.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), ALL)
def test_what_is_found_is_selected_by_the_cheap_expression_as_well(kind, text):
    spans = find(text, kind)
    assert len(spans) == 1
    assert pl.Series([text]).str.contains(KINDS[kind].candidate).all()


@pytest.mark.parametrize(("kind", "text"), NONE)
def test_what_only_looks_like_it_is_left_alone(kind, text):
    assert find(text, kind) == []


def test_numbers_without_a_country_code_are_those_of_the_countries_that_the_recipe_names():
    assert find("Call 650-253-0000 now", "phone") == []
    assert find("Call 650-253-0000 now", "phone", ["US"]) == [(5, 17)]
    with pytest.raises(UserError, match="no country 'us'"):
        kinds_with(Checks(phone="report", phone_regions=["us"]), "report")


def examples(contents: list[list[str]], metas: list[str]) -> pl.DataFrame:
    rows = [
        {
            "id": f"s:{number}",
            "source": "s",
            "messages": [
                {"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)
            ],
            "meta": meta,
        }
        for number, (pair, meta) in enumerate(zip(contents, metas, strict=True))
    ]
    return schema.conform(pl.DataFrame(rows), schema.EXAMPLES)


texts = st.lists(st.sampled_from([text for _, text in ALL + NONE] + ["Ünïcode 🙂", ""]), max_size=4).map(" — ".join)


@hypothesis.settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=4), st.sets(st.sampled_from(list(KINDS)), min_size=1)
)
def test_masks_take_out_every_span_and_nothing_else(rows, chosen):
    kinds = [kind for kind in KINDS if kind in chosen]
    metas = [json.dumps({"note": meta, "n": 4111111111111111, "deep": [{"t": meta}]}) for _, _, meta in rows]
    batch = examples([[prompt, answer] for prompt, answer, _ in rows], metas)
    masked, decisions = mask_batch(batch, kinds, [])
    assert masked.drop("messages", "meta").equals(batch.drop("messages", "meta"))
    counts: dict[tuple[str, str], int] = {}
    for before, after, row_id in zip(batch.to_dicts(), masked.to_dicts(), batch["id"], strict=True):
        meta = json.loads(after["meta"])
        assert meta["n"] == 4111111111111111
        assert meta["deep"][0]["t"] == meta["note"]
        old = [turn["content"] for turn in before["messages"]] + [json.loads(before["meta"])["note"]] * 2
        new = [turn["content"] for turn in after["messages"]] + [meta["note"], meta["deep"][0]["t"]]
        for one, other in zip(old, new, strict=True):
            expected = one
            for kind in kinds:
                spans = find(expected, kind)
                for start, end in spans[::-1]:
                    expected = expected[:start] + KINDS[kind].mask + expected[end:]
                if spans:
                    counts[row_id, kind] = counts.get((row_id, kind), 0) + len(spans)
            assert other == expected
            assert not any(find(other, kind) for kind in kinds)
    assert {
        (row_id, kind): int(score) for row_id, kind, score in decisions.select("id", "reason", "score").iter_rows()
    } == counts
    assert set(decisions["action"]) <= {"mask"}


def test_findings_count_and_hide():
    frame = pl.DataFrame(
        {
            "id": ["a", "b"],
            "system": ["", "ask 8.8.8.8"],
            "prompt": ["jo@acme.io", "hi"],
            "answer": ["al@acme.io", "ho"],
        }
    )
    findings = checks.findings(frame, Checks(email="report", ip_address="drop", secret="mask", encoding="off"))
    personal = findings.filter(pl.col("check").is_in(list(KINDS)))
    assert personal.rows() == [
        ("a", "email", 2.0, "jo… (10 characters)"),
        ("b", "ip_address", 1.0, "8.… (7 characters)"),
    ]


def test_rows_are_masked_before_they_are_compared_and_each_mask_is_in_the_ledger(tmp_path: Path):
    long = "is the address that the old garden keeps beside its window for every winter guest"
    rows = [
        {"instruction": "Who keeps the key?", "output": f"jo@acme.io {long}", "note": "al@acme.io"},
        {"instruction": "Who keeps the key?", "output": f"al@acme.io {long}", "note": ""},
        {"instruction": "Which card is it?", "output": f"4111 1111 1111 1111 {long} of 8.8.8.8"},
    ]
    write_source(rows, tmp_path / "s.jsonl")
    masking = {"email": "mask", "card": "report", "ip_address": "drop"}
    run = curate(write_recipe(tmp_path, "s.jsonl", checks=masking))
    ledger = run.ledger().filter(pl.col("stage").is_in(["mask", "checks", "exact"]))
    assert sorted(ledger.select("id", "stage", "action", "reason", "detail").rows()) == [
        ("s:0", "mask", "mask", "email", "1 in assistant, 1 in other columns"),
        ("s:1", "exact", "drop", "exact_duplicate", "prompt 1.00, answer 1.00"),
        ("s:1", "mask", "mask", "email", "1 in assistant"),
        ("s:2", "checks", "drop", "ip_address", "8.… (7 characters)"),
        ("s:2", "checks", "report", "card", "41… (19 characters)"),
    ]
    kept = pl.read_parquet(run.curated("train"))
    assert kept["messages"][0][1]["content"] == f"[EMAIL] {long}"
    assert json.loads(kept["meta"][0])["note"] == "[EMAIL]"
    assert "2 masked" in run.report_markdown.read_text()
    again = curate(write_recipe(tmp_path, "s.jsonl", checks={}))
    assert again.ledger().filter(stage="mask").is_empty()
    assert "@acme.io" in pl.read_parquet(again.curated("train"))["messages"][0][1]["content"]
