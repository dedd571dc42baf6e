"""The story of a row: its decisions, what the guard saw, and witnesses followed across stages."""

from __future__ import annotations

import pytest

from siftune.curation.errors import UserError
from siftune.curation.pipeline import curate
from siftune.curation.review.explain import explain
from siftune.curation.run.folder import RunFolder
from tests.worlds import write_recipe, write_source

ANSWER = "the photon has an energy that lies above the threshold of pairs and so it makes one"
PROMPT = "how much energy does a photon of this kind have when it meets the field of a heavy nucleus"
DATA = [
    {"instruction": f"{PROMPT} at rest", "output": f"{ANSWER} of both kinds in the end"},  # 0: the first of all
    {"instruction": f"{PROMPT} at rest", "output": f"{ANSWER} of both kinds in the"},  # 1: near 0
    {"instruction": f"{PROMPT} at rest", "output": f"{ANSWER}  of both kinds in the"},  # 2: exactly 1, but for a space
    {"instruction": f"{PROMPT} at rest at 1.032 MeV", "output": f"{ANSWER} of both kinds"},  # 3: guarded
    {"instruction": "what else", "output": None},  # 4: quarantined
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("explain")
    write_source(DATA, folder / "s.jsonl")
    return curate(write_recipe(folder, "s.jsonl"))


def test_witnesses_are_followed_across_stages_to_a_row_that_was_kept(run: RunFolder) -> None:
    story = explain(run, "s:2")
    assert [(step["stage"], step["witness"], step["fate"]) for step in story.chain] == [
        ("exact", "s:1", "dropped"),
        ("near", "s:0", "kept"),
    ]
    assert story.row["stage"] == "exact"
    (chapter,) = (chapter for chapter in story.chapters if chapter.decision["action"] == "drop")
    assert chapter.witness_fate == "dropped"


def test_differences_put_together_are_the_texts(run: RunFolder) -> None:
    (chapter,) = (chapter for chapter in explain(run, "s:1").chapters if chapter.decision["action"] == "drop")
    assert chapter.differences is not None
    left, right = ("".join(text for _, text in side) for side in chapter.differences)
    assert left == f"{DATA[1]['instruction']}\n{DATA[1]['output']}"
    assert right == f"{DATA[0]['instruction']}\n{DATA[0]['output']}"
    assert [text.strip() for kind, text in chapter.differences[1] if kind == "changed"] == ["end"]


def test_the_guard_says_what_it_saw(run: RunFolder) -> None:
    story = explain(run, "s:3")
    (chapter,) = story.chapters
    assert story.row["fate"] == "kept"
    assert (chapter.decision["action"], chapter.decision["witness"]) == ("guard", "s:0")
    assert chapter.decision["detail"] == "prompt 0.83, answer 0.86; 1.032 ≠ (nothing)"
    assert any(row["guarded"] and row["id"] == "s:0" for row in story.neighbours)


def test_a_kept_row_has_neighbours_and_no_chain(run: RunFolder) -> None:
    story = explain(run, "s:0")
    assert not story.chain
    assert not story.chapters
    assert [turn["role"] for turn in story.messages] == ["user", "assistant"]
    assert story.neighbours[0]["id"] == "s:1"
    assert story.neighbours[0]["score"] == max(row["score"] for row in story.neighbours)


def test_a_quarantined_row_has_its_reason_and_no_text(run: RunFolder) -> None:
    story = explain(run, "s:4")
    assert (story.row["fate"], story.row["stage"], story.messages) == ("quarantined", "ingest", [])
    assert "s.jsonl:4" in story.chapters[0].decision["detail"]


@pytest.mark.parametrize(
    ("row", "message"), [("s:5", "rows 0 to 4"), ("t:1", "Sources: s"), ("nonsense", "ROW is a number")]
)
def test_an_unknown_row_is_answered_with_what_there_is(run: RunFolder, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explain(run, row)
