"""Candidate pairs: rows and their nearest items by embedding, how far they stand out, and what the two texts share.

A bare cosine flags honest neighbours: rows of the same kind are close to every item of that kind. A margin says how
much closer two texts are than their other neighbours (the margin of Artetxe and Schwenk 2019, arXiv 1811.01136, as a
difference).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from siftune.curation.contamination_outcomes import benchmark
from siftune.curation.decontamination.decoys import make_decoys
from siftune.curation.decontamination.pair_features import StemWeights, pair_features
from siftune.curation.decontamination.views import VIEWS_OF_A_ROW, item_views, row_views, whole_text
from siftune.curation.embeddings.cosine import cosines
from siftune.curation.embeddings.knn import Embed, nearest
from siftune.curation.progress import Progress

#: Items that are judged for each view of a row, of prose and of programs: short programming tasks resemble many others.
_CANDIDATE_ITEMS = (2, 4)
_NEAREST_VIEWS = 12  # nearest views of items that are looked at for a row
_MIN_COSINE = 0.45  # no rephrasing in the labelled sets lies below
#: A background is the mean cosine to so many other items nearby.
_BACKGROUND_ITEMS = 4
_VARIANT_COSINE = 0.9  # items this close are variants of one another and no background
_MIN_BACKGROUND = 0.4  # a reference of few, unlike items would make any neighbour stand out
#: The crowd of an item are the rows that rank 10 to 20 by closeness to it: from rank 10 on, so that a few true
#: rephrasings of one item do not hide one another.
_CROWD_RANKS = (10, 20)
#: Columns in which programs are judged by the best of all views of a row and an item.
_BEST_OF_VIEWS = ("cosine", "row_margin", "item_margin", "crowd_margin", "shared_stems")


def candidate_pairs(
    batches: Callable[[], Iterable[pl.DataFrame]],
    references: pl.DataFrame,
    *,
    embed: Embed,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Pairs of a row and one of its nearest items or decoys, and what speaks for and against their being the same task.

    Where a program is involved, the cosine, the margins and the stems are the best of all views of the two: what a
    program says and how it says it are judged together.

    Args:
        batches: gives the rows (prompt, core, answer) in batches, anew at each call; they are read twice.
        references: `prompt`, `answer` (null where there is none).
        embed: texts to vectors.
        progress: passed on to `embed`.

    Returns:
        `row`, `item` (positions); `decoy`, whether the pair is with a decoy that was made from the item; `row_view`,
        `item_view` (numbers of the views that are close); `part` and `text` of the row; `question_gist` and
        `item_gist`, what the two views say; `prompt` and `answer` of the row, `item_prompt`, `item_answer` and
        `distractors` of the item; `code`; `cosine`; `row_margin` and `item_margin` (the cosine less the mean cosine of
        the row, and of the item, to the nearest other items); `crowd_margin` (the cosine less the mean cosine of the
        item to rows that are middling close to it); and the columns of `pair_features`.
    """
    # Embed every view of the items and of the rows; a row view keeps its row, part and whether it is code.
    items = item_views(references)
    weights = StemWeights()
    weights.count(items["text"])
    view_parts = [pl.DataFrame(schema={"row": pl.Int64, "part": pl.String, "code": pl.Boolean})]

    def row_texts() -> Iterator[pl.Series]:
        rows = 0
        for batch in batches():
            views = row_views(batch)
            weights.count(views["text"])
            view_parts.append(views.select(pl.col("row") + rows, "part", "code"))
            rows += batch.height
            yield views["text"]

    item_vectors = embed([items["text"]], progress=progress)
    row_vectors = embed(row_texts(), progress=progress)
    rows_of_views = pl.concat(view_parts)

    # The decoys, each made from an item and its nearest neighbour.
    decoys = make_decoys(references, _nearest_neighbours(item_vectors, items["item"], references))
    decoy_views = item_views(decoys.drop("item"))
    decoy_vectors = embed([decoy_views["text"]], progress=progress)

    # The nearest items and decoys of each view of a row, and how far they stand out.
    of_item, row_of_view = items["item"].to_numpy(), rows_of_views["row"].to_numpy()
    of_decoy = decoys["item"].gather(decoy_views["item"]).to_numpy()
    is_program = np.zeros(references.height, np.bool_)
    is_program[of_item[items["code"].to_numpy()]] = True
    all_views = pl.concat(
        [items.with_columns(entry="item"), decoy_views.with_columns(entry=pl.col("item") + references.height)]
    )
    near_views = []
    for vectors, of in ((item_vectors, of_item), (decoy_vectors, of_decoy)):
        near = _nearest_items(row_vectors, vectors, of, item_vectors, of_item, is_program)
        crowd = _crowd_cosine(vectors, row_vectors, row_of_view)
        near_views.append(near.with_columns(crowd=pl.Series(crowd[near["item_view"].to_numpy()], dtype=pl.Float64)))
    near_views[1] = near_views[1].with_columns(pl.col("item_view") + items.height)
    candidates = pl.concat([frame.with_columns(decoy=pl.lit(decoy)) for decoy, frame in enumerate(near_views)])
    candidates = candidates.with_columns(pl.col("decoy") == 1)
    candidates = pl.concat([rows_of_views[candidates["row_view"].to_numpy()], candidates], how="horizontal")
    candidates = candidates.with_columns(
        row_margin=pl.col("cosine") - pl.col("row_background"),
        item_margin=pl.col("cosine") - pl.col("item_background"),
        crowd_margin=pl.col("cosine") - pl.col("crowd"),
    )

    # What the two texts share, which takes the texts of the rows once more.
    candidates = candidates.drop("code").hstack(_texts_of(candidates, batches))
    of_view = all_views[candidates["item_view"].to_numpy()]
    columns = [name for name in ("prompt", "answer", "distractors") if name in references.columns]
    entries = pl.concat([references.select(columns), decoys.select(columns)])[of_view["entry"].to_numpy()]
    candidates = candidates.with_columns(
        code=rows_of_views["code"].gather(candidates["row_view"]) | of_view["code"],
        item_gist=of_view["question_gist"],
        item_prompt=entries["prompt"].fill_null(""),
        item_answer=entries["answer"].fill_null(""),
        distractors=entries["distractors"] if "distractors" in columns else pl.lit(None, dtype=pl.List(pl.String)),
    )
    whole_row, whole_item = (
        whole_text(candidates, side) for side in (("prompt", "answer"), ("item_prompt", "item_answer"))
    )
    texts = candidates.select("code", row="text", item=of_view["text"], whole_row=whole_row, whole_item=whole_item)
    candidates = pl.concat([candidates, pair_features(texts, weights.table())], how="horizontal")
    best = [
        pl.when("code").then(pl.col(name).max().over("row", "item", "decoy")).otherwise(name).alias(name)
        for name in _BEST_OF_VIEWS
    ]
    return candidates.with_columns(best)


def _nearest_neighbours(item_vectors: np.ndarray, item: pl.Series, references: pl.DataFrame) -> NDArray[np.int64]:
    """For each item the nearest other one of its benchmark that is no variant of it, int64 [n]; itself without one.

    `item` says which item each of `item_vectors` is a view of.
    """
    position, cosine = nearest(item_vectors, item_vectors, k=_NEAREST_VIEWS)
    of = references.select(benchmark())["reference"]
    own = pl.Series(np.repeat(item.to_numpy(), position.shape[1]))
    other = item.gather(position.ravel())
    neighbours = pl.DataFrame({"own": own, "item": other, "cosine": cosine.ravel()})
    others = neighbours.filter(own != other, pl.col("cosine") < _VARIANT_COSINE, of.gather(own) == of.gather(other))
    best = others.sort("own", "cosine", "item", descending=[False, True, False]).unique("own", keep="first")
    neighbour = np.arange(references.height)
    neighbour[best["own"].to_numpy()] = best["item"].to_numpy()
    return neighbour


def _nearest_items(
    row_vectors: np.ndarray,
    item_vectors: np.ndarray,
    item: NDArray[np.int64],
    real_vectors: np.ndarray,
    real_item: NDArray[np.int64],
    is_program: NDArray[np.bool_],
) -> pl.DataFrame:
    """For each view of a row its nearest items, each by its closest view, and how close the other ones are.

    Args:
        row_vectors: embeddings [n, d] of the views of rows.
        item_vectors: embeddings [m, d] of the views of items, or of decoys.
        item: int64[m], the item of each view; of a decoy the item that it was made from.
        real_vectors, real_item: the views of items, which make up the background.
        is_program: bool[items], which items hold a program.

    Returns:
        `row_view`, `item_view`, `item`, `cosine`, `rank`, `row_background`, `item_background`.
    """
    # Of each item the closest view; the first `_CANDIDATE_ITEMS` items are candidates.
    ranked = _ranked_items(row_vectors, item_vectors, item)
    most = pl.Series(np.where(is_program, _CANDIDATE_ITEMS[1], _CANDIDATE_ITEMS[0])).gather(ranked["item"])
    candidates = ranked.filter(pl.col("rank") < most, pl.col("cosine") >= _MIN_COSINE)
    candidates = candidates.with_row_index("pair")

    # The background of a row: the other items nearby that are not variants of the candidate.
    background_items = ranked if real_vectors is item_vectors else _ranked_items(row_vectors, real_vectors, real_item)
    others = candidates.select("pair", "row_view", "item", "item_view")
    others = others.join(background_items, on="row_view", how="inner", suffix="_other")
    others = others.filter(pl.col("item") != pl.col("item_other"))
    between = cosines(item_vectors, real_vectors, others["item_view"].to_numpy(), others["item_view_other"].to_numpy())
    unlike = others.filter(pl.Series(between < _VARIANT_COSINE)).sort("pair", "rank")
    background = _mean_cosine(unlike.group_by("pair").head(_BACKGROUND_ITEMS), "pair")
    row_background = candidates.select("pair").join(background, on="pair", how="left", maintain_order="left")["mean"]
    own_background = _item_background(item_vectors, item, real_vectors, real_item)
    return candidates.drop("pair").with_columns(
        row_background=row_background.fill_null(_MIN_BACKGROUND).clip(lower_bound=_MIN_BACKGROUND),
        item_background=pl.Series(own_background[candidates["item_view"].to_numpy()], dtype=pl.Float64),
    )


def _ranked_items(row_vectors: np.ndarray, item_vectors: np.ndarray, item: NDArray[np.int64]) -> pl.DataFrame:
    """The items nearest to each view of a row: `row_view`, `item_view` (the closest one), `item`, `cosine`, `rank`."""
    position, cosine = nearest(row_vectors, item_vectors, k=_NEAREST_VIEWS)
    row_view = np.repeat(np.arange(len(row_vectors)), position.shape[1])
    item_view = position.ravel()
    neighbours = pl.DataFrame(
        {"row_view": row_view, "item_view": item_view, "item": item[item_view], "cosine": cosine.ravel()}
    )
    closest = neighbours.unique(["row_view", "item"], keep="first", maintain_order=True)
    return closest.with_columns(rank=pl.int_range(pl.len()).over("row_view"))


def _mean_cosine(neighbours: pl.DataFrame, key: str) -> pl.DataFrame:
    """`mean` cosine of each key's few nearest others; where there are fewer, the rest count as unrelated texts."""
    # Whole multiples of 2**-30: their sum is the same in any order, so threads cannot change it.
    sums = neighbours.group_by(key).agg((pl.col("cosine") * 2.0**30).round().sum() / 2.0**30, n=pl.len())
    unrelated = (_BACKGROUND_ITEMS - pl.col("n")) * _MIN_BACKGROUND
    return sums.select(key, mean=(pl.col("cosine") + unrelated) / _BACKGROUND_ITEMS)


def _item_background(
    item_vectors: np.ndarray, item: NDArray[np.int64], real_vectors: np.ndarray, real_item: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean cosine of each view of an item to the nearest other items that are not its variants, float64 [m].

    The arguments are those of `_nearest_items`.
    """
    position, cosine = nearest(item_vectors, real_vectors, k=3 * _NEAREST_VIEWS)
    view = np.repeat(np.arange(len(item_vectors)), position.shape[1])
    neighbours = pl.DataFrame(
        {"view": view, "item": real_item[position.ravel()], "own": item[view], "cosine": cosine.ravel()}
    )
    others = neighbours.filter(pl.col("item") != pl.col("own"), pl.col("cosine") < _VARIANT_COSINE)
    closest = others.unique(["view", "item"], keep="first", maintain_order=True)
    background = _mean_cosine(closest.group_by("view").head(_BACKGROUND_ITEMS), "view")
    views = pl.DataFrame({"view": np.arange(len(item_vectors))})
    joined = views.join(background, on="view", how="left", maintain_order="left")
    return joined["mean"].fill_null(_MIN_BACKGROUND).clip(lower_bound=_MIN_BACKGROUND).to_numpy()


def _crowd_cosine(item_vectors: np.ndarray, row_vectors: np.ndarray, row: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each view of an item the mean cosine of the rows that rank `_CROWD_RANKS` by closeness to it, float64 [m].

    `row` says which row each of `row_vectors` belongs to, int64 [n].
    """
    low, high = _CROWD_RANKS
    position, cosine = nearest(item_vectors, row_vectors, k=VIEWS_OF_A_ROW * (high + 1))
    view = np.repeat(np.arange(len(item_vectors)), position.shape[1])
    neighbours = pl.DataFrame({"view": view, "row": row[position.ravel()], "cosine": cosine.ravel()})
    closest = neighbours.unique(["view", "row"], keep="first", maintain_order=True)
    ranked = closest.with_columns(rank=pl.int_range(pl.len()).over("view"))
    crowd = ranked.filter(pl.col("rank").is_between(low, high)).group_by("view").agg(mean=pl.col("cosine").mean())
    views = pl.DataFrame({"view": np.arange(len(item_vectors))})
    joined = views.join(crowd, on="view", how="left", maintain_order="left")
    return joined["mean"].fill_null(_MIN_BACKGROUND).to_numpy()


def _texts_of(candidates: pl.DataFrame, batches: Callable[[], Iterable[pl.DataFrame]]) -> pl.DataFrame:
    """For each candidate `text` and `question_gist` of its row's view, `prompt` and `answer` of the row."""
    row_view_numbers, row_numbers = (candidates.select(name).unique() for name in ("row_view", "row"))
    view_texts = [pl.DataFrame(schema={"row_view": pl.Int64, "text": pl.String, "question_gist": pl.String})]
    row_texts = [pl.DataFrame(schema={"row": pl.Int64, "prompt": pl.String, "answer": pl.String})]
    views_read = rows_read = 0
    for batch in batches():
        views = row_views(batch)
        views = views.select("text", "question_gist", row_view=pl.int_range(pl.len(), dtype=pl.Int64) + views_read)
        of_candidates = views.join(row_view_numbers, on="row_view", how="semi")
        view_texts.append(of_candidates.select("row_view", "text", "question_gist"))
        prompt, answer = pl.col("core").fill_null(""), pl.col("answer").fill_null("")
        rows = batch.select(row=pl.int_range(pl.len(), dtype=pl.Int64) + rows_read, prompt=prompt, answer=answer)
        row_texts.append(rows.join(row_numbers, on="row", how="semi"))
        views_read, rows_read = views_read + views.height, rows_read + batch.height
    texts = candidates.select("row_view", "row")
    texts = texts.join(pl.concat(view_texts), on="row_view", how="left", maintain_order="left")
    texts = texts.join(pl.concat(row_texts), on="row", how="left", maintain_order="left")
    return texts.drop("row_view", "row")
