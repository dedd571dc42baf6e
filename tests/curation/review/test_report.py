"""The report: one file that loads nothing, in which dataset text is only text."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
import yaml

from siftune.curation.pipeline import curate
from siftune.curation.review import report
from siftune.curation.review.funnel import funnel
from siftune.curation.review.tables import contamination_table
from siftune.curation.review.wording import score_text
from siftune.curation.run.folder import RunFolder
from tests.worlds import many, write_recipe, write_source

HOSTILE = (
    '<script>alert(1)</script> <img src=x onerror="alert(2)"> \u202e gnp.exe \x1b[31m </div></body> | `x` {{ 7*7 }}'
)
LOADING = {"script", "link", "iframe", "object", "embed", "img", "image", "video", "audio", "base", "form", "use"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("report")
    rows = many(60)
    for position in (0, 1):  # the second is dropped for the first, so both stand among the samples
        rows[position] = {"instruction": f"{HOSTILE} {rows[5]['instruction']}", "output": rows[5]["output"]}
    rows[1]["output"] += " <b onclick=alert(3)>more</b>"
    write_source(rows, folder / "s.jsonl")
    source = {"path": "s.jsonl", "name": "<script>s</script>", "format": "alpaca"}
    return curate(write_recipe(folder, "s.jsonl", sources=[source], splits={"test": 5}, name="<img src=x onerror=1>"))


def test_the_arms_are_listed_with_what_is_known_of_them(tmp_path: Path) -> None:
    write_source(many(60), tmp_path / "s.jsonl")
    arms = ["raw", {"name": "no-near", "without": ["near"]}, {"name": "no-conflicts", "without": ["conflicts"]}]
    run = curate(write_recipe(tmp_path, "s.jsonl", splits={"test": 4}, training={"arms": arms}))
    record = run.manifest.finished_counts().arms["no-near"]
    markdown, page = run.report_markdown.read_text("utf-8"), run.report_html.read_text("utf-8")
    line = f"| no-near | {record.rows} | {record.kept} | {record.answer_words} | {', '.join(record.same_as)} | near |"
    assert line in markdown
    assert f'<td>no-near<td class="n">{record.rows}<td' in page
    unmeasured = record.unmeasured["answers"]
    for text in (markdown, page):
        assert f"Rows that a later stage never measured: {unmeasured} that reach answers" in text
        assert "no-conflicts: decided again without conflicts" in text
        assert "so the choice is exact" in text
        assert "17.8 on average" in text


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_report_loads_nothing_and_runs_nothing(run: RunFolder) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    names = {tag for tag, _ in tags.tags}
    assert {"svg", "table", "details"} <= names
    assert not names & LOADING
    for tag, attributes in tags.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "href", "xlink:href", "action", "srcset"} & set(attributes), tag
    assert not re.findall(r"url\(\s*['\"]?(?!#)|@import", page)
    assert "default-src 'none'" in page


def test_dataset_text_is_shown_and_never_obeyed(run: RunFolder) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert "⟨U+202E⟩" in page
    assert "⟨U+001B⟩" in page
    for file in ("report.html", "report.md"):
        text = (run.path / file).read_text(encoding="utf-8")
        assert not set(text) & {"\u202e", "\x1b"}, file


def test_the_report_tells_what_the_run_did(run: RunFolder) -> None:
    manifest = run.manifest
    for file in ("report.html", "report.md"):
        text = (run.path / file).read_text(encoding="utf-8")
        for word in (
            "Funnel",
            "Leakage under a random split",
            "Certificate",
            "near duplicate",
            "The removed rows hold",
        ):
            assert word in text.replace("_", " "), (file, word)
        for stage in manifest.stages:
            assert stage.stage in text
        assert f"{manifest.finished_counts().kept:,}" in text


def test_report_and_dataset_card_show_one_funnel(run: RunFolder) -> None:
    steps = [f"{step.rows:,} {step.removed:,} {step.kept:,}" for step in funnel(run.manifest)]
    page = re.sub(r"<[^>]*>", " ", run.report_html.read_text(encoding="utf-8"))
    markdown = run.report_markdown.read_text(encoding="utf-8").replace("|", " ")
    card = (run.curated_folder / "README.md").read_text(encoding="utf-8").replace("|", " ")
    for text, shown_steps in ((page, steps), (markdown, steps), (card, steps[:-1])):
        numbers = " ".join(text.split())
        for step in shown_steps:
            assert step in numbers
    assert run.manifest.stages[-1].stage == "write"  # the card stands in the set that this step writes


def test_the_report_shows_the_warnings_of_the_run(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    manifest = copy.manifest
    manifest.notes = {"near": {"search": "faiss IVF64, nprobe 8", "recall": "0.9931", "sampled": "2000"}}
    manifest.write(copy.manifest_path)
    report.write(copy)
    for path in (copy.report_markdown, copy.report_html):
        assert "an estimated 99.3 % of the pairs were found" in path.read_text(encoding="utf-8")


def test_the_report_says_that_no_row_matches_a_benchmark(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    manifest = copy.manifest
    manifest.recipe = yaml.safe_dump(
        yaml.safe_load(manifest.recipe) | {"contamination": {"references": [{"path": "exam.jsonl"}]}}
    )
    manifest.write(copy.manifest_path)
    report.write(copy)
    for path, compared in ((run.report_html, False), (copy.report_html, True), (copy.report_markdown, True)):
        assert ("No row matches an item of the benchmarks." in path.read_text(encoding="utf-8")) == compared


def test_the_contamination_table_counts_rows_by_what_matches(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    matched = [
        ("a", "quiz/test:1", "ngram", "prompt", "same"),
        ("a", "quiz/test:2", "ngram", "prompt", "same"),
        ("b", "quiz/test:1", "ngram", "prompt", "same"),
        ("b", "quiz/test:1", "ngram", "answer", "same"),
        ("c", "quiz/test:3", "ngram", "answer", "same"),
        ("c", "quiz/test:3", "exact", "both", "same"),
        ("d", "quiz/test:4", "exact", "both", "related"),
    ]
    frame = pl.DataFrame(matched, schema=["id", "reference", "rule", "field", "outcome"], orient="row")
    monkeypatch.setattr(RunFolder, "matches", lambda _: frame)
    assert contamination_table(run).rows() == [
        ("quiz/test", "exact", 1, 1, 0, 0, 1),
        ("quiz/test", "ngram", 3, 3, 1, 1, 1),
    ]


@pytest.mark.parametrize(
    ("score", "shown"), [(0.8999999, "0.8999"), (0.5882353, "0.5882"), (0.7, "0.7000"), (0.0, "0.0000")]
)
def test_a_score_below_a_threshold_never_reads_as_the_threshold(score: float, shown: str) -> None:
    assert score_text(score) == shown
