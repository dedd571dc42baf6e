"""IFD against one plain forward pass a row, and how it is reported."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from siftune.curation import schema
from siftune.curation.checksums import checksum
from siftune.curation.corpus import write_batches
from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review import difficulty, report
from siftune.training import models
from siftune.training.evaluation.ifd_worker import IfdJob, compute_ifd
from tests.training.worlds import message
from tests.worlds import many, write_recipe, write_source

ROWS = [
    [message("user", "What colour is the apple?"), message("assistant", "The apple is red, as the door is.")],
    [message("system", "Be brief."), message("user", "And the door?"), message("assistant", "Green is the door.")],
    [
        message("user", "Say it."),
        message("assistant", "Blue."),
        message("user", "Again!"),
        message("assistant", "Blue door"),
    ],
    [message("user", ""), message("assistant", "The garden has a white bridge.")],
    [message("user", "Nothing?"), message("assistant", "")],
    [message("user", "word " * 200), message("assistant", "never reached")],
    [message("user", "Long"), message("assistant", "the red door of the garden " * 30)],
]


@pytest.fixture(scope="module")
def measured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, IfdJob]:
    folder = tmp_path_factory.mktemp("ifd")
    arm = pl.DataFrame({"id": [f"s:{number}" for number in range(len(ROWS))], "messages": ROWS})
    schema.conform(arm, schema.ARM).write_parquet(folder / "arm.parquet")
    job = IfdJob(
        rows=folder / "arm.parquet",
        out=folder / "ifd.parquet",
        notes={"arm": "curated"},
        max_length=64,
        resolved=models.resolve(str(tiny_model)),
    )
    labels: list[str] = []
    assert compute_ifd(job, lambda label, done, total: labels.append(label)) == {"rows": 5}
    assert {"losses of answers alone", "losses of answers with their prompts"} <= set(labels)
    return pl.read_parquet(job.out), job


def test_values_are_those_of_one_plain_pass_a_row(measured):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    frame, job = measured
    model = AutoModelForCausalLM.from_pretrained(job.resolved.folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(job.resolved.folder)

    def loss(ids: list[int], count: int) -> float:
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
        return float(torch.nn.functional.cross_entropy(logits[-count:], torch.tensor(ids[-count:])))

    prompts = [
        "What colour is the apple?\n",
        "Be brief.\nAnd the door?\n",
        "Say it.\nBlue.\nAgain!\n",
        "\n",
        "",
        "",
        "Long\n",
    ]
    for number in (0, 1, 2, 3, 6):
        asked, said = (
            tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompts[number], ROWS[number][-1]["content"])
        )
        said = said[: 64 - len(asked)]
        row = frame.row(number, named=True)
        assert row["tokens"] == len(said) - 1  # this tokenizer puts no mark before a text
        assert row["given"] == pytest.approx(loss(asked + said, len(said) - 1), rel=2e-2)
        assert row["alone"] == pytest.approx(loss(said, len(said) - 1), rel=2e-2)
        assert row["ifd"] == pytest.approx(math.exp(row["given"] - row["alone"]))


def test_rows_without_a_value_and_answers_that_were_cut_say_so(measured):
    frame, _ = measured
    notes = dict(frame.select("id", "note").iter_rows())
    assert notes["s:4"] == "left out: the answer has no token to score"
    assert notes["s:5"] == "left out: the prompt fills all tokens"
    assert notes["s:6"].startswith("the answer is cut to ")
    assert [notes[f"s:{number}"] for number in range(4)] == [None] * 4
    assert frame.filter(pl.col("note").str.starts_with("left out"))["ifd"].null_count() == 2


def test_no_row_to_score_is_a_fault_of_the_user(measured):
    _, job = measured
    with pytest.raises(UserError, match="within 1 tokens"):
        compute_ifd(job.model_copy(update={"max_length": 1, "out": job.out.with_name("none.parquet")}), lambda *_: None)


def test_rows_at_or_above_one_are_listed_and_values_of_other_rows_are_not_shown(tmp_path):
    write_source([*many(6), {"instruction": "<i>who</i>", "output": "<b>nobody</b> at all"}], tmp_path / "s.jsonl")
    run = curate(write_recipe(tmp_path, "s.jsonl"))
    ids = pl.read_parquet(run.arm("curated"))["id"].to_list()
    assert ids[-1] == "s:6"
    assert difficulty.ifd_summary(run) is None
    values = [0.5] * (len(ids) - 2) + [1.0, 1.25]
    stored = pl.DataFrame({"id": ids, "tokens": range(3, 3 + len(ids)), "ifd": values})
    notes = {"arm": "curated", "rows": checksum(run.arm("curated")), "model": "tiny", "max_length": "64"}
    run.ifd_path.parent.mkdir()
    write_batches(iter([stored]), run.ifd_path, schema.IFD, notes=notes)

    summary = difficulty.ifd_summary(run)
    assert "2 rows at or above 1, where the answer does not depend on the prompt" in summary.sentence
    assert summary.independent["id"].to_list() == ["s:6", ids[-2]]
    assert summary.by_source.select("source", "rows", "independent").rows() == [("s", len(ids), 2)]
    report.write(run)
    assert "<b>nobody" not in run.report_html.read_text()
    assert "&lt;b&gt;nobody" in run.report_html.read_text()
    assert difficulty.KNOWN_FAILURES in run.report_markdown.read_text()

    pl.read_parquet(run.arm("curated"))[1:].write_parquet(run.arm("curated"))
    assert "Measure again: siftune ifd" in difficulty.ifd_summary(run).sentence
