"""Where the rows of a source are: links, folders of splits, runs beside the data, brackets in names."""

from __future__ import annotations

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from siftune.curation.errors import UserError
from siftune.curation.ingest.file_rows import read_rows
from siftune.curation.ingest.source_location import locate
from siftune.curation.ingest.sources import read_sources
from siftune.curation.pipeline import curate
from siftune.curation.recipe.sections import Source

ROWS = [{"question": f"How is {i} said?", "answer": f"It is said {i}."} for i in range(6)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def write(path, text=JSONL):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def splits(base, path):
    report = read_sources([Source(path=path)], base=base, out=base / "o.parquet", quarantine=base / "q.jsonl")
    files = [file.file for file in report.sources[0].files]
    found = pl.read_parquet(base / "o.parquet")["split"].to_list()
    return dict(zip(files, found[::6], strict=True))


@pytest.mark.parametrize("path", ["set", "set/*", "set/**/*.jsonl", "set/a.jsonl"])
def test_dangling_links_are_named(tmp_path, path):
    write(tmp_path / "set" / "b.jsonl")
    (tmp_path / "set" / "a.jsonl").symlink_to("../blobs/0a1b")
    (tmp_path / "set" / "c.parquet").symlink_to("../blobs/2c3d")
    with pytest.raises(UserError, match=r"links lead to files that do not exist: a\.jsonl -> \.\./blobs/0a1b"):
        locate(path, base=tmp_path)


def test_links_that_lead_somewhere_are_followed(tmp_path):
    write(tmp_path / "blobs" / "0a1b")
    write(tmp_path / "other" / "x.jsonl")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").symlink_to("../blobs/0a1b")
    (tmp_path / "set" / "more").symlink_to("../other")
    (tmp_path / "set" / "round").symlink_to("../set")
    (tmp_path / "set" / "README.md").symlink_to("nowhere.md")
    names = [str(path.relative_to(tmp_path)) for path in locate("set", base=tmp_path).files]
    assert names == ["set/a.jsonl", "set/more/x.jsonl"]


def test_splits_of_folders_and_of_words_in_file_names(tmp_path):
    names = {
        "default/test/0000.jsonl": "test",
        "default/train/0000.jsonl": "train",
        "default/validation/0000.jsonl": "validation",
        "faq-train.jsonl": "train",
        "faq_test.jsonl": "test",
        "latest.jsonl": None,
    }
    for name in names:
        write(tmp_path / "my-test-set" / name)
    assert splits(tmp_path, "my-test-set") == names
    assert splits(tmp_path, "my-test-set/*.jsonl") == {name: split for name, split in names.items() if "/" not in name}


def test_a_recipe_beside_its_data_works_twice(tmp_path):
    write(tmp_path / "data.jsonl")
    write(tmp_path / "r.yaml", "sources: [{path: .}]\nencoder: null\n")
    first = curate(tmp_path / "r.yaml")
    again = curate(tmp_path / "r.yaml")
    assert first.manifest.inputs[0].rows == again.manifest.inputs[0].rows == 6
    write(tmp_path / "s.yaml", "sources: [{path: '**/*.*'}]\nencoder: null\n")
    assert curate(tmp_path / "s.yaml").manifest.inputs[0].rows == 6
    with pytest.raises(UserError, match="a run is no source"):
        locate("runs/r", base=tmp_path)


def test_brackets_in_names_are_no_glob_when_the_path_exists(tmp_path):
    base = tmp_path / "[2026] work"
    write(base / "data [v1]" / "a.jsonl")
    write(base / "data [v1]" / "b[1].jsonl")
    assert len(locate("data [v1]", base=base).files) == 2
    assert len(locate("data [v1]/*.jsonl", base=base).files) == 2
    assert len(locate("data [v1]/b[1].jsonl", base=base).files) == 1
    assert len(locate("data [v1]/[ab]*.jsonl", base=base).files) == 2
    assert len(locate("*/a.jsonl", base=base).files) == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("https://example.org/a.jsonl", r"is an address \(https://\).*Download it"),
        ("s3://bucket/a.jsonl", r"is an address \(s3://\)"),
        ("a.jsonl/b", r"a\.jsonl is a file, not a folder"),
        ("a.jsonl/b/c.jsonl", r"a\.jsonl is a file, not a folder"),
        ("a.jsonl/*.jsonl", r"is a file, not a folder"),
    ],
)
def test_what_is_no_path_is_said(tmp_path, path, reason):
    write(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=reason):
        locate(path, base=tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.jsonl.gz"])
def test_a_pointer_of_git_lfs_says_how_to_fetch_the_data(tmp_path, name):
    write(tmp_path / name, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(UserError, match="git lfs pull"):
        list(read_rows(tmp_path / name, warn=print))


def test_a_long_window_of_zstd(tmp_path):
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters)
    writer = packed.compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(writer.compress(JSONL.encode()) + writer.flush())
    warnings = []
    assert list(read_rows(tmp_path / "a.jsonl.zst", warn=warnings.append)) == ROWS
    assert warnings == []


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_maps_are_objects(tmp_path, kind):
    turns = [[("role", "user"), ("content", "Say it.")], [("role", "assistant"), ("content", "It.")]]
    column = pa.array([turns, turns], pa.list_(pa.map_(pa.string(), pa.string())))
    table = pa.table({"messages": column})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_table(table)
    assert list(read_rows(tmp_path / f"a.{kind}", warn=print)) == [{"messages": [dict(turn) for turn in turns]}] * 2
