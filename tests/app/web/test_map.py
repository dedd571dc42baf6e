"""The map: what is drawn of any number of rows, what a selection opens, and the file for other viewers."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.app.cli.commands import main
from siftune.app.web import markup, state
from siftune.app.web.components.map_chart import Drawing, coloured, map_data
from siftune.curation.atomic_files import write_parquet
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.row_map import RowMap, Window
from siftune.curation.review.search import TextIndex
from siftune.curation.run.folder import RunFolder
from tests.app.world import HOSTILE, add_map


@pytest.fixture(scope="module")
def map_world(plain_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_map(Path(shutil.copytree(plain_world, tmp_path_factory.mktemp("map") / "run")))


@pytest.fixture(scope="module")
def row_map(map_world: Path) -> RowMap:
    catalogue = Catalogue.load(RunFolder.open(map_world))
    TextIndex.build(catalogue)  # it has the first words of prompts at hand
    opened = RowMap.open(catalogue)
    assert opened is not None
    return opened


def test_every_row_that_could_be_read_has_its_own_place(row_map: RowMap, map_world: Path) -> None:
    stored = pl.read_parquet(map_world / "measures" / "topics-0.parquet")
    places = {row["id"]: (row["x"], row["y"]) for row in stored.to_dicts()}
    for row, x, y in zip(row_map.catalogue.frame.to_dicts(), row_map.x, row_map.y, strict=True):
        assert np.isnan(x) == (row["fate"] == "quarantined")
        assert np.isnan(x) or (x, y) == pytest.approx(places[row["id"]])
    everything = row_map.catalogue.find(Query())
    assert len(row_map.inside(row_map.everything, everything)) == len(places)


@given(st.floats(-0.5, 3), st.floats(0.01, 2), st.floats(-0.4, 0.2), st.floats(0.01, 0.5), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_window_shows_its_rows_as_density_and_as_a_sample(row_map, left, width, bottom, height, most) -> None:
    window = Window(left, left + width, bottom, bottom + height)
    inside = row_map.inside(window, row_map.catalogue.find(Query()))
    x, y = row_map.x, row_map.y
    by_hand = [row for row in range(len(x)) if left <= x[row] <= left + width and bottom <= y[row] <= bottom + height]
    assert inside.tolist() == by_hand
    cells = row_map.density(inside, window, columns=7, lines=5)
    assert cells.sum() == len(inside)
    for line, column in np.ndindex(5, 7):  # 1e-6: the edge of a cell belongs to one of two
        at, over = left + column * width / 7, bottom + line * height / 5
        held = [
            row
            for row in by_hand
            if at + 1e-6 < x[row] < at + width / 7 - 1e-6 and over + 1e-6 < y[row] < over + height / 5 - 1e-6
        ]
        assert len(held) <= cells[line, column]
    sample = row_map.sample(inside, most)
    assert len(sample) == min(most, len(inside))
    assert set(sample) <= set(inside)
    larger = row_map.sample(row_map.catalogue.find(Query()), most)
    assert set(larger) & set(inside) <= set(sample)  # zooming in takes no point away


@pytest.mark.parametrize("corners", [3, 4, 5, 9, 40])
def test_an_outline_holds_the_rows_that_an_exact_ray_upwards_says(row_map: RowMap, corners: int) -> None:
    numbers = np.random.default_rng(corners)
    # Few distinct places: corners at the height of rows, upright and level edges, edges that cross each other.
    x, y = (numbers.integers(0, 24, 150).astype(np.float32) / np.float32(7) for _ in range(2))
    x[7] = y[7] = np.nan
    places = RowMap(row_map.catalogue, x, y, row_map.rank)
    polygon = [tuple(corner) for corner in (numbers.integers(0, 24, (corners, 2)) / 7).round(int(corners % 3)).tolist()]
    allowed = np.flatnonzero(np.arange(150) % 3 > 0).astype(np.uint32)
    inside = set(places.within(polygon, allowed).tolist())
    exact = [tuple(map(Fraction, corner)) for corner in polygon]
    for row in allowed:
        if np.isnan(x[row]):
            assert row not in inside
            continue
        at, over = Fraction(float(x[row])), Fraction(float(y[row]))
        above, is_on_an_edge = 0, False
        for (x1, y1), (x2, y2) in zip(exact, [*exact[1:], exact[0]], strict=True):
            turn = (x2 - x1) * (over - y1) - (y2 - y1) * (at - x1)
            is_on_an_edge |= turn == 0 and min(x1, x2) <= at <= max(x1, x2) and min(y1, y2) <= over <= max(y1, y2)
            above += min(x1, x2) <= at < max(x1, x2) and y1 + (y2 - y1) * (at - x1) / (x2 - x1) > over
        assert is_on_an_edge or (row in inside) == (above % 2 == 1)
    assert corners == 40 or places.within(polygon, places.inside(places.everything, allowed)).tolist() == sorted(inside)


def test_topics_are_named_where_their_rows_are(row_map: RowMap) -> None:
    everything = row_map.inside(row_map.everything, row_map.catalogue.find(Query()))
    places = row_map.topic_places(everything, 3)
    assert places["topic"][0] == "river, stone"
    assert places["rows"].to_list() == sorted(places["rows"], reverse=True)
    assert places["x"].to_list() == pytest.approx([0, 1, 2], abs=0.05)


def test_witnesses_are_those_of_the_ledger(row_map: RowMap, map_world: Path) -> None:
    ids = row_map.catalogue.frame["id"]
    drops = RunFolder.open(map_world).ledger().filter(pl.col("action") == "drop")
    expected = dict(zip(drops["id"], drops["witness"], strict=True))
    assert {ids[int(row)]: ids[int(row_map.witness[row])] for row in np.flatnonzero(row_map.witness >= 0)} == expected


def test_a_row_dropped_for_a_quota_resembles_no_row(plain_run: Path) -> None:
    run = RunFolder.open(add_map(plain_run))
    drops = run.ledger().filter(pl.col("action") == "drop")
    quota = drops.head(5).with_columns(stage=pl.lit("balance"), reason=pl.lit("balance_bin"))
    write_parquet(pl.concat([run.ledger().join(quota, on="id", how="anti"), quota]), run.ledger_path)
    row_map = RowMap.open(Catalogue.load(run))
    assert row_map is not None
    resembling = set(row_map.catalogue.frame["id"].to_numpy()[row_map.witness >= 0])
    assert resembling == set(drops["id"]) - set(quota["id"])


@pytest.mark.parametrize("colour", ["fate", "source", "topic", "stage", "length", "curated"])
def test_the_browser_is_sent_what_is_shown(row_map: RowMap, colour: str) -> None:
    window = row_map.everything
    inside = row_map.inside(window, row_map.catalogue.find(Query()))
    dropped = int(np.flatnonzero(row_map.witness >= 0)[0])
    points = row_map.sample(inside, 200)
    outline = ((window.left, window.bottom), (window.right, window.bottom), (window.left, window.top))
    data = map_data(Drawing(row_map, window, inside, points, colour, True, True, outline, dropped))
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    assert "\u202e" not in text
    sent = data["points"]
    assert sent["position"] == points.tolist()
    assert sent["x"] == pytest.approx((row_map.x[points] - window.left) / (window.right - window.left), abs=1e-4)
    assert sent["y"] == pytest.approx((row_map.y[points] - window.bottom) / (window.top - window.bottom), abs=1e-4)
    assert sum(shade > 0 for shade in data["shading"]["shades"]) == np.count_nonzero(
        row_map.density(inside, window, columns=data["shading"]["columns"], lines=data["shading"]["lines"])
    )
    rows = row_map.catalogue.frame[points]
    tips = {name: [values[code] for code in codes] for name, values, codes in data["tips"]}
    prompts = row_map.catalogue.texts(points)
    first_words = [markup.line(prompts[int(point)]["prompt"].replace("\n", " "), 50)[:50] for point in points]
    assert [prompt[:50] for prompt in tips.pop("prompt")] == first_words
    for name, values in tips.items():
        column = rows["id" if name == "row" else name].cast(pl.String)
        assert values == [markup.line(value or "") for value in column]
    if colour in ("fate", "source"):
        names = [data["legend"][code][0] for code in sent["value"]]
        assert names == [markup.line(value) for value in rows[colour].cast(pl.String)]
    if colour == "length":
        words = rows["prompt_words"].fill_null(0) + rows["answer_words"].fill_null(0)
        legend = [data["legend"][code][0] for code in sent["value"]]
        bounds = [tuple(map(int, name.removesuffix(" words").split("–"))) for name in legend]
        assert all(low <= count <= high for (low, high), count in zip(bounds, words, strict=True))
    if colour == "curated":
        assert [data["legend"][code][0] for code in sent["value"]] == [
            "in curated" if is_in else "not in it" for is_in in rows["arm:curated"]
        ]
    assert data["selection"] == [(0, 0), (1, 0), (0, 1)]
    own_line = data["row_lines"][-1]
    assert own_line[:2] == pytest.approx(data["row"])
    witness = row_map.witness[dropped]
    assert own_line[2] == pytest.approx((row_map.x[witness] - window.left) / (window.right - window.left), abs=1e-4)
    assert len(data["lines"]) == int((row_map.witness[points] >= 0).sum())
    few = map_data(Drawing(row_map, window, points, points, colour, False, False, None, None))
    assert [few[name] for name in ("shading", "names", "lines", "row", "row_lines", "selection")] == [
        None, [], [], None, [], None,
    ]  # fmt: skip


def test_more_values_than_colours_share_one(row_map: RowMap) -> None:
    points = row_map.catalogue.find(Query())[:300]
    numbered = row_map.catalogue.frame.with_columns(
        topic=pl.Series([f"t{number % 12:02d}" for number in range(len(row_map.catalogue))])
    )
    catalogue = Catalogue(row_map.catalogue.run, numbered, row_map.catalogue.arms)
    codes, legend = coloured(RowMap(catalogue, row_map.x, row_map.y, row_map.rank), points, "topic")
    assert len(legend) == 10
    assert legend[-1][0] == "all others"
    assert int((codes == 9).sum()) == 75


@pytest.fixture
def map_page(monkeypatch: pytest.MonkeyPatch, map_world: Path):
    from streamlit.testing.v1 import AppTest

    from tests.app.web.test_pages import SCRIPT

    monkeypatch.setenv(state.RUN_VARIABLE, str(map_world))

    def opened(**session: object) -> str:
        at = AppTest.from_string(SCRIPT.replace("NAME", "row_map"), default_timeout=60)
        for key, value in session.items():
            at.session_state[key.replace("_", " ")] = value
        at.run()
        assert not at.exception, at.exception
        return "\n".join(str(element.proto.body) for element in at.get("html"))

    return opened


def test_the_page_counts_topics_and_shows_their_names_as_text(map_page, row_map: RowMap) -> None:
    text = map_page()
    inside = len(row_map.inside(row_map.everything, row_map.catalogue.find(Query())))
    assert f"{inside:,} rows in view; each is a point." in text
    assert "principal components (20 % of the variance)" in text
    assert "12.3 of" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_an_outline_lists_its_rows_and_a_click_opens_one(map_page, row_map: RowMap) -> None:
    outline = ((-0.5, -1.0), (0.5, -1.0), (0.5, 1.0), (-0.5, 1.0))
    inside = row_map.inside(Window(-0.5, 0.5, -1, 1), row_map.catalogue.find(Query()))
    assert f"{len(inside):,} rows selected" in map_page(map_outline=outline)
    dropped = int(np.flatnonzero(row_map.witness >= 0)[0])
    text = map_page(map_row=dropped)
    assert row_map.catalogue.frame["id"][dropped] in text
    assert "rows in view" in map_page(map_window=Window(90, 91, 90, 91))  # an empty part of the map


def test_a_filter_of_browse_finds_the_rows_of_a_topic(row_map: RowMap) -> None:
    attack = next(iter(HOSTILE.values()))
    positions = row_map.catalogue.find(Query(topic=(attack,), fate=("kept",)))
    rows = row_map.catalogue.frame[positions]
    assert len(rows)
    assert set(rows["topic"]) == {attack}


def test_the_map_is_written_for_other_viewers(map_world: Path, plain_world: Path, tmp_path: Path) -> None:
    def siftune(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, arguments)
        return done.exit_code, done.output

    file = tmp_path / "new" / "map.parquet"
    code, output = siftune("map", str(map_world), str(file))
    assert (code, "rows with their places" in output) == (0, True)
    written = pl.read_parquet(file)
    assert written.columns == ["id", "x", "y", "topic", "fate", "source", "text"]
    run = RunFolder.open(map_world)
    texts = dict(pl.read_parquet(run.texts, columns=["id", "prompt"]).iter_rows())
    assert dict(written.select("id", "text").iter_rows()) == texts
    rows = run.rows().filter(pl.col("fate") != "quarantined")
    assert written.select("id", "topic", "fate", "source").equals(rows.select("id", "topic", "fate", "source"))
    for arguments, complaint in (
        ([str(map_world), str(file)], "exists already"),
        ([str(map_world), str(tmp_path / "map.csv")], "does not end in .parquet"),
        ([str(plain_world), str(tmp_path / "other.parquet")], "has no map. Add `topics: {}`"),
    ):
        code, output = siftune("map", *arguments)
        assert code == 2
        assert complaint in output
