"""The rows of earlier sets that a run names, copied into it: so it can be explained when the earlier set is gone."""

from __future__ import annotations

import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import write_parquet
from siftune.curation.prepare import Prepared
from siftune.curation.run.recorder import RunRecorder
from siftune.curation.stages import stages


def write_named_rows(recorder: RunRecorder, prepared: Prepared) -> None:
    """Write EARLIER: the rows of earlier sets that stand in the ledger or in pairs with rows of the run."""
    run, manifest = recorder.run, recorder.manifest
    if not prepared.corpus.earlier:
        run.earlier_path.unlink(missing_ok=True)
        return
    named = [recorder.ledger.frame()["witness"].drop_nulls()]
    for stage in stages(recorder.recipe, base=recorder.base):
        if stage.compares:
            pairs = pl.read_parquet(run.path / manifest.files[stage.name], columns=["a", "b"], glob=False)
            named += [pairs["a"], pairs["b"]]
    named_rows = prepared.earlier.filter(pl.col("id").is_in(pl.concat(named).unique().implode()))
    rows = named_rows["row"].to_numpy()
    examples = [*prepared.corpus.example_frames(list(schema.EXAMPLES), rows)]
    texts = [*prepared.corpus.frames(["prompt", "answer"], rows)]
    pieces = [
        schema.conform(example.hstack(text), schema.EARLIER) for example, text in zip(examples, texts, strict=True)
    ]
    facts = named_rows.select("split", "turns", "prompt_words", "answer_words")
    write_parquet(
        pl.concat([schema.empty(schema.EARLIER), *pieces]).with_columns(facts.get_columns()), run.earlier_path
    )
