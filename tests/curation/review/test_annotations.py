"""Notes, tags and actions on many rows: what two tabs do at once is kept, what is undone is as it was."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftune.curation.errors import UserError
from siftune.curation.review.annotations import (
    Annotation,
    add_tag,
    checked_tag,
    read_annotations,
    remove_tag,
    tag_counts,
    write_note,
)
from siftune.curation.review.bulk_actions import changed_by, decide_all, last_action, tag_all, undo, untag_all
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, change_overrides, decided, read_overrides


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_tags_and_notes_of_two_tabs_are_all_kept(run: RunFolder) -> None:
    def tab(tag: str) -> None:
        for number in range(15):
            add_tag(run, [f"s:{number}"], tag)
            write_note(run, f"s:{number}-{tag}", f"line one\nof {tag} \u2028")

    threads = [threading.Thread(target=tab, args=(tag,)) for tag in ("b", "a", "é 1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    annotations = read_annotations(run)
    assert tag_counts(annotations) == {"a": 15, "b": 15, "é 1": 15}
    assert annotations["s:3"] == Annotation(tags=("a", "b", "é 1"))
    assert annotations["s:3-a"].note == "line one\nof a"


def test_what_is_taken_away_leaves_nothing_behind(run: RunFolder) -> None:
    assert add_tag(run, ["s:1", "s:2"], " check  again ") == ["s:1", "s:2"]
    assert add_tag(run, ["s:2", "s:3"], "check again") == ["s:3"]
    write_note(run, "s:1", "because")
    assert remove_tag(run, ["s:1", "s:2", "s:3", "s:4"], "check again") == ["s:1", "s:2", "s:3"]
    write_note(run, "s:1", " ")
    assert read_annotations(run) == {}
    assert run.annotations_path.read_text() == ""


@pytest.mark.parametrize("text", ["", "  ", "=1+1", "<b>", "a" * 41, "a\u202eb", "a,b"])
def test_what_cannot_be_a_tag_is_refused(run: RunFolder, text: str) -> None:
    with pytest.raises(UserError, match="is no tag"):
        checked_tag(text)
    with pytest.raises(UserError, match="is no tag"):
        tag_all(run, ["s:1"], text)
    assert not run.annotations_path.exists()


def test_a_line_that_is_no_annotation_is_named(run: RunFolder) -> None:
    run.annotations_path.write_text('{"id": "a", "tags": [], "note": "x"}\n{"id": "b", "tags": 3, "note": ""}\n')
    with pytest.raises(UserError, match=r"annotations.jsonl:2"):
        read_annotations(run)


fates = st.dictionaries(
    st.sampled_from([f"s:{n}" for n in range(9)]), st.sampled_from(["kept", "dropped", "quarantined"])
)
given_before = st.dictionaries(
    st.sampled_from([f"s:{n}" for n in range(12)]), st.sampled_from(["restore", "drop"]), max_size=6
)


@given(fates=fates, before=given_before, action=st.sampled_from(["restore", "drop"]))
def test_an_action_decides_every_row_and_undo_gives_back_what_was(fates, before, action, tmp_path_factory) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    change_overrides(run, {row_id: Override(row_id, kind, "by hand") for row_id, kind in before.items()})
    at_first = read_overrides(run.overrides_path)
    expected = changed_by(fates, at_first, action)
    done = decide_all(run, fates, action, note="all")
    assert done.rows == len(expected)
    after = read_overrides(run.overrides_path)
    for row_id, fate in fates.items():
        if fate == "quarantined":
            assert after.get(row_id) == at_first.get(row_id)
            continue
        wanted = decided(row_id, fate, action)
        assert (after[row_id].action if row_id in after else None) == (wanted.action if wanted else None)
    assert {row_id: after[row_id] for row_id in at_first if row_id not in fates} == {
        row_id: override for row_id, override in at_first.items() if row_id not in fates
    }
    if done.rows:
        assert last_action(run) == done
        assert undo(run) == done.rows
    assert read_overrides(run.overrides_path) == at_first
    assert last_action(run) is None


def test_undo_leaves_alone_what_was_changed_since(run: RunFolder) -> None:
    decide_all(run, {"s:1": "kept", "s:2": "kept"}, "drop")
    change_overrides(run, {"s:2": Override("s:2", "drop", "on second thought")})
    assert undo(run) == 1
    assert list(read_overrides(run.overrides_path)) == ["s:2"]
    with pytest.raises(UserError, match="no action on many rows"):
        undo(run)


def test_tagging_many_rows_is_undone_for_those_that_were_changed(run: RunFolder) -> None:
    add_tag(run, ["s:1"], "old")
    assert tag_all(run, ["s:1", "s:2"], "old").rows == 1
    undo(run)
    assert tag_counts(read_annotations(run)) == {"old": 1}
    assert untag_all(run, ["s:1", "s:2"], "old").rows == 1
    undo(run)
    assert tag_counts(read_annotations(run)) == {"old": 1}
    run.last_action_path.write_text('{"kind": "drop"')
    assert last_action(run) is None
