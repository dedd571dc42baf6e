"""The map: what is drawn of any number of rows, what a selection opens, and the file for other viewers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from siftune.app.cli.commands import main
from siftune.app.web import state
from siftune.app.web.components.map_chart import Drawing, coloured, map_chart
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.row_map import RowMap, Window
from siftune.curation.run.folder import RunFolder
from tests.app.world import HOSTILE, add_map


@pytest.fixture(scope="module")
def map_world(plain_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_map(Path(shutil.copytree(plain_world, tmp_path_factory.mktemp("map") / "run")))


@pytest.fixture(scope="module")
def row_map(map_world: Path) -> RowMap:
    opened = RowMap.open(Catalogue.load(RunFolder.open(map_world)))
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
    assert cells["rows"].sum() == len(inside)
    for cell in cells.to_dicts():  # 1e-6: the edge of a cell belongs to one of two
        held = [
            row
            for row in by_hand
            if cell["x"] + 1e-6 < x[row] < cell["x2"] - 1e-6 and cell["y"] + 1e-6 < y[row] < cell["y2"] - 1e-6
        ]
        assert len(held) <= cell["rows"]
    sample = row_map.sample(inside, most)
    assert len(sample) == min(most, len(inside))
    assert set(sample) <= set(inside)
    larger = row_map.sample(row_map.catalogue.find(Query()), most)
    assert set(larger) & set(inside) <= set(sample)  # zooming in takes no point away


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


@pytest.mark.parametrize("colour", ["fate", "topic", "length", "curated"])
def test_a_chart_has_a_layer_for_each_thing_that_is_shown(row_map: RowMap, colour: str) -> None:
    inside = row_map.inside(row_map.everything, row_map.catalogue.find(Query()))
    dropped = int(np.flatnonzero(row_map.witness >= 0)[0])
    points = row_map.sample(inside, 200)
    drawing = Drawing(
        row_map, row_map.everything, inside, points, colour, True, True, row_map.everything.scaled(0.5), dropped
    )
    spec = map_chart(drawing).to_dict()  # checked against the schema
    marks = [(layer.get("mark") or {}).get("type", "names") for layer in spec["layer"]]
    assert marks == ["rect", "circle", "rule", "names", "rect", "rule", "point"]
    rows = [len(spec["datasets"][layer["data"]["name"]]) for layer in spec["layer"] if "data" in layer]
    assert rows[1] == 200
    names = {param["name"] for layer in spec["layer"] for param in layer.get("params", [])} | {
        param["name"] for param in spec.get("params", [])
    }
    assert names == {"box", "click"}
    frame, _ = coloured(row_map, points, colour)
    assert frame["value"].null_count() == 0
    assert "\u202e" not in json.dumps(spec, ensure_ascii=False)
    few = Drawing(row_map, row_map.everything, points, points, colour, False, False, None, None)
    assert [(layer.get("mark") or {}).get("type") for layer in map_chart(few).to_dict()["layer"]] == ["circle"]


def test_more_values_than_colours_share_one(row_map: RowMap) -> None:
    points = row_map.catalogue.find(Query())[:300]
    numbered = row_map.catalogue.frame.with_columns(
        topic=pl.Series([f"t{number % 12:02d}" for number in range(len(row_map.catalogue))])
    )
    catalogue = Catalogue(row_map.catalogue.run, numbered, row_map.catalogue.arms)
    frame, _ = coloured(RowMap(catalogue, row_map.x, row_map.y, row_map.rank), points, "topic")
    assert frame["value"].n_unique() == 10
    assert frame.filter(pl.col("value") == "all others").height == 75


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


def test_a_box_lists_its_rows_and_a_click_opens_one(map_page, row_map: RowMap) -> None:
    box = Window(-0.5, 0.5, -1, 1)
    inside = row_map.inside(box, row_map.catalogue.find(Query()))
    assert f"{len(inside):,} rows in the box" in map_page(map_box=box)
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
