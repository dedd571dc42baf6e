"""What the pages share: the run that is open, its light columns, the search index; kept once for all browser tabs."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import streamlit as st
from polars.exceptions import PolarsError

from siftune.app.web import markup, queries
from siftune.app.web.answering import Answering
from siftune.curation.errors import UserError
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.nearest_rows import Nearness
from siftune.curation.review.search import TextIndex
from siftune.curation.review.token_lengths import TokenLengths, count_lengths, stored_lengths
from siftune.curation.run.folder import RunFolder
from siftune.training.inference.engine import Engine
from siftune.training.inference.factory import open_engine, trained_arms

#: How `launch` tells the server which folder to open.
RUN_VARIABLE = "SIFTUNE_RUN"
#: Seconds between looks at a run that is still being written.
REFRESH = 3.0


def open_run() -> RunFolder:
    """The run folder that the app was started on; stops the page with one message when it cannot be read."""
    try:
        return RunFolder.open(Path(os.environ.get(RUN_VARIABLE, ".")))
    except UserError as fault:
        stop(str(fault))


def stop(message: str) -> NoReturn:
    """End the page with one clear message."""
    markup.draw(markup.problem(message))
    st.stop()
    raise AssertionError("st.stop() ends the script")


def stamp(run: RunFolder) -> str:
    """Changes when the run's decisions do: what is kept in memory is kept under it."""
    parts = []
    for name in ("rows.parquet", "ledger.parquet"):
        path = run.path / name
        parts.append(f"{path.stat().st_mtime_ns}:{path.stat().st_size}" if path.is_file() else "-")
    return " ".join(parts)


def catalogue(run: RunFolder) -> Catalogue:
    """The light columns of the run; while there are none yet, a page that says so and looks again by itself."""
    if not (run.path / "rows.parquet").is_file():
        waiting(run, stamp(run))
        st.stop()
    try:
        return _catalogue(str(run.path), stamp(run))
    except UserError as fault:
        stop(str(fault))


@st.cache_resource(max_entries=1, show_spinner="Opening the run")
def _catalogue(path: str, seen: str) -> Catalogue:
    del seen  # part of the cache's key, as in all functions below: Streamlit leaves out names that begin with _
    return Catalogue.load(RunFolder.open(path))


def waiting(run: RunFolder, seen: str) -> None:
    """A run that is still being written: how far it has come, and a look every few seconds."""

    @st.fragment(run_every=REFRESH)
    def look() -> None:
        if stamp(run) != seen:
            st.rerun()
        done = run.manifest.get("stages", [])
        names = ", ".join(str(stage.get("stage", "?")) for stage in done if isinstance(stage, dict))
        markup.draw(markup.problem("This run is still being written, and opens here by itself when it is curated."))
        if names:
            markup.draw(markup.note(f"Done so far: {names}"))

    look()


@dataclass
class Building:
    """The search index while a thread makes it."""

    total: int
    done: int = 0
    fault: str | None = None
    ready: TextIndex | None = None
    thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


def text_index(run: RunFolder) -> Building:
    """The search index of the run: ready, or being built by a thread that outlives this page."""
    found = catalogue(run)
    return _text_index(str(run.path), stamp(run), found)


@st.cache_resource(max_entries=1, show_spinner=False)
def _text_index(path: str, seen: str, _catalogue: Catalogue) -> Building:
    del path, seen
    building = Building(total=len(_catalogue), ready=TextIndex.open(_catalogue.run))
    if building.ready is None:
        building.thread = threading.Thread(target=_build, args=(building, _catalogue), daemon=True)
        building.thread.start()
        # A small run is indexed before anybody could read "please wait".
        building.thread.join(timeout=1.0)
    return building


def _build(building: Building, found: Catalogue) -> None:
    def progress(_label: str, done: int, total: int) -> None:
        building.done, building.total = done, total

    try:
        building.ready = TextIndex.build(found, progress=progress)
    except (OSError, UserError) as fault:
        building.fault = str(fault)


def browse(query: Query) -> None:
    """Make Browse show these rows when it is opened next."""
    st.session_state["browse"] = query
    st.session_state["browse_version"] = st.session_state.get("browse_version", 0) + 1


def wanted() -> Query:
    """The rows that Browse shows."""
    found = st.session_state.get("browse")
    return found if isinstance(found, Query) else Query()


def go(page: str) -> None:
    """Turn to another page, by its name in the navigation."""
    st.switch_page(st.session_state["pages"][page])


def previews(found: Catalogue, positions: list[int]) -> dict[int, tuple[str, str]]:
    """The first words of prompt and answer by position: from the index when there is one, else from the texts."""
    ready = TextIndex.open(found.run)
    if ready is not None:
        return ready.previews(positions)
    return {position: (row["prompt"] or "", row["answer"] or "") for position, row in found.texts(positions).items()}


def replayed(found: Catalogue, name: str, threshold: float, counted: TokenLengths | None) -> queries.Effect:
    """The effect of a threshold; remembered, for a slider goes to and fro."""
    try:
        return _replayed(str(found.run.path), stamp(found.run), name, threshold, counted is not None, counted)
    except UserError as fault:
        stop(str(fault))


@st.cache_data(max_entries=200, show_spinner=False)
def _replayed(
    path: str,
    seen: str,
    name: str,
    threshold: float,
    in_tokens: bool,  # noqa: FBT001
    _counted: TokenLengths | None,
) -> queries.Effect:
    del seen, in_tokens
    return queries.effect(RunFolder.open(path), name, threshold, None if _counted is None else _counted.total)


@dataclass
class Counting:
    """The rows' lengths in tokens while a thread counts them; `fault` says why there will be none."""

    rows: int = 0
    done: int = 0
    ready: TokenLengths | None = None
    fault: str | None = None

    @property
    def ended(self) -> bool:
        """Whether no more is to be expected."""
        return self.ready is not None or self.fault is not None


def token_lengths(run: RunFolder) -> Counting:
    """The lengths of the run's rows in tokens of its base model: stored, or being counted once by a thread."""
    return _token_lengths(str(run.path), stamp(run), _catalogue=catalogue(run))


@st.cache_resource(max_entries=1, show_spinner=False)
def _token_lengths(path: str, seen: str, _catalogue: Catalogue) -> Counting:
    del path, seen
    counting = Counting(rows=len(_catalogue), ready=stored_lengths(_catalogue.run))
    if not {"model", "training"} & _catalogue.run.recipe.model_fields_set:
        counting.fault = "The recipe names no base model, so words are counted."
    if not counting.ended:
        thread = threading.Thread(target=_count, args=(counting, _catalogue.run), daemon=True)
        thread.start()
        # A tokenizer that is nowhere, or a handful of rows, takes no time.
        thread.join(timeout=1.0)
    return counting


def _count(counting: Counting, run: RunFolder) -> None:
    def progress(_label: str, done: int, total: int) -> None:
        counting.done, counting.rows = done, total

    try:
        counting.ready = count_lengths(run, progress=progress)
        if counting.ready is None:
            counting.fault = f"No tokenizer of {run.recipe.model.name} is on this machine, so words are counted."
    except (OSError, UserError, PolarsError) as fault:
        counting.fault = f"Tokens could not be counted: {fault}"


@st.cache_resource
def running() -> dict[str, Answering]:
    """Prompts that are being answered, by conversation; they outlive a rerun, and a reload of the browser."""
    return {}


def engine(run: RunFolder) -> Engine:
    """The engine of all trained arms and the base, loaded once for all browser tabs."""
    arms = trained_arms(run.path)
    stamps = tuple((arm, _touched(folder)) for arm, folder in arms.items())
    return _engine(str(run.path), stamps)


def _touched(adapter: Path | None) -> int:
    return 0 if adapter is None else (adapter.parent / "done.json").stat().st_mtime_ns


@st.cache_resource(max_entries=1, show_spinner="Loading the model and its adapters")
def _engine(path: str, stamps: tuple[tuple[str, int], ...]) -> Engine:
    del stamps
    run = RunFolder.open(path)
    gc.unfreeze()  # an engine that this one replaces may be garbage by now
    try:
        return open_engine(run.path, run.recipe)
    finally:
        freeze()


@st.cache_resource(max_entries=4, show_spinner="Asking the server who it is")
def endpoint(arms: tuple[tuple[str, tuple[str, str]], ...]) -> Engine:
    """An engine over models of an OpenAI-compatible server: each arm with its (url, model). Asks for fingerprints."""
    from siftune.training.inference.openai_engine import OpenAIEngine, ServedModel

    engine = OpenAIEngine({arm: ServedModel(url, model) for arm, (url, model) in arms})
    for arm in engine.arms:
        # Now, and not when the first answer ends: a stop would have to wait for it.
        engine.fingerprint(arm)
    return engine


def nearness(run: RunFolder) -> Nearness | None:
    """The run's embeddings, ready to be asked; None where it has none, or their encoder is not on this machine."""
    return _nearness(str(run.path), stamp(run), _catalogue=catalogue(run))


@st.cache_resource(max_entries=1, show_spinner="Reading the embeddings of this run")
def _nearness(path: str, seen: str, _catalogue: Catalogue) -> Nearness | None:
    del path, seen
    return Nearness.open(_catalogue)


def prepare_nearness(run: RunFolder) -> None:
    """Load the encoder by a thread, once: whoever has read an answer may ask where it comes from."""
    _prepare_nearness(str(run.path), stamp(run), _catalogue=catalogue(run))


@st.cache_resource(max_entries=1, show_spinner=False)
def _prepare_nearness(path: str, seen: str, _catalogue: Catalogue) -> threading.Thread:
    def load() -> None:
        found = _nearness(path, seen, _catalogue=_catalogue)
        if found is not None:
            found.store.encoder.encode(["a text"])
            freeze()

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def mask(run: RunFolder, row_id: str) -> list[tuple[str, bool]]:
    """The tokens of a row and whether each is trained. Raises `UserError` when no arm holds the row."""
    return _mask(str(run.path), row_id)


@st.cache_data(max_entries=50, show_spinner="Reading the tokenizer")
def _mask(path: str, row_id: str) -> list[tuple[str, bool]]:
    from siftune.training.dry_run import mask as tokens

    return tokens(RunFolder.open(path), row_id)


def warm() -> None:
    """Read the run's rows before the first browser comes; what cannot be read is told on the page."""
    try:
        run = RunFolder.open(Path(os.environ.get(RUN_VARIABLE, ".")))
        if (run.path / "rows.parquet").is_file():
            _catalogue(str(run.path), stamp(run))
    except (UserError, OSError, PolarsError):
        return


def freeze() -> None:
    """Take what is alive out of the garbage collector's sight.

    Streamlit collects garbage after every run of a page. Once torch and transformers are imported that takes a quarter
    of a second each time, in which nothing else runs: neither an answer nor the end of one.
    """
    gc.collect()
    gc.freeze()
