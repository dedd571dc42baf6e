"""Row checks: each finds its defect and leaves honest neighbours alone; none loses a row or stumbles over a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation import schema
from siftune.curation.errors import UserError
from siftune.curation.recipe.sections import Checks
from siftune.curation.row_checks import checks, language_detection, mojibake

SAMPLE = Path(__file__).parents[3] / "data" / "sample.jsonl"
ALL_REPORTED = Checks(encoding="report", max_words=50)


def texts(*pairs: tuple[str | None, str | None]) -> pl.DataFrame:
    rows = [
        {"id": f"t:{row}", "source": "t", "prompt": prompt, "core": prompt, "answer": answer}
        for row, (prompt, answer) in enumerate(pairs)
    ]
    return pl.DataFrame(rows, schema=schema.TEXTS)


def examples(*contents: list[str | None]) -> pl.DataFrame:
    rows = [
        {
            "id": f"e:{row}",
            "source": "e",
            "messages": [
                {"role": role, "content": content}
                for role, content in zip(["user", "assistant"] * len(turns), turns, strict=False)
            ],
            "meta": '{"kept": "cafÃ©"}',
        }
        for row, turns in enumerate(contents)
    ]
    return schema.conform(
        pl.DataFrame(rows, schema_overrides={"messages": schema.EXAMPLES["messages"]}), schema.EXAMPLES
    )


def checks_of(prompt: str, answer: str, **changed: Any) -> set[str]:
    settings = Checks.model_validate({**ALL_REPORTED.model_dump(), **changed})
    return set(checks.findings(texts((prompt, answer)), settings)["check"])


@pytest.mark.parametrize(
    "answer", ["nan", "None", "null", "N/A", "n/a", " <NA>\n", "NA", "No input", "[none]", "None."]
)
def test_what_tables_write_into_empty_cells_is_no_answer(answer: str) -> None:
    assert checks_of("How long does it take?", answer) == {"placeholder_answer"}
    assert "placeholder_answer" not in checks_of("How long does it take?", f"{answer} of them")
    assert checks_of("How long does it take?", answer, placeholder_answer="off") == set()


LONG = "It has been in use for many years in most of the cities of the north and of the south. " * 5

PASSAGE = (
    "In the spring of 1998 a flood carried away the wooden bridge of the village. The new one is made of steel and was "
    "paid for by the district. Farmers who had to walk around the lake now reach their fields in half the time."
)

DEFECTS = [
    ("empty_answer", "What is it?", "..."),
    ("empty_answer", "What is it?", " \n\t"),
    ("empty_answer", "What is it?", "_____"),
    ("truncated_answer", "Write code.", "Here it is:\n\n```python\ndef f(x):\n    return x +"),
    ("truncated_answer", "Tell me.", "The river begins in the mountains, where rain and melting snow gather in small,"),
    (
        "truncated_answer",
        "Tell me.",
        "The river begins in the mountains, where rain gathers in small streams and in lakes of",
    ),
    (
        "truncated_answer",
        "Tell me.",
        "The river begins in the mountains (where rain and snow gather in many small streams",
    ),
    ("truncated_answer", "Tell me.", LONG + "Then the river turns to the"),
    ("truncated_answer", "Tell me.", LONG + "Then the river turns west and we reach"),
    ("copied_answer", "Name the largest ocean on Earth.", "name the  largest ocean on earth."),
    ("copied_answer", "Correct it: " + PASSAGE, PASSAGE.replace("half the time", "half of it")),
    ("refusal", "How do I open a lock?", "I'm sorry, but I can't help with that."),
    ("refusal", "How do I open a lock?", "I cannot assist with that request."),
    ("refusal", "How do I open a lock?", "Unfortunately, I am unable to provide instructions."),
    ("refusal", "How was your day?", "As an AI language model, I do not have days."),
    ("refusal", "How was your day?", "Well. I’m just an AI, so days mean little to me."),
    ("encoding", "Where is the cafÃ©?", "Round the corner."),
    ("encoding", "Where is it?", "Itâ€™s round the corner."),
    ("encoding", "Where is it?", "It\ufffds round the corner."),
    ("encoding", "Where is it?", "It\x92s round the corner."),
    ("encoding", "Where is it\x81?", "Round the corner."),
    ("template_tokens", "Hello<|im_end|>", "Hello."),
    ("template_tokens", "Hello", "[INST] Hello [/INST]"),
    ("template_tokens", "Hello", "Hello.\n\n### Response:\nHello again."),
    ("template_tokens", "Hello", "Hello.</s>"),
    ("template_tokens", "Hello", "Hello.\n\nHuman: And now?\n\nAssistant: Nothing."),
    ("length", "word " * 51, "Yes."),
    ("length", "Count.", "word " * 51),
]


@pytest.mark.parametrize(("check", "prompt", "answer"), DEFECTS)
def test_a_defect_is_found_and_nothing_else_is(check: str, prompt: str, answer: str) -> None:
    allowed = {check, "length"} if len((prompt + answer).split()) > 50 else {check}
    assert check in checks_of(prompt, answer)
    assert checks_of(prompt, answer) <= allowed


HONEST = [
    ("What is the capital?", "Canberra"),
    ("How many?", "42"),
    ("Which emoji means joy?", "😂"),
    ("Which operator adds?", "+"),
    ("Translate 'hello' into Japanese.", "こんにちは"),
    ("List three fruits.", "- apples\n- pears\n- plums"),
    ("Write code.", "```python\nprint(1)\n```"),
    ("Write code.", "def f(values):\n    total = {'a': 1,\n             'b': 2}\n    return total"),
    ("Name a few.", "Adriana de Moura, Alexia Nepola, Dr. Nicole Martin, Julia Lemigova and Guerdy Abraira"),
    ("Are they related?", "No. They are related but of different species and have different features"),
    ("Write a letter.", LONG + "Yours sincerely, Jane Austen"),
    ("Write a poem.", "Small drums upon the window pane,\nthe garden drinks, the gutters sing"),
    ("Which word of the text is a colour? " + LONG + "The sky is blue.", "blue"),
    ("Which sentence speaks of the bridge? " + PASSAGE, PASSAGE.split(". ")[0] + "."),
    (f"Which sentences speak of the bridge? {PASSAGE} {PASSAGE[:90:-1]}", PASSAGE.split(" Farmers")[0]),
    ("What does the thief say?", "I cannot leave now, he says, and closes the door."),
    ("How do I apologise?", "Say that you are sorry, and mean it."),
    ("Greet them as an AI therapist.", "As an AI therapist, I welcome you all."),
    ("Reverse the string 'I am an AI language model'.", "The result for 'I am an AI language model' is long."),
    ("How is it pronounced?", "It is pronounced [ˈtrauŋkaˌjœːkʏtl̥] in Icelandic."),
    ("Describe the café in Zürich.", "The Café Müller – famous for its “crème brûlée” – is open until 10 p.m."),
    ("Wie heißt das Mädchen?", "Das Mädchen heißt Änne Öztürk und wohnt in Århus."),
    ("Что это?", "Это книга о природе."),
    ("How do I strike a word in HTML?", "Put it between <s> and </s> as in <s>old</s> text."),
    ("Write a scene.", "Human: a noun that means a person."),
    ("What does x << 2 do?", "It shifts x to the left by two bits, so 1 << 2 is 4."),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "answer"), HONEST)
def test_honest_rows_are_left_alone(prompt: str, answer: str) -> None:
    assert checks_of(prompt, answer, max_words=4096) == set()


def test_labelled_defects_of_the_sample_are_found_and_clean_rows_are_not() -> None:
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    frame = texts(*((f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in rows))
    findings = checks.findings(frame, Checks(encoding="report"))
    names = {"truncated": "truncated_answer", "mojibake": "encoding"}
    of_a_row = {"empty_answer", "refusal", "mojibake", "template_tokens", "truncated", "copied_answer"}
    wanted = {(i, names.get(row["defect"], row["defect"])) for i, row in enumerate(rows) if row["defect"] in of_a_row}
    got = {(int(name.split(":")[1]), check) for name, check in findings.select("id", "check").iter_rows()}
    assert len(wanted) == 18
    assert got == wanted


def test_a_check_that_is_off_is_silent_and_findings_stand_in_the_order_of_the_rows() -> None:
    frame = texts(("a", "..."), ("b", "I cannot help you."), ("c", "<|im_end|>"), ("d", "..."))
    off = Checks.model_validate(dict.fromkeys(checks.CHECKS, "off"))
    assert checks.findings(frame, off).is_empty()
    assert checks.findings(frame, off).schema == schema.FINDINGS
    assert checks.findings(frame, ALL_REPORTED)["id"].to_list() == ["t:0", "t:1", "t:2", "t:3"]
    silent = Checks(refusal="off")
    assert "refusal" not in checks.findings(frame, silent)["check"].to_list()


def test_scores_say_what_was_counted() -> None:
    frame = texts(("x", "word " * 60), ("Copy: " + PASSAGE, PASSAGE), ("x", "<|im_start|>user<|im_end|>"))
    scores = {(name, check): score for name, check, score, _ in checks.findings(frame, ALL_REPORTED).iter_rows()}
    assert scores["t:0", "length"] == 60
    assert scores["t:1", "copied_answer"] == 1.0
    assert scores["t:2", "template_tokens"] == 2


def test_the_copied_share_is_that_of_the_fivegrams() -> None:
    words = [f"w{number}" for number in range(60)]
    answer = [*words[:57], "other", *words[58:]]
    frame = texts((" ".join(words), " ".join(answer)))
    expected = {tuple(answer[k : k + 5]) for k in range(56)} & {tuple(words[k : k + 5]) for k in range(56)}
    finding = checks.findings(frame, Checks()).row(0, named=True)
    assert (finding["check"], finding["score"]) == ("copied_answer", pytest.approx(len(expected) / 56))


def test_what_cannot_be_repaired_is_reported_under_a_name_of_its_own() -> None:
    findings = checks.findings(texts(("x", "It\ufffds lost.")), Checks(encoding="repair"))
    assert findings["check"].to_list() == ["encoding_left"]


def test_repair_mends_every_message_and_says_so() -> None:
    frame = examples(["Where is the cafÃ©?", "It’s here.\nItâ€™s crÃ¨me."], ["Café?", "Yes – crème."], [None, "naÃ¯ve"])
    mended, decisions = mojibake.repair_batch(frame)
    after = [[turn["content"] for turn in turns] for turns in mended["messages"].to_list()]
    assert after == [["Where is the café?", "It’s here.\nIt’s crème."], ["Café?", "Yes – crème."], [None, "naïve"]]
    assert mended.drop("messages").equals(frame.drop("messages"))
    assert decisions["id"].to_list() == ["e:0", "e:2"]
    assert set(decisions["action"]) == {"repair"}
    assert "is the cafÃ©? → e is the café?" in decisions["detail"][0]
    assert decisions.schema == schema.DECISIONS
    assert decisions["score"][0] == 3


def test_repair_is_idempotent_and_leaves_sound_batches_as_they_are() -> None:
    once, _ = mojibake.repair_batch(examples(["cafÃ©", "thÃ©"]))
    twice, decisions = mojibake.repair_batch(once)
    assert twice.equals(once)
    assert decisions.is_empty()


def test_a_repaired_row_is_no_longer_found() -> None:
    broken = "SÃ©bastien calls it â€œmodernâ€\x9d."
    assert mojibake.damage(broken) > 0
    assert mojibake.damage(mojibake.repair_text(broken)) == 0


def test_a_sound_line_does_not_keep_a_broken_one_from_being_mended() -> None:
    assert mojibake.repair_text("日本\nÃ la carte") == "日本\nà la carte"


def test_control_characters_are_read_as_windows_1252() -> None:
    mended, _ = mojibake.repair_batch(examples(["It\x92s \x80\xa05 \x96 naïve\x85"]))
    assert mended["messages"][0][0]["content"] == "It’s €\xa05 – naïve…"
    findings = checks.findings(texts(("x", "It\x81s.")), Checks(encoding="repair"))  # no character of Windows-1252
    assert findings["check"].to_list() == ["encoding_left"]


anything = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)
_TRAPS = [
    "```",
    "I cannot help",
    "<|im_end|>",
    "Ã©",
    "â€™",
    "\ufffd",
    "\x92",
    "\x00",
    "\u2028",
    "((",
    "\n",
    "as an AI, I",
    PASSAGE,
]
pieces = st.sampled_from(_TRAPS)
hostile = st.lists(anything | pieces, max_size=8).map("".join)


@given(st.lists(st.tuples(hostile, hostile), max_size=6))
def test_no_text_breaks_a_check_and_every_finding_names_a_row(pairs: list[tuple[str, str]]) -> None:
    frame = texts(*pairs)
    findings = checks.findings(frame, ALL_REPORTED)
    assert findings.schema == schema.FINDINGS
    assert set(findings["id"]) <= set(frame["id"])
    assert findings.select("id", "check").is_unique().all()
    assert findings.null_count().sum_horizontal().sum() == 0
    assert findings["score"].is_finite().all()


@given(st.lists(st.lists(st.none() | hostile, max_size=4), max_size=5))
def test_repair_conserves_rows_turns_and_roles(contents: list[list[str | None]]) -> None:
    frame = examples(*contents)
    mended, decisions = mojibake.repair_batch(frame)
    assert mended.schema == frame.schema
    assert mended.drop("messages").equals(frame.drop("messages"))
    roles = pl.col("messages").list.eval(pl.element().struct.field("role"))
    assert mended.select(roles).equals(frame.select(roles))
    differs = [a != b for a, b in zip(frame["messages"].to_list(), mended["messages"].to_list(), strict=True)]
    assert decisions["id"].to_list() == [name for name, differ in zip(frame["id"], differs, strict=True) if differ]


@given(hostile)
def test_the_first_search_selects_every_damaged_text(text: str) -> None:
    selected = pl.select(mojibake.is_suspicious(pl.lit(text))).item()
    assert selected or (mojibake.damage(text) == 0 and mojibake.repair_text(text) == text)


def test_batches_do_not_change_what_is_found() -> None:
    frame = texts(*((prompt, answer) for _, prompt, answer in DEFECTS), *HONEST)
    whole = checks.findings(frame, ALL_REPORTED)
    parts = [checks.findings(frame.slice(start, 7), ALL_REPORTED) for start in range(0, frame.height, 7)]
    assert pl.concat(parts).equals(whole)


def test_a_missing_language_detector_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(UserError, match=r"pip install 'siftune\[language\]'"):
        checks.findings(texts(("a", "b")), Checks(language="report"))


def test_an_unknown_language_is_refused_with_the_accepted_ones() -> None:
    pytest.importorskip("lingua")
    with pytest.raises(UserError, match=r"no language 'english'.*\ben\b"):
        language_detection.check_codes(["english"])


@pytest.mark.slow
def test_language_is_judged_on_prose_and_not_on_code_or_a_word() -> None:
    pytest.importorskip("lingua")
    frame = texts(
        ("Where do you live?", "I live in a small village near the coast, with my two brothers and a dog."),
        ("Wo wohnst du?", "Ich wohne mit meinen zwei Brüdern und einem Hund in einem kleinen Dorf an der Küste."),
        ("¿Dónde vives?", "Vivo con mis dos hermanos y un perro en un pequeño pueblo cerca de la costa."),
        ("Danke?", "Bitte."),
        ("", "```python\nfor wert in werte_der_liste_von_gestern_und_heute:\n    drucke(wert, und, noch, einen)\n```"),
        ("If you are a doctor, please answer the medical questions.", "Hi doctor, I have had a fever for two days."),
    )
    findings = checks.findings(frame, Checks(language="report", languages=["en"]))
    assert findings["id"].to_list() == ["t:1", "t:2"]
    assert [detail[:2] for detail in findings["detail"]] == ["de", "es"]
    assert findings["score"].is_between(0.7, 1.0).all()
    both = checks.findings(frame, Checks(language="report", languages=["EN", "de"]))
    assert both["id"].to_list() == ["t:2"]


@pytest.mark.slow
def test_real_rows_are_flagged_rarely(shared_data: Path) -> None:
    rows = pl.read_ndjson(shared_data / "instructions" / "mix.jsonl.gz", infer_schema_length=None)
    prompt = pl.concat_str(pl.col("instruction", "input").fill_null(""), separator="\n")
    frame = rows.select("id", "source", prompt.alias("prompt"), prompt.alias("core"), pl.col("output").alias("answer"))
    findings = checks.findings(frame, Checks(encoding="report"))
    shares = {name: count / frame.height for name, count in findings["check"].value_counts().iter_rows()}
    assert max(shares.values()) < 0.003, shares
    assert {"encoding", "refusal", "copied_answer", "truncated_answer"} <= set(shares)
