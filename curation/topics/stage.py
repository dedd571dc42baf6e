"""Find the topics of a run's rows and their places on a map, and say how diverse the rows are before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.embeddings.store import embedder
from siftune.curation.measurement import Measured
from siftune.curation.prepare import Prepared
from siftune.curation.recipe.sections import Topics
from siftune.curation.run.cache_key import measure_key
from siftune.curation.run.manifest import DiversityRecord
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.sampling import shuffle_keys
from siftune.curation.topics.clusters import cluster_rows, topic_count
from siftune.curation.topics.diversity import second_moment, vendi_score
from siftune.curation.topics.names import topic_names
from siftune.curation.topics.projection import pacmap, principal_components

#: The name of the measure, in the manifest and in the names of files.
TOPICS = "topics"


@dataclass(frozen=True)
class RowTopics:
    """The topics of a run.

    names: the topic of each input row that could be read, in the order of INDEX. diversity: the Vendi score of these.
    """

    names: pl.Series
    diversity: float


def find_topics(recorder: RunRecorder, prepared: Prepared) -> RowTopics | None:
    """Measure topics and map of all rows that could be read; None where the recipe asks for none or there is no row.

    Raises:
        UserError: an extra is not installed, or there are too few rows for the projection.
    """
    settings, index = recorder.recipe.topics, prepared.index
    if settings is None or recorder.recipe.encoder is None or index.is_empty():
        return None
    with recorder.stage(TOPICS, rows=index.height) as record:
        encoder = embedder(recorder.recipe.encoder).encoder.name
        parameters = {**settings.model_dump(), "encoder": encoder, "seed": recorder.recipe.seed}
        key = measure_key(TOPICS, parameters, prepared.corpus.key)

        def measure(out: Path) -> None:
            measure_topics(recorder, prepared, settings).write(out)

        path, record.reused = recorder.run.measure(TOPICS, key, measure)
        recorder.keep_file(TOPICS, path)
        notes = pl.read_parquet_metadata(path)
        notes.pop("ARROW:schema", None)
        recorder.manifest.notes[TOPICS] = notes
    return RowTopics(pl.read_parquet(path, columns=["topic"], glob=False)["topic"], float(notes["vendi"]))


def measure_topics(recorder: RunRecorder, prepared: Prepared, settings: Topics) -> Measured:
    """ROW_TOPICS of all rows that could be read, in the order of INDEX, with notes on how they were found."""
    recipe, index = recorder.recipe, prepared.index
    vectors = prompt_vectors(recorder, prepared, index["row"].to_numpy())
    keys = shuffle_keys(index["id"], seed=recipe.seed, purpose=TOPICS)

    # Topics and their names.
    topic = cluster_rows(vectors, topic_count(len(vectors), settings.count), keys=keys, seed=recipe.seed)
    texts = prepared.corpus.key_texts("prompt", index["row"].to_numpy())
    names = pl.Series("topic", topic_names(texts, topic, keys=keys), dtype=pl.String)

    # Two coordinates, and the diversity of all rows.
    moment, total = second_moment(vectors)
    points, share = principal_components(vectors, moment, total)
    method = f"principal components ({share:.1%} of the variance)"
    if settings.projection == "pacmap":
        points, method = pacmap(vectors, seed=recipe.seed), "PaCMAP"
    frame = pl.DataFrame({"id": index["id"], "topic": names.gather(topic), "x": points[:, 0], "y": points[:, 1]})
    notes = {"topics": str(len(names)), "projection": method, "vendi": repr(vendi_score(moment))}
    return Measured(schema.conform(frame, schema.ROW_TOPICS), notes)


def measure_diversity(recorder: RunRecorder, prepared: Prepared, topics: RowTopics | None, train: pl.DataFrame) -> None:
    """Enter into the manifest how diverse the input is, and the training rows after curation.

    Args:
        recorder: the run.
        prepared: holds the texts.
        topics: the topics of the input; None: nothing is entered.
        train: INDEX of the training rows after curation.
    """
    if topics is None:
        return
    with recorder.stage("diversity", rows=train.height):
        moment, _ = second_moment(prompt_vectors(recorder, prepared, train["row"].to_numpy()))
        recorder.manifest.diversity = DiversityRecord(
            rows_before=len(topics.names), rows_after=train.height, before=topics.diversity, after=vendi_score(moment)
        )


def prompt_vectors(recorder: RunRecorder, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """Embeddings [n, d] (float16) of the prompts at the ascending positions `rows`."""
    assert recorder.recipe.encoder is not None, "topics need an encoder"
    texts = prepared.corpus.key_texts("prompt", rows)
    return embedder(recorder.recipe.encoder).embed(texts, progress=recorder.progress)
