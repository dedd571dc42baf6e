"""From files to a corpus: what `siftune.curation.prepare` does on one machine, by tasks over files and parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation import schema
from siftune.curation.atomic_files import replacing, write_json, write_parquet
from siftune.curation.cluster import preparation_tasks as tasks
from siftune.curation.cluster.parts import Part, Parts
from siftune.curation.cluster.sources import cluster_sources, file_version
from siftune.curation.cluster.tasks import ClusterTask, Executor, Result, Shuffle
from siftune.curation.cluster.work_folder import WorkFolder
from siftune.curation.corpus import STORED_INDEX, TEMPLATES, batches, write_batches
from siftune.curation.errors import UserError
from siftune.curation.ingest.example_writer import MAX_CHARACTERS, ROW_GROUP
from siftune.curation.ingest.source_location import SourceLocation
from siftune.curation.ingest.sources import SourceCounts, fingerprint_of_hashes
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.recipe.sections import RayCluster
from siftune.curation.row_checks.personal_data import detector_versions, kinds_with
from siftune.curation.run.cache_key import measure_key
from siftune.curation.run.manifest import FileRecord
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.text.prompt_templates import TemplateCounts

#: A part of more characters is closed: what a task holds in memory is a few times so much.
PART_CHARACTERS = 400_000_000
#: Rows for each partition, where the recipe does not say how many partitions there are.
PARTITION_ROWS = 250_000
_LEAST_PARTITIONS = 8


@dataclass(frozen=True)
class PreparedParts:
    """What the tasks made, and what the driver made of it in the run folder.

    parts: of the run. examples, texts, index, repairs, masks, quarantine,
    report: files of the run folder, as `siftune.curation.prepare.prepare` makes them. texts_key: the cache key of the
    texts. reused: whether they were there.
    """

    parts: Parts
    examples: Path
    texts: Path
    index: Path
    repairs: Path | None
    masks: Path | None
    quarantine: Path
    report: Path
    texts_key: str
    reused: bool


@dataclass(frozen=True)
class _ReadPart:
    """A part as it was read: its file, the name of its source, the rows of the source before its file, its start."""

    name: str
    source: str
    offset: int
    start: int
    rows: int


def prepare_parts(recorder: RunRecorder, executor: Executor) -> PreparedParts:
    """Read the sources of a recipe by tasks, and put the rows in their order into the run folder.

    Raises:
        UserError: a source is missing, unreadable, of no known format, or a curated set.
    """
    recipe, run, progress, folder = recorder.recipe, recorder.run, recorder.progress, executor.folder
    settings = recipe.engine.ray or RayCluster()

    def finished(title: str, made: Sequence[ClusterTask]) -> list[Result]:
        results = []
        for result in executor.run(made):
            results.append(result)
            if progress is not None:
                progress(title, len(results), len(made))
        return results

    # 1. A task for each file. What one machine would have said of each source is put together from them.
    locations = cluster_sources(recipe.sources, base=recorder.base)
    reading = [
        ClusterTask("read", tasks.read_file, _read_settings(source, location, file, settings.part_rows))
        for source, location in zip(recipe.sources, locations, strict=True)
        for file in location.files
    ]
    of_files = finished("reading files", reading)
    reports, hashes, read_parts = [], [], []
    results = zip(reading, of_files, strict=True)
    start = 0
    for source, location in zip(recipe.sources, locations, strict=True):
        counts, hashed = SourceCounts(name=location.name, path=source.path), []
        counts.note_skipped(location)
        for file in location.files:
            task, result = next(results)
            if result["curated"]:
                raise UserError(
                    f"{source.path}: {file.name} is of a curated set, which tells what was a template in its whole "
                    "data. Curate it with `engine: local`, or write its rows as JSONL."
                )
            hashed.append(
                (str(file.relative_to(location.root)), result["files"][0]["sha256"] if result["files"] else "")
            )
            for number, part in enumerate(result["parts"]):
                name = f"{task.name}-{number}"
                read_parts.append(_ReadPart(name, location.name, counts.rows, start, part["examples"]))
                start += part["examples"]
            _add_file(counts, result)
        reports.append(counts.report())
        hashes.append((location.name, source, hashed))
    partitions = settings.partitions or max(_LEAST_PARTITIONS, math.ceil(start / PARTITION_ROWS))

    # 2. A task for each part: ids, repairs, masks, and keys of its prompts.
    kinds, regions = kinds_with(recipe.checks, "mask"), recipe.checks.phone_regions
    encoding, detectors = recipe.checks.encoding, detector_versions(kinds)
    normalising = [
        ClusterTask(
            "normalise",
            tasks.normalise_part,
            {
                "examples": f"{part.name}.parquet",
                "source": part.source,
                "offset": part.offset,
                "start": part.start,
                "encoding": encoding,
                "masked_kinds": list(kinds),
                "regions": list(regions),
                "detectors": detectors,
                "partitions": partitions,
            },
        )
        for part in read_parts
    ]
    normalised = finished("repairing and masking", normalising)

    # 3. Prompt templates: runs of words count once for each distinct prompt of a source, in whatever part it stands.
    counts_of_templates = _count_templates(
        recipe, folder, finished, normalising, normalised, read_parts, partitions=partitions
    )

    # 4. A task for each part: the compared texts.
    texting = [
        ClusterTask(
            "texts",
            tasks.write_texts_part,
            {
                "examples": f"{task.name}.parquet",
                "start": part.start,
                "rows": counts_of_templates.rows,
                "share": counts_of_templates.share,
                "minimums": dict(counts_of_templates.minimums),
            },
            {"slots": counts_of_templates.slots, "counts": counts_of_templates.counts},
        )
        for task, part in zip(normalising, read_parts, strict=True)
    ]
    finished("writing compared texts", texting)
    parts = [
        Part(f"{examples.name}.parquet", f"{texts.name}.parquet", part.start, part.rows)
        for examples, texts, part in zip(normalising, texting, read_parts, strict=True)
    ]

    # 5. The run folder gets the same files, under the same keys, as from one machine; batch by batch.
    ingest_key = measure_key("ingest", {}, fingerprint_of_hashes(hashes))
    repair_key = measure_key("repair", {"encoding": encoding}, ingest_key)
    by = {"kinds": kinds, "regions": regions, "detectors": detectors}
    masked_key = measure_key("mask", by, repair_key) if kinds else repair_key
    template_settings = recipe.keys.model_dump(include={"template_rows", "template_share"})
    texts_key = measure_key("texts", template_settings, masked_key)
    quarantine = run.measure_path("quarantine", ingest_key, suffix="jsonl")
    report = run.measure_path("ingest", ingest_key, suffix="json")
    repairs = run.measure_path("repairs", repair_key) if encoding == "repair" else None
    masks = run.measure_path("masks", masked_key) if kinds else None
    groups = _row_groups(folder, [f"{task.name}.characters" for task in normalising])

    def write_examples(out: Path) -> None:
        frames = (frame for part in parts for frame in _frames(folder, part.examples))
        write_batches(_regrouped(frames, groups), out, schema.EXAMPLES)
        for path, suffix in ((repairs, "repairs"), (masks, "masks")):
            if path is not None:
                decided = [_decisions(folder, f"{task.name}.{suffix}") for task in normalising]
                write_parquet(pl.concat([schema.empty(schema.DECISIONS), *decided]), path)
        with replacing(quarantine) as temporary, temporary.open("wb") as file:
            for part in read_parts:
                lines = folder.read(f"{part.name}.jsonl") or b""
                file.writelines(tasks.quarantined_lines(lines, source=part.source, offset=part.offset))
        write_json({"sources": [source.model_dump() for source in reports]}, report)

    def write_all_texts(out: Path) -> None:
        frames = (frame for part in parts for frame in _frames(folder, part.texts))
        notes = {TEMPLATES: counts_of_templates.to_json()} if counts_of_templates.minimums else {}
        write_batches(_regrouped(frames, groups), out, schema.TEXTS, notes=notes)

    def write_index(out: Path) -> None:
        frames = (frame for task in texting for frame in _frames(folder, f"{task.name}.index"))
        write_batches(_regrouped(frames, groups), out, STORED_INDEX)

    beside = [path for path in (quarantine, report, repairs, masks) if path is not None]
    stored_as = "masked" if kinds else "examples" if encoding == "repair" else "ingested"
    examples, reused = run.measure(stored_as, masked_key, write_examples, beside=beside)
    texts, _ = run.measure("texts", texts_key, write_all_texts)
    index, _ = run.measure("index", texts_key, write_index)
    return PreparedParts(
        Parts(parts, partitions, folder, executor),
        *(examples, texts, index, repairs, masks, quarantine, report, texts_key, reused),
    )


def _read_settings(source: Any, location: SourceLocation, file: Path, part_rows: int) -> dict[str, Any]:
    return {
        "source": source.model_dump(),
        "location": {
            "name": location.name,
            "root": str(location.root),
            "file": str(file),
            "several": location.several,
            "url": location.url,
        },
        "version": file_version(location, file),
        "part_rows": part_rows,
        "part_characters": PART_CHARACTERS,
    }


def _add_file(counts: SourceCounts, result: Result) -> None:
    """Count what was read of one file, as if it had been read after the others of its source."""
    counts.formats.update(result["formats"])
    counts.columns.update(dict.fromkeys(result["columns"]))
    counts.files += [FileRecord.model_validate(file) for file in result["files"]]
    counts.rows += result["rows"]
    counts.examples += result["examples"]
    counts.quarantined.update(result["quarantined"])
    counts.warnings += result["warnings"]


def _count_templates(
    recipe: Recipe,
    folder: WorkFolder,
    finished: Callable[[str, Sequence[ClusterTask]], list[Result]],
    normalising: Sequence[ClusterTask],
    normalised: Sequence[Result],
    read_parts: Sequence[_ReadPart],
    *,
    partitions: int,
) -> TemplateCounts:
    """What is counted of prompt templates in all parts."""
    # Which rows repeat a prompt of an earlier row of their source: numbers of rows, which the driver can hold.
    prompts = Shuffle.of([f"{task.name}.prompts" for task in normalising], [one["bounds"] for one in normalised])
    repeating = [
        ClusterTask("repeated-prompts", tasks.repeated_prompts, *prompts.arguments(partition))
        for partition in range(prompts.partitions)
    ]
    rows = finished("comparing prompts", repeating)
    repeated = np.sort(
        _joined(
            folder,
            [(f"{task.name}.rows", one["rows"]) for task, one in zip(repeating, rows, strict=True)],
            np.dtype("<u4"),
        )
    )

    # Counters of each part, then their sums; only those that can be a template leave the cluster.
    counting = []
    for task, part in zip(normalising, read_parts, strict=True):
        low, high = np.searchsorted(repeated, (part.start, part.start + part.rows))
        settings = {"examples": f"{task.name}.parquet", "partitions": partitions}
        arrays = {"repeated": (repeated[low:high] - part.start).astype(np.uint32)}
        counting.append(ClusterTask("count-templates", tasks.count_templates, settings, arrays))
    counted = finished("counting templates", counting)
    sizes: Counter[str] = Counter()
    for one in normalised:
        sizes.update(one["sizes"])
    keys = recipe.keys
    minimums = {
        source: max(keys.template_rows, int(np.ceil(keys.template_share * size)))
        for source, size in sorted(sizes.items())
    }
    counters = Shuffle.of([f"{task.name}.counts" for task in counting], [one["bounds"] for one in counted])
    adding = []
    for partition in range(counters.partitions):
        names, bounds = counters.arguments(partition)
        adding.append(ClusterTask("add-counts", tasks.add_counts, {**names, "least": min(minimums.values())}, bounds))
    added = finished("adding counts", adding)
    files = [(f"{task.name}.counts", one["counts"]) for task, one in zip(adding, added, strict=True)]
    sums = _joined(folder, files, tasks.COUNT)
    return TemplateCounts(
        keys.template_rows,
        keys.template_share,
        minimums,
        sums["slot"].astype(np.uint32),
        sums["count"].astype(np.uint32),
    )


def _joined(folder: WorkFolder, files: Iterable[tuple[str, int]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """All values of small files, whose names and sizes are given."""
    parts = [folder.take(name, dtype, np.zeros(1, np.int64), np.array([size])) for name, size in files]
    return np.concatenate([np.empty(0, dtype), *parts])


def _frames(folder: WorkFolder, name: str) -> Iterator[pl.DataFrame]:
    with folder.reading(name) as path:
        yield from batches(path)


def _decisions(folder: WorkFolder, name: str) -> pl.DataFrame:
    with folder.reading(name) as path:
        return pl.read_parquet(path, glob=False)


def _row_groups(folder: WorkFolder, names: Sequence[str]) -> list[int]:
    """The rows of each row group of EXAMPLES, as `ExampleWriter` closes them on one machine."""
    sizes: list[int] = []
    rows, characters = 0, 0
    for name in names:
        counted = np.frombuffer(folder.read(name) or b"", np.uint32)
        total = np.cumsum(counted, dtype=np.int64)
        at = 0
        while at < len(counted):
            before = int(total[at - 1]) if at else 0
            by_rows = at + ROW_GROUP - rows
            by_characters = int(np.searchsorted(total, before + MAX_CHARACTERS - characters)) + 1
            end = min(by_rows, by_characters)
            if end > len(counted):
                rows, characters = rows + len(counted) - at, characters + int(total[-1]) - before
                break
            sizes.append(rows + end - at)
            rows, characters, at = 0, 0, end
    return [*sizes, rows] if rows else sizes


def _regrouped(frames: Iterable[pl.DataFrame], sizes: Sequence[int]) -> Iterator[pl.DataFrame]:
    """The rows of all frames in frames of the given sizes."""
    waiting: list[pl.DataFrame] = []
    height = 0
    remaining = iter(sizes)
    size = next(remaining, 0)
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        while size and height >= size:
            joined = pl.concat(waiting)
            yield joined[:size]
            waiting, height = [joined[size:]], height - size
            size = next(remaining, 0)
