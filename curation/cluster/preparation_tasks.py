"""The tasks that make the rows of files into EXAMPLES and TEXTS, in parts of consecutive rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.cluster.sources import file_version, local_file
from siftune.curation.cluster.tasks import Result, read_partition, write_partitioned
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.corpus import STORED_INDEX, batches, measure_index, split_turns, write_batches
from siftune.curation.errors import UserError
from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.curated_sets import CuratedNotes
from siftune.curation.ingest.example_writer import ExampleWriter
from siftune.curation.ingest.source_location import SourceLocation
from siftune.curation.ingest.sources import IngestedRow, SourceCounts, stream_rows
from siftune.curation.recipe.sections import Source
from siftune.curation.row_checks import mojibake, personal_data
from siftune.curation.text.prompt_templates import COUNTERS, PromptTemplates, TemplateCounts, prompt_keys

#: A prompt of a row, as a key.
PROMPT = np.dtype([("key", "<u8"), ("row", "<u4")])
#: A counter of prompt templates.
COUNT = np.dtype([("slot", "<u4"), ("count", "<u4")])


def read_file(
    folder: WorkFolder,
    name: str,
    *,
    source: dict[str, Any],
    location: dict[str, Any],
    version: str,
    part_rows: int,
    part_characters: int,
) -> Result:
    """Read one file of a source into parts of EXAMPLES, `NAME-K.parquet`, and of its quarantine, `NAME-K.jsonl`.

    Ids are positions in the file until all files before it are counted.

    Args:
        folder: the work folder.
        name: of the task.
        source: the recipe's section.
        location: name, root, file, several and url of a `SourceLocation`.
        version: what `file_version` said when the task was made.
        part_rows: the most rows of a part.
        part_characters: a part of more characters is closed.
    """
    read = Source.model_validate(source)
    file = Path(location["file"])
    remote = SourceLocation(
        "files", location["name"], Path(location["root"]), (file,), several=location["several"], url=location["url"]
    )
    counts = SourceCounts(name=location["name"], path=read.path)
    parts: list[dict[str, int]] = []
    with local_file(remote, file) as (root, path):
        local = SourceLocation("files", location["name"], root, (path,), several=location["several"])
        is_curated = CuratedNotes.read(path) is not None and not (read.columns or read.roles)
        rows = stream_rows(read, local, counts)
        while (first := next(rows, None)) is not None:
            part = f"{name}-{len(parts)}"
            with folder.writing(f"{part}.parquet") as examples, folder.writing(f"{part}.jsonl") as quarantine:
                written = _write_part(
                    chain([first], rows), examples, quarantine, part_rows=part_rows, part_characters=part_characters
                )
            parts.append(written)
    if file_version(remote, file) != version:
        raise UserError(f"{file.name} changed while it was read; nothing of it was kept. Run the same command again.")
    record = counts.report()
    return {
        "parts": parts,
        "curated": is_curated,
        "formats": list(counts.formats),
        "warnings": counts.warnings,
        **record.model_dump(include={"columns", "files", "rows", "examples", "quarantined"}),
    }


def _write_part(
    rows: Iterator[IngestedRow], examples: Path, quarantine: Path, *, part_rows: int, part_characters: int
) -> dict[str, int]:
    """Write rows until the part is full; how many examples it has, and how many rows were quarantined."""
    written = {"examples": 0, "quarantined": 0}
    characters = 0
    with ExampleWriter(examples, quarantine) as writer:
        for row in rows:
            if isinstance(row.result, Fault):
                writer.quarantine(str(row.position), row.source, row.file, row.file_row, row.value, row.result)
                written["quarantined"] += 1
            else:
                writer.add(str(row.position), row.source, row.result)
                written["examples"] += 1
                characters += len(row.result.meta) + sum(len(turn.content) for turn in row.result.turns)
            if sum(written.values()) >= part_rows or characters >= part_characters:
                break
    return written


def normalise_part(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    source: str,
    offset: int,
    start: int,
    encoding: str,
    masked_kinds: list[str],
    regions: list[str],
    detectors: dict[str, str],  # noqa: ARG001 - the result depends on it
    partitions: int,
) -> Result:
    """Give the rows of a part their ids, repair and mask them as the recipe says, and write keys of their prompts.

    Files: `.parquet` (EXAMPLES), `.repairs` and `.masks` (parquet with DECISIONS), `.characters` (uint32 [n], of the
    rows as they were read), `.prompts` (PROMPT by partition).

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part as it was read.
        source: the name of its source.
        offset: the rows of the source before its file.
        start: the examples of the run before it.
        encoding: the recipe's `checks.encoding`.
        masked_kinds: the kinds of personal data that are masked.
        regions: the recipe's `checks.phone_regions`.
        detectors: their versions, on which the result depends.
        partitions: how many there are.
    """
    repairs, masks = [schema.empty(schema.DECISIONS)], [schema.empty(schema.DECISIONS)]
    characters, keys, sizes = [np.empty(0, np.uint32)], [np.empty(0, np.uint64)], Counter[str]()

    def normalised(path: Path) -> Iterator[pl.DataFrame]:
        for read in batches(path):
            characters.append(_characters(read))
            frame = read.with_columns(id=pl.format("{}:{}", pl.lit(source), pl.col("id").cast(pl.Int64) + offset))
            if encoding == "repair":
                frame, repaired = mojibake.repair_batch(frame)
                repairs.append(repaired)
            if masked_kinds:
                frame, masked = personal_data.mask_batch(frame, masked_kinds, regions)
                masks.append(masked)
            keys.append(prompt_keys(split_turns(frame)).to_numpy())
            sizes.update(dict(frame["source"].value_counts().iter_rows()))
            yield frame

    with folder.reading(examples) as path, folder.writing(f"{name}.parquet") as out:
        write_batches(normalised(path), out, schema.EXAMPLES)
    for suffix, decisions in (("repairs", repairs), ("masks", masks)):
        with folder.writing(f"{name}.{suffix}") as out:
            write_parquet(pl.concat(decisions), out)
    folder.write_array(f"{name}.characters", np.concatenate(characters))
    key = np.concatenate(keys)
    records = np.empty(len(key), PROMPT)
    records["key"], records["row"] = key, start + np.arange(len(key))
    bounds = write_partitioned(folder, f"{name}.prompts", records, key % np.uint64(partitions), partitions)
    return {"bounds": bounds, "sizes": dict(sizes)}


def _characters(examples: pl.DataFrame) -> NDArray[np.uint32]:
    """The characters of each row of EXAMPLES, as the writer of one machine counts them."""
    contents = pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()
    return examples.select((contents + pl.col("meta").str.len_chars()).cast(pl.UInt32)).to_series().to_numpy()


def repeated_prompts(
    folder: WorkFolder, name: str, *, names: list[str], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Result:
    """`.rows`, uint32: the rows of one partition whose prompt an earlier row of the same source has.

    Args:
        folder: the work folder.
        name: of the task.
        names: files of PROMPT.
        starts: where the partition begins in each.
        ends: where it ends.
    """
    prompts = read_partition(folder, names, starts, ends, PROMPT)
    prompts = prompts[np.lexsort((prompts["row"], prompts["key"]))]
    repeated = prompts["row"][1:][prompts["key"][1:] == prompts["key"][:-1]]
    folder.write_array(f"{name}.rows", repeated)
    return {"rows": len(repeated)}


def count_templates(
    folder: WorkFolder, name: str, *, examples: str, partitions: int, repeated: NDArray[np.uint32]
) -> Result:
    """`.counts` (COUNT by partition): in how many prompts of a part each counter's runs of words stand.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part.
        partitions: how many there are; each holds a range of counters.
        repeated: uint32, ascending: the rows of the part whose prompt counts elsewhere.
    """
    templates = PromptTemplates(rows=1, share=0.0)
    start = 0
    with folder.reading(examples) as path:
        for batch in batches(path, ["id", "source", "messages"]):
            is_first = np.ones(batch.height, bool)
            is_first[repeated[slice(*np.searchsorted(repeated, (start, start + batch.height)))] - start] = False
            templates.count_distinct(split_turns(batch.filter(is_first)))
            start += batch.height
    slots, counts = templates.counted_slots()
    records = np.empty(len(slots), COUNT)
    records["slot"], records["count"] = slots, counts
    partition = slots.astype(np.int64) * partitions // COUNTERS
    return {"bounds": write_partitioned(folder, f"{name}.counts", records, partition, partitions)}


def add_counts(
    folder: WorkFolder, name: str, *, names: list[str], least: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Result:
    """`.counts`: the sum of each counter of one partition, where it is at least `least`; in order.

    Args:
        folder: the work folder.
        name: of the task.
        names: files of COUNT.
        least: the least sum that can be a template.
        starts: where the partition begins in each.
        ends: where it ends.
    """
    counts = read_partition(folder, names, starts, ends, COUNT)
    slots, position = np.unique(counts["slot"], return_inverse=True)
    sums = np.zeros(len(slots), np.uint32)
    np.add.at(sums, position, counts["count"])
    records = np.empty(len(slots), COUNT)
    records["slot"], records["count"] = slots, sums
    records = records[records["count"] >= least]
    folder.write_array(f"{name}.counts", records)
    return {"counts": len(records)}


def write_texts_part(
    folder: WorkFolder,
    name: str,
    *,
    examples: str,
    start: int,
    rows: int,
    share: float,
    minimums: dict[str, int],
    slots: NDArray[np.uint32],
    counts: NDArray[np.uint32],
) -> Result:
    """`.parquet`, TEXTS of a part, and `.index`, INDEX but rank and pinned.

    Args:
        folder: the work folder.
        name: of the task.
        examples: the part.
        start: the examples of the run before it.
        rows: the recipe's `keys.template_rows`.
        share: the recipe's `keys.template_share`.
        minimums: as in `TemplateCounts`.
        slots: as there.
        counts: as there.
    """
    templates = PromptTemplates.counted(TemplateCounts(rows, share, minimums, slots, counts))
    with folder.reading(examples) as path, folder.writing(f"{name}.parquet") as texts:
        stripped = (templates.strip(split_turns(batch)) for batch in batches(path, ["id", "source", "messages"]))
        write_batches(stripped, texts, schema.TEXTS)
        with folder.writing(f"{name}.index") as out:
            index = (frame.with_columns(pl.col("row") + start) for frame in measure_index(path, texts))
            write_batches(index, out, STORED_INDEX)
    return {}


def quarantined_lines(lines: bytes, *, source: str, offset: int) -> Iterator[bytes]:
    """The lines of a part's quarantine with the ids of its rows, as one machine writes them."""
    for line in lines.splitlines():
        row = orjson.loads(line)
        row["id"] = f"{source}:{int(row['id']) + offset}"
        yield orjson.dumps(row) + b"\n"
