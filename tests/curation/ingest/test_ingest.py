"""Sources of every kind become EXAMPLES; what cannot be used is quarantined, and nothing vanishes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from siftune.curation import schema
from siftune.curation.errors import UserError
from siftune.curation.ingest.sources import read_sources, sources_fingerprint
from siftune.curation.recipe.sections import Source

ROWS = [{"instruction": f"question {i}", "input": "", "output": f"answer {i} ü\u2028!", "n": i} for i in range(250)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


class World:
    """A folder with sources, read on demand."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def write(self, name: str, data: bytes | str) -> Source:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return Source(path=name)

    def read(self, *sources: Source, **options):
        out, faults = self.base / "out" / "examples.parquet", self.base / "out" / "quarantine.jsonl"
        report = read_sources(list(sources), base=self.base, out=out, quarantine=faults, **options)
        frame = pl.read_parquet(out)
        quarantine = [json.loads(line) for line in faults.read_bytes().split(b"\n") if line]
        check_laws(report, frame, quarantine)
        return report, frame, quarantine


def check_laws(report, frame, quarantine):
    """Conservation and order, per source and in total; ids are `source:row` and distinct."""
    assert frame.schema == schema.EXAMPLES
    ids = frame["id"].to_list() + [line["id"] for line in quarantine]
    assert sorted(ids) == sorted(f"{source.name}:{row}" for source in report.sources for row in range(source.rows))
    for source in report.sources:
        lost = [line["reason"] for line in quarantine if line["source"] == source.name]
        assert source.rows == source.examples + len(lost) == sum(file.rows for file in source.files)
        assert source.quarantined == {reason: lost.count(reason) for reason in sorted(set(lost))}
    places = {source.name: place for place, source in enumerate(report.sources)}
    order = [(places[name], int(row)) for name, row in (row_id.rsplit(":", 1) for row_id in frame["id"])]
    assert order == sorted(order)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def answers(frame):
    return frame["messages"].list.last().struct.field("content").to_list()


def _arrow(stream: bool) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return sink.getvalue().to_pybytes()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


FILES = {
    "a.jsonl": JSONL,
    "a.ndjson": b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n\r\n"),
    "a.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=2).encode(),
    "lines.json": JSONL,
    "array.jsonl": json.dumps(ROWS, indent=1).encode(),
    "wrapped.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "several.json": ("\n".join(json.dumps(row, indent=2) for row in ROWS)).encode(),
    "a.csv": pl.DataFrame(ROWS).write_csv().encode(),
    "semicolon.csv": pl.DataFrame(ROWS).write_csv(separator=";").encode(),
    "a.tsv": pl.DataFrame(ROWS).write_csv(separator="\t").encode(),
    "a.parquet": _parquet(),
    "file.arrow": _arrow(stream=False),
    "stream.arrow": _arrow(stream=True),
}


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(world, name, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    report, frame, _ = world.read(world.write(name + packed, pack(FILES[name])))
    assert answers(frame) == [row["output"] for row in ROWS]
    assert [str(json.loads(meta)["n"]) for meta in frame["meta"]] == [str(row["n"]) for row in ROWS]
    assert report.sources[0].format == "alpaca"
    assert report.sources[0].columns == ["instruction", "input", "output", "n"]
    assert report.sources[0].files[0].bytes == (world.base / (name + packed)).stat().st_size


def test_compressed_in_several_members_and_named_wrongly(world):
    half = len(JSONL) // 2
    members = gzip.compress(JSONL[:half]) + gzip.compress(JSONL[half:])
    assert world.read(world.write("m.jsonl.gz", members))[1].height == len(ROWS)
    assert world.read(world.write("m.jsonl", members))[1].height == len(ROWS)
    frames = zstandard.compress(JSONL[:half]) + zstandard.compress(JSONL[half:])
    assert world.read(world.write("z.jsonl.zst", frames))[1].height == len(ROWS)


def test_the_parquet_opens_with_datasets(world):
    import datasets

    world.read(world.write("a.jsonl", JSONL))
    path = str(world.base / "out" / "examples.parquet")
    opened = datasets.load_dataset("parquet", data_files=path, cache_dir=str(world.base / "cache"), split="train")
    assert opened[3]["messages"] == [
        {"role": "user", "content": "question 3"},
        {"role": "assistant", "content": ROWS[3]["output"]},
    ]


def test_folders_globs_and_splits_in_names(world):
    world.write("set/train-00000.jsonl", JSONL)
    world.write("set/val.json", json.dumps(ROWS[:3]))
    world.write("set/README.md", "no rows")
    world.write("set/.hidden/x.jsonl", JSONL)
    report, frame, _ = world.read(Source(path="set"))
    assert frame["split"].value_counts().sort("split").rows() == [("train", 250), ("validation", 3)]
    assert [file.file for file in report.sources[0].files] == ["train-00000.jsonl", "val.json"]
    assert any("README.md" in warning for warning in report.sources[0].warnings)
    _, frame, _ = world.read(Source(path="set/*.json"), Source(path="set/train-00000.jsonl", limit=10, split="test"))
    assert frame["id"].to_list() == [*(f"set:{i}" for i in range(3)), *(f"train-00000:{i}" for i in range(10))]
    assert set(frame["split"]) == {"validation", "test"}


def test_files_of_one_folder_may_differ_in_format(world):
    world.write("set/a.jsonl", '{"question": "q", "answer": "a"}\n')
    world.write("set/b.jsonl", '{"prompt": "q", "completion": "b"}\n')
    report, frame, _ = world.read(Source(path="set"))
    assert answers(frame) == ["a", "b"]
    assert report.sources[0].format == "question_answer, prompt_completion"


@pytest.mark.parametrize("kind", ["one", "dict"])
def test_save_to_disk_folders(world, kind):
    import datasets

    one = datasets.Dataset.from_list(ROWS)
    whole = (
        one if kind == "one" else datasets.DatasetDict({"train": one.select(range(200)), "dev": one.select([201, 200])})
    )
    whole.save_to_disk(str(world.base / "disk"))
    _, frame, _ = world.read(Source(path="disk"))
    if kind == "one":
        assert answers(frame) == [row["output"] for row in ROWS]
        assert set(frame["split"]) == {None}
    else:
        assert answers(frame)[-2:] == [ROWS[201]["output"], ROWS[200]["output"]]
        assert frame["split"].to_list() == ["train"] * 200 + ["validation"] * 2
    assert sources_fingerprint([Source(path="disk")], base=world.base)


def test_a_hub_data_set_without_a_network_is_one_clear_message(world, monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf://nobody/nothing cannot be loaded.*network"):
        world.read(Source(path="hf://nobody/nothing"))
    with pytest.raises(UserError, match="hf://owner/name"):
        world.read(Source(path="hf://nobody"))


def test_a_hub_data_set_is_read_split_by_split(world, monkeypatch):
    import datasets

    one = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": one, "val": one.select([3])}).save_to_disk(str(world.base / "cached"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.load_from_disk(str(world.base / "cached")))
    source = Source(path="hf://owner/name/config")
    report, frame, _ = world.read(source)
    assert frame["split"].to_list() == ["train"] * 250 + ["validation"]
    assert frame["id"][250] == "name:250"
    assert [file.file for file in report.sources[0].files] == ["owner/name/config[train]", "owner/name/config[val]"]
    assert sources_fingerprint([source], base=world.base)


def test_splits_of_an_object_of_lists(world):
    source = world.write("a.json", json.dumps({"train": ROWS[:3], "dev": ROWS[3:5]}))
    _, frame, _ = world.read(source)
    assert frame["split"].to_list() == ["train"] * 3 + ["validation"] * 2


def test_a_single_object_with_messages_is_one_row(world):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert (
        world.read(world.write("a.json", json.dumps({"messages": turns, "tools": [{"n": 1}]}, indent=2)))[1].height == 1
    )


def test_headerless_csv_by_position(world):
    source = world.write("a.csv", 'q1,"a\n1",x\nq2,a2,y\n')
    with pytest.raises(UserError, match="by position"):
        world.read(source)
    named = Source(path="a.csv", columns={"question": "0", "answer": "1"})
    _, frame, _ = world.read(named)
    assert answers(frame) == ["a\n1", "a2"]
    assert json.loads(frame["meta"][1]) == {"2": "y"}


def test_names_are_distinct_and_deterministic(world):
    first, second = world.write("a/x.jsonl", JSONL), world.write("b/x.jsonl", JSONL)
    report, _, _ = world.read(first, second, Source(path="b/x.jsonl", name="x-2"))
    assert [source.name for source in report.sources] == ["x", "x-3", "x-2"]


def test_the_parts_of_a_mixture_count_as_sources_and_ids_stay(world):
    rows = [{**row, "source": part} for row, part in zip(ROWS, ["dolly", "flan/cot", None, " ", 7], strict=False)]
    world.write("mix.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    report, frame, quarantine = world.read(Source(path="mix.jsonl", source_column="source"))
    assert frame["source"].to_list() == ["mix/dolly", "mix/flan/cot", "mix", "mix", "mix/7"]
    assert frame["id"].to_list() == [f"mix:{row}" for row in range(5)]
    assert (report.sources[0].name, quarantine[0]["source"]) == ("mix", "mix")
    assert json.loads(frame["meta"][0])["source"] == "dolly"
    with pytest.raises(UserError, match=r"source_column: there is no column 'sorce'\. Did you mean 'source'"):
        world.read(Source(path="mix.jsonl", source_column="sorce"))


def test_the_limit_counts_rows_and_the_report_says_what_was_used(world):
    broken = b"{broken\n" + JSONL
    world.write("a.jsonl", broken)
    report, _, _ = world.read(Source(path="a.jsonl", limit=5))
    assert (report.rows, report.examples) == (5, 4)


def test_the_limit_counts_over_all_files_of_a_source(world):
    for name in ("a", "b", "c"):
        world.write(f"set/{name}.json", json.dumps(ROWS[:3]))
    assert world.read(Source(path="set", limit=4))[1].height == 4


def test_progress_is_told_in_bytes(world):
    told = []
    world.read(
        world.write("a.jsonl", JSONL), world.write("b.parquet", FILES["a.parquet"]), progress=lambda *p: told.append(p)
    )
    size = (world.base / "b.parquet").stat().st_size
    assert told[0] == ("reading a", len(JSONL), len(JSONL))
    assert told[-1] == ("reading b", size, size)


def test_output_is_the_same_every_time_and_nothing_is_left_after_a_fault(world):
    source = world.write("a.jsonl", JSONL)
    world.read(source)
    before = (world.base / "out" / "examples.parquet").read_bytes()
    world.read(source)
    assert (world.base / "out" / "examples.parquet").read_bytes() == before
    bad = world.write("b.jsonl", '{"x": 1}\n')
    with pytest.raises(UserError, match="Columns found: x"):
        world.read(source, bad)
    assert (world.base / "out" / "examples.parquet").read_bytes() == before
    assert sorted(path.name for path in (world.base / "out").iterdir()) == ["examples.parquet", "quarantine.jsonl"]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a.jsnl", ["no source at a.jsnl", "Did you mean 'a.jsonl'?"]),
        ("nowhere/a.jsonl", ["nowhere does not exist"]),
        ("*.tsv", ["*.tsv", "nothing matches", "a.jsonl"]),
        ("a.xlsx", ["'.xlsx' are not read", ".jsonl", ".zst"]),
        ("empty", ["holds no file that can be read"]),
        ("cut.parquet", ["cannot be read as Parquet", "truncated"]),
        ("x.arrow", ["cannot be read as Arrow"]),
        ("not.jsonl.gz", ["not compressed"]),
        ("utf16.csv", ["UTF-16"]),
        ("latin.csv", ["not UTF-8", "iconv"]),
        ("html.json", ["a page of HTML"]),
        ("words.json", ["is not JSON", "Dear"]),
        ("number.json", ["one JSON int"]),
    ],
)
def test_what_is_wrong_with_a_source_is_said_in_one_message(world, path, parts):
    world.write("a.jsonl", JSONL)
    world.write("a.xlsx", b"PK")
    (world.base / "empty").mkdir()
    world.write("cut.parquet", FILES["a.parquet"][:-100])
    world.write("x.arrow", b"nothing of the kind")
    world.write("not.jsonl.gz", JSONL)
    world.write("utf16.csv", "instruction,output\n".encode("utf-16"))
    world.write("latin.csv", "größe,output\n1,2\n".encode("latin-1"))
    world.write("html.json", "<html></html>")
    world.write("words.json", "Dear reader")
    world.write("number.json", "5")
    with pytest.raises(UserError) as fault:
        world.read(Source(path=path))
    assert all(part in str(fault.value) for part in parts), str(fault.value)


def test_fingerprints_follow_contents_and_reading(world):
    source = world.write("a.jsonl", JSONL)
    first = sources_fingerprint([source], base=world.base)
    assert sources_fingerprint([Source(path="./a.jsonl")], base=world.base) == first
    others = [{"limit": 5}, {"split": "test"}, {"format": "alpaca"}, {"columns": {"output": "n"}}, {"name": "b"}]
    others.append({"source_column": "n"})
    found = {sources_fingerprint([Source(path="a.jsonl", **other)], base=world.base) for other in others}
    assert len(found | {first}) == len(others) + 1
    world.write("a.jsonl", JSONL + b"\n")
    assert sources_fingerprint([source], base=world.base) != first
    with pytest.raises(UserError, match="Did you mean"):
        sources_fingerprint([Source(path="b.jsonl")], base=world.base)


REAL = {
    "glaive_sharegpt.json": ("sharegpt", 300, {}),
    "gpteacher_toolformer.json.gz": ("alpaca", 7_673, {}),
    "gsm8k_train.jsonl.gz": ("question_answer", 7_473, {}),
    "hh_chosen_rejected.jsonl.gz": ("preference", 2_312, {"empty_answer": 4}),
    "mix.jsonl.gz": ("alpaca", 64_344, {}),
    "rasbt_alpaca.json": ("alpaca", 1_100, {}),
    "self_instruct_5k.jsonl": ("alpaca", 5_000, {}),
    "t0_prompt_completion.jsonl.gz": ("prompt_completion", 55_185, {}),
}


@pytest.mark.slow
def test_the_real_sets_as_they_lie_on_disk(tmp_path, shared_data):
    world = World(tmp_path)
    paths = sorted((shared_data / "instructions").iterdir())
    assert [path.name for path in paths] == sorted(REAL)
    report, _, _ = world.read(*(Source(path=str(path)) for path in paths))
    found = {Path(source.path).name: (source.format, source.rows, source.quarantined) for source in report.sources}
    assert found == REAL
    warnings = {Path(source.path).name: source.warnings for source in report.sources if source.warnings}
    assert {
        name: [warning.split(" (")[0].partition(": ")[2] for warning in found] for name, found in warnings.items()
    } == {
        "gpteacher_toolformer.json.gz": ["text columns that are in no prompt and no answer: 'example_input'"],
        "mix.jsonl.gz": ["text columns that are in no prompt and no answer: 'license'"],
    }
