"""Each page by itself, without a browser."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from siftune.app.web import charts, entry, queries, state, training_queries
from siftune.app.web.components import layout
from siftune.app.web.components.verb_chart import verb_chart
from siftune.app.web.pages import PAGES
from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.review.annotations import Annotation, read_annotations, tag_counts
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.decision_words import decision_words
from siftune.curation.review.funnel import funnel, warnings
from siftune.curation.review.labels import read_labels, write_label
from siftune.curation.review.lengths import balance_summary, is_trained, length_histogram, median_lengths
from siftune.curation.review.pairs import PAIR_KINDS, score_histogram, with_scores
from siftune.curation.review.tables import duplicate_groups
from siftune.curation.review.token_lengths import stored_lengths
from siftune.curation.review.what_if import replay
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import BalanceRecord, LeakageRecord, LengthBinRecord, LengthRecord
from siftune.curation.run.overrides import Override, read_overrides
from siftune.training import truncation
from siftune.training.evaluation.formatting import format_interval
from siftune.training.evaluation.judge_model import JudgedPair, JudgeResult, VoteAgreement
from siftune.training.evaluation.prompt_answers import read_answers
from siftune.training.evaluation.stage_contributions import StageContribution
from siftune.training.evaluation.statistics import Estimate, vote_result
from siftune.training.evaluation.tasks.comparisons import TaskComparison, TaskResult
from siftune.training.evaluation.verdict import Verdict
from siftune.training.evaluation.verdict_report import write_verdict
from siftune.training.evaluation.verdict_sentences import STAGES_NOTE
from siftune.training.result import RESULT_FILE
from tests.app.world import RECIPE, contaminate

#: Function, and address, of each page.
NAMES = [draw_page.__name__ for draw_page in PAGES.values()]
#: One page, among all of them, so that it can link to the others.
SCRIPT = """
import streamlit as st
from siftune.app.web.pages import PAGES

pages = {title: st.Page(draw, title=title, default=draw.__name__ == "NAME") for title, draw in PAGES.items()}
st.session_state["pages"] = pages
st.navigation(list(pages.values())).run()
"""
ABOUT_TRAINING = ["training", "chat", "prompts", "verdict"]
#: What each page of a trained run of 400 rows must show.
CONTENT = {
    "overview": ("400 rows in, ", "400 → ", "Leaked test rows", "No verdict from one training run of"),
    "browse": ("400 of 400 rows", "attack script"),
    "row_map": ("This run has no map.", "topics: {}"),
    "decisions": ("near: drop, near duplicate, score 0.8", "<mark>"),
    "thresholds": ("Rows left are counted before splits and balance.", "nearest to the threshold: similarity 0."),
    "training": ("rows cut or left out", "running mean over 3 steps"),
    "chat": ("each arm keeps its own conversation history",),
    "prompts": ("What colour has door 3?", "checks passed"),
    "verdict": ("curated − raw", "minimum detectable effect", "There are no votes yet"),
}


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    """Open a page on a run."""

    def opened(name: str, run: Path, *, address: dict[str, object] | None = None, **session: object) -> AppTest:
        monkeypatch.setenv(state.RUN_VARIABLE, str(run))
        at = AppTest.from_string(SCRIPT.replace("NAME", name), default_timeout=60)
        for key, value in session.items():
            at.session_state[key] = value
        for key, value in (address or {}).items():
            at.query_params[key] = value
        return at.run()

    return opened


def shown(at: AppTest) -> str:
    """All that stands on a page."""
    assert not at.exception, at.exception
    return "\n".join(str(element.proto.body) for element in at.get("html"))


@pytest.mark.parametrize("name", NAMES)
def test_every_page_draws_a_trained_run(page, trained_world: Path, name: str) -> None:
    text = shown(page(name, trained_world))
    for part in CONTENT[name]:
        assert part in text


def test_the_verdict_draws_tasks_beside_loss(page, done_run: Path) -> None:
    run = RunFolder.open(done_run)
    document = Verdict.read(run)
    assert document is not None
    assert "Tasks" not in [title.value for title in page("verdict", done_run).subheader]
    difference = Estimate(0.0123, 0.0011, 0.0235, 0.005, 0.015)
    comparison = TaskComparison("curated", "raw", "secondary", (3, 3), difference, None, 0.02, 0.04, "better")
    counts = {"items": 40, "clusters": 7, "contaminated": 2, "related": 0, "left_out": 0}
    task = TaskResult(
        label="quiz", kind="choice", primary=False, **counts, outcomes={}, accuracies={}, run_noise=None,
        comparisons=(comparison,),
    )  # fmt: skip
    write_verdict(dataclasses.replace(document, tasks=(task,)), run)
    at = page("verdict", done_run)
    text = shown(at)
    assert "Tasks" in [title.value for title in at.subheader]
    assert "quiz: 40 items in 7 clusters; left out: 2 that a training row of an arm holds." in text
    assert "quiz, secondary" in text
    assert format_interval(difference) in text


def test_the_verdict_draws_what_a_judge_said(page, done_run: Path) -> None:
    run = RunFolder.open(done_run)
    document = Verdict.read(run)
    assert document is not None
    pair = JudgedPair("curated", "raw", vote_result(7, 1, 4), 2, 0, (31.5, 20.0), 5)
    judge = JudgeResult(
        "some/judge", (pair,), VoteAgreement(6, 4, 3, 0.194, 0.994), heldout_prompts=20, heldout_asked=3
    )
    write_verdict(dataclasses.replace(document, judge=judge), run)
    at = page("verdict", done_run)
    assert "Answers compared by some/judge" in [title.value for title in at.subheader]
    text = shown(at)
    assert "7 : 1" in text
    assert "4 (2)" in text
    assert "32 : 20" in text
    assert "5 of 8" in text
    assert "the same one on 3 (75% [19%, 99%]; 50 % is chance)" in text
    assert "The recipe asks for 20 held-out prompts; the run has 3 with one turn and no system prompt." in text


def test_the_verdict_draws_what_each_stage_contributes(page, done_run: Path) -> None:
    run = RunFolder.open(done_run)
    document = Verdict.read(run)
    assert document is not None
    before = page("verdict", done_run)
    assert "What each stage contributes" not in [title.value for title in before.subheader]
    comparison = document.comparisons[0]
    stages = (
        StageContribution("near", "no-near", 60, comparison.difference, "single run", "<b>what is known</b>"),
        StageContribution("checks", "no-checks", 0, None, None, "the choice is exact"),
    )
    write_verdict(dataclasses.replace(document, stages=stages), run)
    at = page("verdict", done_run)
    text = shown(at)
    assert "What each stage contributes" in [title.value for title in at.subheader]
    assert "against no-near" in text
    interval = format_interval(comparison.difference.per_token)
    assert text.count(interval) == shown(before).count(interval) + 1
    assert "the same rows" in text
    assert STAGES_NOTE in text
    assert "<b>what is known" not in text
    charts = [chart.proto.spec for chart in at.get("vega_lite_chart")]
    assert sum("the stage helps" in spec for spec in charts) == 1


def test_the_entry_script_stands_alone_in_its_folder() -> None:
    """Streamlit puts its folder on the module path, and would take a folder `pages` in it for an older kind of app."""
    folder = Path(entry.__file__).parent
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"__init__.py", "streamlit_app.py"}


@pytest.mark.parametrize("name", ABOUT_TRAINING)
def test_pages_of_the_second_half_say_what_to_run_next(page, plain_world: Path, name: str) -> None:
    assert f"siftune curate {plain_world / 'recipe.yaml'}" in shown(page(name, plain_world))


def test_a_recipe_without_training_is_told_what_to_add(page, done_run: Path) -> None:
    for name in ("prompts", "training"):
        shutil.rmtree(done_run / name)
    (done_run / "verdict.json").unlink()
    run = RunFolder.open(done_run)
    manifest = run.manifest
    manifest.recipe = RECIPE
    manifest.write(run.manifest_path)
    text = shown(page("verdict", done_run))
    assert "has no section <code>training:</code>" in text
    assert "\n    training: {}\n" in text
    assert text.index(f"siftune curate {run.recipe_path}") < text.index(f"siftune train {done_run}")


def test_arms_of_the_same_weights_are_said_to_be_so(page, done_run: Path) -> None:
    run = RunFolder.open(done_run)
    shutil.copytree(run.adapter("raw", 0), run.adapter("curated", 0), dirs_exist_ok=True)
    text = shown(page("chat", done_run).chat_input[0].set_value("What?").run())
    assert "The arms raw and curated have the same weights, so their answers are the same" in text
    assert "larger training budget or other seeds" in text
    assert "same_weights=True" not in text
    engine = state.engine(run)
    assert training_queries.equal_arms_sentence(run, engine, ("base", "raw")) is None


def test_what_is_next_follows_the_state_of_the_run(page, done_run: Path) -> None:
    (done_run / "verdict.json").unlink()
    assert f"siftune compare {done_run}" in shown(page("verdict", done_run))
    shutil.rmtree(done_run / "prompts")
    assert f"siftune prompts {done_run}" in shown(page("prompts", done_run))
    shutil.rmtree(done_run / "training")
    for name in ABOUT_TRAINING:
        if name != "verdict":
            assert f"siftune train {done_run}" in shown(page(name, done_run))


@pytest.mark.parametrize("damage", ["missing", "foreign", "torn", "newer"])
def test_a_broken_or_foreign_folder_is_one_clear_message(page, plain_run: Path, damage: str) -> None:
    manifest = plain_run / "manifest.json"
    if damage == "missing":
        shutil.rmtree(plain_run)
    elif damage == "foreign":
        manifest.unlink()
    elif damage == "torn":
        manifest.write_text(manifest.read_text()[:100])
    else:
        manifest.write_text(json.dumps({"siftune": {"format": 99}}))
    at = page("overview", plain_run)
    assert not at.exception
    assert len(at.get("html")) == 1
    assert str(plain_run) in shown(at)


def test_a_run_that_is_being_written_opens_and_then_shows_itself(page, plain_run: Path) -> None:
    rows = plain_run / "rows.parquet"
    aside = rows.rename(plain_run / "aside")
    at = page("overview", plain_run)
    assert "still being written" in shown(at)
    assert "ingest" in shown(at)
    aside.rename(rows)
    assert "600 rows in, " in shown(at.run())


def test_the_funnel_adds_up(page, plain_world: Path) -> None:
    catalogue = Catalogue.load(RunFolder.open(plain_world))
    steps = funnel(catalogue.run.manifest)
    assert [step.stage for step in steps] == ["ingest", "exact", "near"]
    assert steps[0].rows == len(catalogue)
    assert all(one.kept == two.rows for one, two in itertools.pairwise(steps))
    assert steps[-1].kept == catalogue.counts(catalogue.find(Query()), "fate")["kept"]
    kept = steps[-1].kept
    bars = charts.funnel(steps, kept=kept).data.groupby(charts.FUNNEL_STAGE)["rows"].sum().to_dict()
    assert bars == {step.stage: step.rows for step in steps if step.removed} | {"": kept}
    assert any(
        charts.FUNNEL_CLICK in chart.proto.selection_mode
        for chart in page("overview", plain_world).get("vega_lite_chart")
    )


def test_the_overview_shows_the_recall_of_a_search_that_may_miss_pairs(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    manifest = run.manifest
    manifest.notes = {"semantic": {"search": "faiss IVF64, nprobe 8", "recall": "0.9931", "sampled": "2000"}}
    manifest.write(run.manifest_path)
    (warning,) = warnings(run)
    assert "99.3 %" in warning
    assert warning in shown(page("overview", plain_run))


def test_histograms_count_every_row_once(plain_world: Path) -> None:
    rows = RunFolder.open(plain_world).rows()
    histogram = length_histogram(rows, "prompt_words")
    totals = dict(histogram.group_by("set").agg(rows=pl.col("rows").sum()).iter_rows())
    trained = is_trained(rows)
    assert totals == {"before": rows.height, "after": int(trained.sum())}
    words = rows["prompt_words"].to_numpy()
    assert median_lengths(rows, "prompt_words") == (np.median(words), np.median(words[trained]))


def test_searching_and_filtering_narrow_the_rows(page, plain_world: Path) -> None:
    at = page("browse", plain_world)
    at.text_input("text 0").set_value('"attack ansi"').run()
    assert "1 of 600 rows" in shown(at)
    assert "⟨U+001B⟩[31mred" in shown(at)
    at.text_input("text 0").set_value("").run()
    at.multiselect("fate 0").set_value(["quarantined"]).run()
    quarantined = RunFolder.open(plain_world).rows().filter(pl.col("fate") == "quarantined").height
    assert f"{quarantined} of 600 rows" in shown(at)
    assert "could not be read as an example" in shown(at)
    at.multiselect("fate 0").set_value([]).run()
    at.text_input("text 0").set_value("beta:3").run()
    assert "1 of 600 rows" in shown(at)
    assert "<b>beta:3</b>" in shown(at)
    assert "near duplicate" in at.multiselect("reason 0").options
    at.text_input("text 0").set_value("wordthatisnowhere").run()
    assert "No rows match" in shown(at)


def test_ids_that_begin_alike_are_told_apart() -> None:
    ids = [f"a_source_with_a_long_name:{number}" for number in range(100_000, 100_030)]
    short = [layout.short_id(row_id) for row_id in ids]
    assert len(set(short)) == len(ids)
    assert all(len(one) <= 24 and one.endswith(row_id[-6:]) for one, row_id in zip(short, ids, strict=True))
    assert layout.short_id("alpha:3") == "alpha:3"


def test_a_page_turns_and_a_new_question_starts_at_its_first(page, plain_world: Path) -> None:
    at = page("browse", plain_world)
    at.button("browse_page on").click().run()
    assert "page 2 of 24" in shown(at)
    at.selectbox("order 0").set_value("answer_words").run()
    assert "page 1 of 24" in shown(at)


def test_another_page_can_ask_for_rows(page, plain_world: Path) -> None:
    at = page("browse", plain_world, browse=Query(stage=("near",)), browse_version=1)
    assert at.multiselect("stage 1").value == ["near"]
    dropped = RunFolder.open(plain_world).rows().filter(pl.col("stage") == "near").height
    assert f"{dropped} of 600 rows" in shown(at)


def test_an_address_opens_its_filter_and_its_row(page, plain_world: Path) -> None:
    rows = RunFolder.open(plain_world).rows().filter(pl.col("stage") == "near")
    row_id = rows["id"][-1]
    at = page("browse", plain_world, address={"stage": "near", "row": row_id, "colour": "red"})
    text = shown(at)
    assert f"{rows.height} of 600 rows" in text
    assert f"<b>{row_id}</b>" in text
    assert "a parameter &#x27;colour&#x27; that Browse does not know" in text
    at = page("decisions", plain_world, address={"stage": "exact", "action": "drop"})
    assert "exact: drop, exact duplicate" in shown(at)
    at = page("thresholds", plain_world, address={"stage": "nothing"})
    assert "asks for a stage that has no threshold" in shown(at)


def test_a_whole_filter_is_dropped_tagged_and_given_back(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    at = page("browse", plain_run, address={"fate": "kept", "source": "beta"}, **{"act on filter": True})
    kept = run.rows().filter(pl.col("fate") == "kept", pl.col("source") == "beta")["id"].to_list()
    button = at.button("bulk drop")
    assert button.label == f"Drop {len(kept)} rows"
    at.text_input("bulk reason").set_value("not ours")
    button.click().run()
    assert read_overrides(run.overrides_path) == {row_id: Override(row_id, "drop", "not ours") for row_id in kept}
    assert f"{len(kept)} rows dropped by hand." in shown(at)
    at.button("bulk undo").click().run()
    assert f"Undone for {len(kept)} rows." in shown(at)
    assert read_overrides(run.overrides_path) == {}
    at.text_input("bulk tag").set_value("check").run()
    at.button("bulk add tag").click().run()
    assert tag_counts(read_annotations(run)) == {"check": len(kept)}
    at = page("browse", plain_run, address={"tag": "check"})
    assert f"{len(kept)} of 600 rows" in shown(at)


def test_a_row_keeps_its_note_and_its_tags(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    at = page("browse", plain_run)
    at.text_area("note alpha:0").set_value("look <b>again</b>").run()
    at.multiselect("tags alpha:0 ").set_value(["one"]).run()
    assert read_annotations(run) == {"alpha:0": Annotation(("one",), "look <b>again</b>")}
    at.multiselect("tags alpha:0 one").set_value([]).run()
    assert read_annotations(run) == {"alpha:0": Annotation((), "look <b>again</b>")}
    assert "1 of 600 rows" in shown(page("browse", plain_run, address={"by_hand": "note"}))


def test_every_page_says_what_it_is_for_and_every_chart_what_to_see(page, trained_world: Path) -> None:
    for name in NAMES:
        at = page(name, trained_world)
        assert 'class="sf purpose"' in shown(at), name
        for chart in at.get("vega_lite_chart"):
            assert json.loads(chart.proto.spec).get("title"), name


def test_a_dropped_row_is_kept_by_hand_and_given_back(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    at = page("decisions", plain_run)
    row_id = next(button.key for button in at.button if button.label == "Keep").removeprefix("restore ")
    at.text_input(f"reason {row_id}").set_value("they differ")
    at.button(f"restore {row_id}").click().run()
    assert read_overrides(run.overrides_path) == {row_id: Override(row_id, "restore", "they differ")}
    assert f"restore {row_id}" not in {button.key for button in at.button}  # the next decision is there
    assert f"{row_id}: kept by hand, the next <code>siftune curate</code> applies it." in shown(at)
    at.button("decisions near drop near_duplicate_page previous").click().run()
    assert "By hand: kept, because: they differ" in shown(at)
    assert "<code>siftune curate</code> applies it; in this run the row is dropped." in shown(at)
    at.button(f"drop {row_id}").click().run()  # as the stage decided: no decision by hand
    assert read_overrides(run.overrides_path) == {}


#: Stage, action and reason, and the columns that a decision of this kind has between its row and its instruction.
KINDS = {
    ("near", "drop", "near_duplicate"): ["kept instead", "similarity", "margin"],
    ("near", "guard", "differs_in_guarded_tokens"): ["not a duplicate of", "similarity", "margin", "what differs"],
    ("conflicts", "report", "conflicting_answers"): ["same prompt, other answer"],
    ("checks", "report", "refusal"): ["what was found"],
    ("splits", "drop", "heldout_twin"): ["resembles the held-out row"],
    ("splits", "drop", "leak"): ["resembles the held-out row", "similarity", "margin", "compared by"],
    ("balance", "drop", "balance_bin"): ["drawn before it", "similarity", "quota"],
    ("overrides", "restore", "by_hand"): ["your reason"],
}


def with_every_kind(folder: Path) -> RunFolder:
    """A run with a decision of every kind, for the same witness, which the stage `exact` dropped."""
    run = RunFolder.open(folder)
    ledger = run.ledger()
    dropped = ledger.filter(pl.col("stage") == "exact")["id"][0]
    head = ledger.filter(pl.col("stage") == "near").head(1)
    same = head.with_columns(witness=pl.lit(dropped), detail=pl.lit("why"))
    lines = [
        same.with_columns(stage=pl.lit(stage), action=pl.lit(action), reason=pl.lit(reason))
        for stage, action, reason in list(KINDS)[1:]
    ]
    write_parquet(schema.conform(pl.concat([ledger, *lines]), schema.LEDGER), run.ledger_path)
    return run


def test_each_kind_of_decision_has_columns_that_are_true_of_it(page, plain_run: Path) -> None:
    with_every_kind(plain_run)
    for (stage, action, reason), expected in KINDS.items():
        words = decision_words(RunFolder.open(plain_run), stage=stage, action=action, reason=reason)
        margin = "margin" if words.margin else None
        assert [one for one in (words.witness, words.score, margin, words.detail) if one] == expected
        if stage not in ("near", "conflicts") or action == "guard":
            continue
        at = page("decisions", plain_run, address={"stage": stage, "action": action, "reason": reason})
        table = at.dataframe[0]
        # The instruction stands last, where a narrow window cuts a table.
        assert table.value.columns.to_list() == ["row", *expected, "instruction"]
        assert table.proto.HasField("placeholder")  # an empty cell is empty, and not None
        text = shown(at)
        assert ("kept instead" in text) == (stage == "near")
        if stage == "conflicts":
            assert table.value["same prompt, other answer"][0].endswith("(dropped by exact)")
            assert "score" not in next(line for line in text.split("\n") if "conflicts: report" in line)


def test_only_duplicates_are_members_of_a_group_of_duplicates(plain_run: Path) -> None:
    run = with_every_kind(plain_run)
    duplicates = run.ledger().filter(pl.col("stage").is_in(["exact", "near"]), pl.col("action") == "drop")
    assert duplicate_groups(run, most=10_000)["rows"].sum() == duplicates.height


def test_rows_that_training_cut_are_decisions_like_others(page, plain_run: Path) -> None:
    row = RunFolder.open(plain_run).ledger().head(1)
    changes = {"action": "truncate", "reason": "max_length", "score": 2618.0, "threshold": 1024.0, "witness": None}
    cut = row.with_columns(
        **{name: pl.lit(value) for name, value in changes.items()}, detail=pl.lit("2 tokens are cut")
    )
    truncation.record(plain_run, truncation.training_stage("raw"), schema.conform(cut, schema.LEDGER))
    at = page("decisions", plain_run)
    kind = next(name for name in at.selectbox[0].options if name.startswith("train/raw"))
    text = shown(at.selectbox[0].select(kind).run())
    assert "train/raw: truncate" in text
    assert "tokens 2,618, limit 1,024" in text
    assert "2 tokens are cut" in text


def test_pairs_that_all_are_guarded_are_shown_without_labels(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    pairs = run.pairs("near")
    write_parquet(pairs.with_columns(guarded=pl.lit(value=True)), run.file("near"))
    at = page("thresholds", plain_run)
    text = shown(at)
    reached = pairs.filter(pl.col("score") >= 0.8).height
    assert f"All {reached} pairs right of the line are guarded: they differ in a number" in text
    assert "guarded pair 1 of" in text
    assert "<mark>" in text
    assert "Same near" not in {button.key for button in at.button}
    spec = json.loads(at.get("vega_lite_chart")[0].proto.spec)
    assert "except guarded pairs" in spec["title"]["text"]
    assert "at least 0.8 (<code>near: answers:</code>)" in text


def test_guarded_pairs_are_one_click_beside_those_to_label(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    at = page("thresholds", plain_run)
    assert "Same near" in {button.key for button in at.button}
    at.button_group(key="pairs of near").set_value(True).run()
    assert "guarded pair 1 of" in shown(at)
    # A label of a pair that is guarded, from whatever time, is no evidence about a threshold.
    a, b = run.pairs("near").filter("guarded").select("a", "b").row(0)
    write_label(run, a=a, b=b, measure="near", same=False)
    assert with_scores(run, "near", read_labels(run, "near"), threshold=0.65).is_empty()


def test_labels_are_counted_in_words(page, plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    pairs = run.pairs("near")
    reaching = pairs.filter(pl.col("score") >= 0.8).head(3)
    write_parquet(pl.concat([reaching, pairs.filter(pl.col("score") < 0.8)]), run.file("near"))
    write_label(run, a=reaching["a"][0], b=reaching["b"][0], measure="near", same=True)
    text = shown(page("thresholds", plain_run))
    assert "The one labelled pair at or above 0.80 is the same: precision 100%" in text
    assert "that takes 36 pairs without a mistake, and this threshold has only 3." in text


@pytest.mark.parametrize("threshold", [0.65, 0.7, 0.8, 0.825, 0.95, 1.0])
def test_a_pair_at_the_threshold_is_drawn_right_of_its_line(plain_run: Path, threshold: float) -> None:
    run = RunFolder.open(plain_run)
    pairs = run.pairs("near")
    scores = pl.Series("score", [0.65 + 0.05 * (row % 8) for row in range(pairs.height)]).round(2)
    scores = scores.set(pl.Series(range(pairs.height)) % 9 == 0, threshold)
    write_parquet(pairs.with_columns(scores), run.file("near"))
    histogram = score_histogram(run, "near", threshold=threshold)
    assert histogram["pairs"].sum() == pairs.height
    right = histogram.filter(pl.col("score") >= threshold)
    assert right["pairs"].sum() == (scores >= threshold).sum()
    assert threshold in histogram["score"].to_list()


def test_a_label_is_kept_and_the_next_pair_shown(page, plain_run: Path) -> None:
    at = page("thresholds", plain_run)
    assert "Pair 1 of" in shown(at)
    at.button("Same near").click().run()
    assert "Pair 2 of" in shown(at)
    at.button("Different near").click().run()
    assert read_labels(RunFolder.open(plain_run), "near")["same"].to_list() == [True, False]
    assert "labelled pair" in shown(at)


def test_contamination_is_judged_like_duplicates(page, plain_run: Path) -> None:
    run = RunFolder.open(contaminate(plain_run))
    at = page("thresholds", plain_run)
    at.button_group[0].set_value("contamination").run()
    assert "Is the row this item?" in [element.value for element in at.subheader]
    text = shown(at)
    assert "exam" in text
    assert "6.7 % (0.2 % to 37.1 %): 1 decoy, 15 rows" in text
    assert "Pair 1 of the 40 nearest to the threshold" in text
    assert "wrong choice" in text
    assert "<mark>" in text
    for _ in range(50):  # until the item with a script is beside its row
        if "exam:22<" in text:
            break
        text = shown(at.button("next contamination").click().run())
    assert "script&gt;" in text
    assert "<script>" not in text
    # The slider counts the rows that the stage would drop: ten word for word, others by their score.
    for threshold in (0.5, 0.8):
        at.slider("threshold contamination").set_value(threshold).run()
        scored = pl.read_parquet(run.file("contamination")).filter(pl.col("outcome") == "same")
        assert int(at.metric[0].value) == scored.filter(pl.col("score") >= threshold)["id"].n_unique()
    at.button("Different contamination").click().run()
    at.button("Same contamination").click().run()
    labels = read_labels(run, "contamination")
    assert labels["same"].to_list() == [False, True]
    assert set(labels["a"]) <= set(run.rows()["id"])
    assert labels["b"].str.starts_with("exam:").all()
    assert "at or above 0.80" in shown(at)


def test_a_contaminated_row_is_shown_beside_the_item(page, plain_run: Path) -> None:
    run = RunFolder.open(contaminate(plain_run))
    at = page("decisions", plain_run)
    kind = next(name for name in at.selectbox[0].options if "contamination · drop" in name)
    text = shown(at.selectbox[0].select(kind).run())
    assert "item of a benchmark" in text
    assert "shared: explain" in text
    assert "benchmark item" in at.dataframe[0].value.columns
    assert "<script>" not in text
    row_id = run.ledger().filter(stage="contamination")["id"][0]
    at = page("browse", plain_run)
    at.text_input("text 0").set_value(f'"Explain {row_id}"').run()
    shown(at)


def test_the_slider_replays_exactly(page, plain_world: Path) -> None:
    run = RunFolder.open(plain_world)
    at = page("thresholds", plain_world)
    for threshold in (0.65, 0.8, 0.9, 1.0):
        at.slider("threshold near").set_value(threshold).run()
        assert not at.exception
        assert int(at.metric[0].value.replace(",", "")) == greedy(run, threshold)
    assert greedy(run, 0.8) == run.ledger().filter(pl.col("stage") == "near").height


def test_what_the_run_recorded_is_what_a_replay_of_its_thresholds_counts(plain_run: Path) -> None:
    run = RunFolder.open(contaminate(plain_run))
    catalogue = Catalogue.load(run)
    lengths = np.arange(1, pl.read_parquet(run.texts).height + 1, dtype=np.uint32)
    again = replay(run, {})
    for stage in ("near", "contamination"):
        dropped = again.decisions[stage].filter(pl.col("action") == "drop").height
        tokens = int(lengths[again.left["row"].to_numpy()].sum())
        words = again.left.select(pl.sum_horizontal(pl.col("prompt_words", "answer_words").cast(pl.Int64).sum())).item()
        assert dropped > 0
        for unit, length in ((lengths, tokens), (None, words)):
            counts = queries.recorded_counts(catalogue, stage, unit)
            assert counts == queries.ReplayCounts(dropped, 0, again.left.height, length)


def greedy(run: RunFolder, threshold: float) -> int:
    """Rows that the near stage drops, by the definition: in keep order, each row that resembles a kept one."""
    from siftune.curation.review.what_if import index

    exact = run.ledger().filter(pl.col("stage") == "exact")["id"].to_list()
    order = index(run).sort("rank").filter(~pl.col("id").is_in(exact))["id"].to_list()
    near = run.pairs("near").filter(pl.col("score") >= threshold, ~pl.col("guarded"))
    alike: dict[str, set[str]] = {}
    for a, b in near.select("a", "b").rows():
        alike.setdefault(a, set()).add(b)
        alike.setdefault(b, set()).add(a)
    leaders: set[str] = set()
    for row in order:
        if not alike.get(row, set()) & leaders:
            leaders.add(row)
    return len(order) - len(leaders)


def test_settings_that_differ_are_marked(page, done_run: Path) -> None:
    text = shown(page("training", done_run))
    assert text.count("<mark>") == 2  # the adapter's hash, once an arm
    done = RunFolder.open(done_run).training("raw", 0) / RESULT_FILE
    done.write_text(json.dumps(json.loads(done.read_text()) | {"rows": 99, "warnings": ["one <b>", "two"]}))
    text = shown(page("training", done_run))
    assert text.count("<mark>") == 6
    assert "<mark>one &lt;b&gt;<br>two</mark>" in text
    assert '<table class="named">' in text


def test_dashes_have_a_legend_and_steps_are_whole_numbers() -> None:
    log = {"arm": ["raw"] * 4, "seed": [0, 0, 1, 1], "x": [1, 2, 1, 2], "loss": [2.0, 1.5, 2.0, 1.7]}
    for frame, dashed in ((pl.DataFrame(log), True), (pl.DataFrame(log).head(2), False)):
        spec = charts.curve(frame, "loss", title="loss", arms=["raw"]).to_dict()
        encoding = spec["layer"][0]["encoding"]
        assert (encoding["strokeDash"]["legend"] is not None) == dashed
        assert encoding["x"]["axis"]["tickMinStep"] == 1
    minutes = charts.curve(pl.DataFrame(log).cast({"x": pl.Float64}), "loss", title="loss", arms=["raw"]).to_dict()
    assert "tickMinStep" not in minutes["layer"][0]["encoding"]["x"]["axis"]


def test_names_on_the_rings_of_verbs_do_not_overlap() -> None:
    verbs = [f"classify{number}" for number in range(12)]
    lines = [(verb, f"noun{number}", 3 + number) for verb in verbs for number in range(2)]
    tree = pl.DataFrame(lines, schema=["verb", "noun", "rows"], orient="row")
    tree = tree.with_columns(set=pl.lit("raw"), share=pl.col("rows") / 100)
    spec = verb_chart(tree, "raw").to_dict()
    texts = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text" and "stroke" not in layer["mark"]]
    boxes = []
    for layer in texts:
        for name in spec["datasets"][layer["data"]["name"]]:
            angle, radius, text = name["middle"], layer["mark"]["radius"], name["label"]
            x, y = radius * np.sin(angle), radius * np.cos(angle)
            boxes.append((x - 3 * len(text), x + 3 * len(text), y - 6, y + 6))
    assert len(boxes) > len(verbs)
    for one, two in itertools.combinations(boxes, 2):
        assert one[1] <= two[0] or two[1] <= one[0] or one[3] <= two[2] or two[3] <= one[2]


def test_the_leak_of_a_random_split_is_an_average(plain_run: Path) -> None:
    run = RunFolder.open(plain_run)
    manifest = run.manifest
    leak = LeakageRecord(measure="near", test_rows=110, expected=37.4, share=0.34, low=0.3, high=0.4)
    manifest.naive_split = [leak]
    manifest.write(run.manifest_path)
    figure = next(one for one in queries.figures(Catalogue.load(run), None) if one.label == "Leaked test rows")
    assert figure.value.startswith("37.4 → ")
    assert "on average over random splits" in figure.note


def test_the_mask_viewer_marks_what_is_trained(page, trained_world: Path) -> None:
    at = page("training", trained_world)
    at.text_input("mask row").set_value("alpha:30").run()
    assert 'class="token trained"' in shown(at)
    assert 'class="token"' in shown(at)
    at.text_input("mask row").set_value("alpha:99999").run()
    assert "No arm and no held-out set of" in shown(at)


def test_a_prompt_is_added_and_answered_by_every_arm(page, done_run: Path) -> None:
    at = page("prompts", done_run)
    at.text_area("added prompt").set_value("A prompt by hand")
    at.button[-1].click().run()
    at.selectbox[0].set_value("A prompt by hand").run()
    text = shown(at)
    assert all(f">{arm}</div>" in text for arm in ("base", "raw", "curated"))
    assert "A prompt by hand" in (done_run / "prompts" / "prompts.md").read_text()


def test_a_million_rows_are_never_drawn_at_once(page, plain_world: Path) -> None:
    at = page("browse", plain_world)
    assert len(at.dataframe[0].value) == 25


def test_a_file_that_cannot_be_read_is_one_clear_message(plain_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(state.RUN_VARIABLE, str(plain_run))
    (plain_run / "rows.parquet").write_bytes(b"PAR1 torn")
    at = AppTest.from_file(str(Path(entry.__file__).with_name("streamlit_app.py")), default_timeout=60).run()
    assert "A file of this run cannot be read. Curate again" in shown(at)


def test_a_bin_of_the_balance_is_named_by_both_its_ends(plain_run: Path) -> None:
    """`bins` of the manifest hold their upper ends."""
    run = RunFolder.open(plain_run)
    lengths = LengthRecord(rows=3, effective_bins=2.0, entropy=0.6)
    bins = [LengthBinRecord(low=3, high=3, before=2, after=1), LengthBinRecord(bin=1, low=4, high=7, before=1, after=1)]
    manifest = run.manifest
    manifest.balance = BalanceRecord(before=lengths, after=lengths, bins=bins)
    manifest.write(run.manifest_path)
    summary = balance_summary(run)
    assert summary is not None
    assert summary.bins["bin"].unique(maintain_order=True).to_list() == ["3", "4–7"]


def test_pairs_that_the_guard_keeps_apart_are_counted_apart(plain_world: Path) -> None:
    run = RunFolder.open(plain_world)
    pairs = run.pairs("near")
    counts = score_histogram(run, "near").group_by("kind").agg(pl.col("pairs").sum())
    free, guarded = PAIR_KINDS
    assert dict(counts.iter_rows()) == {guarded: pairs["guarded"].sum(), free: (~pairs["guarded"]).sum()}


def test_a_member_of_a_duplicate_group_can_be_restored(page, plain_run: Path) -> None:
    at = page("decisions", plain_run)
    at.button_group[0].set_value(["Duplicate groups"]).run()
    button = next(button for button in at.button if button.label == "Keep")
    row_id = button.key.removeprefix("restore ")
    button.click().run()
    assert list(read_overrides(RunFolder.open(plain_run).overrides_path)) == [row_id]


def test_prompts_are_a_table_of_all_arms(page, trained_world: Path) -> None:
    text = shown(page("prompts", trained_world))
    table = next(part for part in text.split("<table>") if '<th class="">prompt</th>' in part)
    answers = read_answers(RunFolder.open(trained_world)).to_dicts()
    assert table.split("</table>")[0].count("(empty)") == sum(not answer["answer"].strip() for answer in answers) > 0
    for answer in answers:
        assert f"{answer['tokens']} tokens, {answer['tokens_per_second']:.1f}/s" in table


def test_the_slider_counts_tokens_of_the_base_model(page, done_run: Path) -> None:
    from transformers import AutoTokenizer

    run = RunFolder.open(done_run)
    kept = run.rows().filter(pl.col("fate") == "kept")["id"]
    texts = pl.read_parquet(run.texts).filter(pl.col("id").is_in(kept.implode()))
    tokenizer = AutoTokenizer.from_pretrained(run.recipe.model.name)
    both_columns = [*texts["prompt"], *texts["answer"]]
    expected = sum(map(len, tokenizer(both_columns, add_special_tokens=False)["input_ids"]))
    at = page("thresholds", done_run)
    for _ in range(100):
        if at.metric[2].label == "Tokens left":
            break
        at.run()
    assert (at.metric[2].label, at.metric[2].value) == ("Tokens left", f"{expected:,}")
    stored = stored_lengths(run)
    assert stored is not None
    assert len(stored.total) == pl.read_parquet(run.texts).height
    at.slider("threshold near").set_value(0.9).run()
    assert "tokens" in at.metric[2].delta


def test_a_run_without_a_model_counts_words_and_says_so(page, plain_world: Path) -> None:
    at = page("thresholds", plain_world)
    assert at.metric[2].label == "Words left"
    assert "Words are counted, since no section of the recipe needs the tokens of a base model." in shown(at)


@pytest.mark.parametrize(("section", "expected"), [("", False), ("balance: {}\n", True), ("training: {}\n", True)])
def test_tokens_are_counted_where_a_section_of_the_recipe_counts_them(
    plain_run: Path, section: str, expected: bool
) -> None:
    run = RunFolder.open(plain_run)
    manifest = run.manifest
    manifest.recipe = RECIPE + section
    manifest.write(run.manifest_path)
    assert state.needs_tokens(RunFolder.open(plain_run).recipe) == expected
