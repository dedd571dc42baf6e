from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.text.prompt_templates import RUN_TOKENS, PromptTemplates

SHARED = "If you are a doctor, please answer the medical questions based on the patient's description."


def cores(prompts: list[str], *, rows: int = 5, share: float = 0.0, source: str = "s", batch: int = 7) -> list[str]:
    frame = pl.DataFrame({"source": [source] * len(prompts), "prompt": prompts})
    templates = PromptTemplates(rows=rows, share=share)
    for start in range(0, len(prompts), batch):
        templates.count(frame[start : start + batch])
    parts = [templates.strip(frame[start : start + batch]) for start in range(0, len(prompts), batch)]
    return pl.concat(parts)["core"].to_list()


def test_a_shared_instruction_is_left_out() -> None:
    said = ["My knee hurts.", "An arm hurts.", "His leg hurts.", "Her head hurts.", "This toe hurts."]
    assert cores([f"{SHARED}\n{part}" for part in said]) == said


def test_the_first_words_of_the_content_stay() -> None:
    """`template + My` is frequent too, but less than the template: the word belongs to the row."""
    prompts = [f"{SHARED}\nMy {part}" for part in "abcdef"] + [f"{SHARED}\nHer {part}" for part in "abcdefghijklmn"]
    assert cores(prompts)[0] == "My a"
    rare = [f"{SHARED}\nNot {part}" for part in "abcdef"] + [f"{SHARED}\n{part} is it" for part in "abcdefghijklmnop"]
    assert cores(rare)[0] == "Not a"


def test_white_space_and_case_of_what_is_left_stay() -> None:
    prompts = [f"{SHARED}\n\n{name} Item:\n\t- One\n\t- Two {name * 2}" for name in "ABCDE"]
    assert cores(prompts)[0] == "A Item:\n\t- One\n\t- Two AA"


def test_nothing_but_template_stays_whole() -> None:
    prompts = [f"{SHARED} {mark}" for mark in "!?.;:-"]
    assert cores(prompts) == prompts


def test_copies_of_one_prompt_are_no_template() -> None:
    prompt = "Write a short poem about the sea at night in four lines."
    assert cores([prompt] * 50 + [f"{prompt} Please"]) == [prompt] * 50 + [f"{prompt} Please"]


def test_too_rare_a_run_stays() -> None:
    prompts = [f"{SHARED} {part}" for part in "abcd"]
    assert cores(prompts, rows=5) == prompts
    assert cores([*prompts, *[f"other {row}" for row in range(96)]], rows=2, share=0.05)[:4] == prompts


def test_sources_are_counted_apart() -> None:
    frame = pl.DataFrame({"source": list("aaabbb"), "prompt": [f"{SHARED} {part}" for part in "uvwxyz"]})
    templates = PromptTemplates(rows=4, share=0.0)
    templates.count(frame)
    assert templates.strip(frame)["core"].to_list() == frame["prompt"].to_list()


def test_chinese_has_templates_too() -> None:
    assert (
        cores([f"请根据以下患者的描述回答医学问题：{part}" for part in ("头痛", "发烧", "咳嗽", "失眠", "疲劳")])[0]
        == "头痛"
    )


@given(st.lists(st.text(st.sampled_from("ab \n日é\u00a0"), max_size=30), min_size=1, max_size=12), st.integers(1, 12))
def test_batches_do_not_matter_and_cores_are_parts_of_prompts(prompts: list[str], batch: int) -> None:
    whole = cores(prompts, rows=2, batch=len(prompts))
    assert cores(prompts, rows=2, batch=batch) == whole
    for core, prompt in zip(whole, prompts, strict=True):
        left = iter("".join(prompt.split()))
        assert all(letter in left for letter in "".join(core.split())), "the core's letters, in the prompt's order"
        assert bool(core) == bool(prompt)


def test_a_run_is_eight_tokens() -> None:
    seven, eight = " ".join("abcdefg"), " ".join("abcdefgh")
    assert RUN_TOKENS == 8
    assert cores([f"{seven} {row}" for row in range(9)])[0] == f"{seven} 0"
    assert cores([f"{eight} {row}" for row in range(9)])[0] == "0"


@pytest.mark.slow
def test_chatdoctor_keeps_its_questions(shared_data: Path) -> None:
    with gzip.open(shared_data / "instructions" / "mix.jsonl.gz") as file:
        rows = pl.read_ndjson(file.read()).filter(pl.col("source") == "chatdoctor5k")
    frame = rows.select(
        "source", pl.concat_str("instruction", pl.col("input").fill_null(""), separator="\n").alias("prompt")
    )
    templates = PromptTemplates(rows=50, share=0.002)
    templates.count(frame)
    core = templates.strip(frame)["core"]
    assert rows["instruction"].value_counts(sort=True)["count"][0] > 0.99 * len(rows)
    assert core.n_unique() >= 0.99 * rows["input"].n_unique()
    assert not core.str.contains("please answer the medical questions", literal=True).any()
