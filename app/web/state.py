"""What the pages share: the open run, its light columns, the search index; cached once for all browser tabs."""

from __future__ import annotations

import gc
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import polars as pl
import streamlit as st
from polars.exceptions import PolarsError

from siftune.app.web import markup, queries
from siftune.app.web.chat_round import ChatRound
from siftune.curation.errors import UserError
from siftune.curation.exact_interval import clopper_pearson
from siftune.curation.recipe.recipe import Recipe
from siftune.curation.review import annotations as user_annotations
from siftune.curation.review import bulk_actions, charts, funnel, pairs
from siftune.curation.review import lengths as row_lengths
from siftune.curation.review.annotations import Annotation
from siftune.curation.review.bulk_actions import BulkAction
from siftune.curation.review.catalogue import Catalogue, Query
from siftune.curation.review.nearest_rows import RowEmbeddings
from siftune.curation.review.search import TextIndex
from siftune.curation.review.token_lengths import TokenLengths, count_lengths, stored_lengths
from siftune.curation.review.what_if import ThresholdReplays
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.overrides import Override, read_overrides
from siftune.training.inference.engine import Engine
from siftune.training.inference.factory import open_engine, trained_arms
from siftune.training.result import RESULT_FILE

_Content = TypeVar("_Content")

#: The environment variable by which `launch` names the run folder to the server.
RUN_VARIABLE = "SIFTUNE_RUN"
#: Seconds between looks at a run that is still being written.
REFRESH = 3.0
#: Rows of a run whose tokens are counted without being asked: a few seconds of work.
COUNTED_AT_ONCE = 20_000
#: Why the tokens of more rows are not counted.
WORDS_ONLY = "Words are counted; counting the tokens of so many rows takes minutes."
_ASKED = "count tokens"
#: Seconds that a page waits for the thread that counts tokens or builds the index: a small run needs no second visit.
PATIENCE = 0.3


def open_run() -> RunFolder:
    """The run folder that the app was started on. Ends the page with a message when it cannot be read."""
    run = RunFolder(Path(os.environ.get(RUN_VARIABLE, ".")))
    try:
        return _open_run(str(run.path), _stamp(run.manifest_path))
    except UserError as fault:
        stop_page(str(fault))


@st.cache_resource(max_entries=1, show_spinner=False)
def _open_run(path: str, stamp: str) -> RunFolder:
    """A run folder that keeps its recipe, which takes a twentieth of a second to read; `stamp` is of its manifest."""
    del stamp
    return RunFolder.open(path)


def stop_page(message: str) -> NoReturn:
    """End the page with a message."""
    markup.draw(markup.notice(message))
    st.stop()
    raise AssertionError("st.stop() ends the script")


def run_version(run: RunFolder) -> str:
    """A text that changes when the run's decisions do; caches use it as part of their key."""
    return " ".join(map(_stamp, (run.rows_path, run.ledger_path)))


def catalogue(run: RunFolder) -> Catalogue:
    """The light columns of the run. While it is still being written, the page says so and checks again by itself."""
    if not run.rows_path.is_file():
        show_waiting(run, run_version(run))
        st.stop()
    try:
        return _catalogue(str(run.path), run_version(run))
    except UserError as fault:
        stop_page(str(fault))


@st.cache_resource(max_entries=1, show_spinner="Opening the run")
def _catalogue(path: str, version: str) -> Catalogue:
    del version  # part of the cache key, as in all functions below; Streamlit leaves out names that begin with _
    return Catalogue.load(RunFolder.open(path))


def show_waiting(run: RunFolder, version: str) -> None:
    """Say that the run is still being written and which stages are done; check again every few seconds."""

    @st.fragment(run_every=REFRESH)
    def check() -> None:
        if run_version(run) != version:
            st.rerun()
        names = ", ".join(record.stage for record in run.manifest.stages)
        markup.draw(markup.notice("This run is still being written. It opens here by itself when curation is done."))
        if names:
            markup.draw(markup.note(f"Finished stages: {names}"))

    check()


@dataclass
class IndexBuild:
    """The search index while a thread builds it."""

    total: int
    done: int = 0
    fault: str | None = None
    ready: TextIndex | None = None
    thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def progress(self) -> float:
        """The share of the rows that are indexed, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


def text_index(run: RunFolder) -> IndexBuild:
    """The search index of the run: ready, or being built by a thread that goes on when the page ends."""
    return _text_index(str(run.path), run_version(run), catalogue(run))


@st.cache_resource(max_entries=1, show_spinner=False)
def _text_index(path: str, version: str, _catalogue: Catalogue) -> IndexBuild:
    del path, version
    build = IndexBuild(total=len(_catalogue), ready=TextIndex.open(_catalogue.run))
    if build.ready is None:
        build.thread = threading.Thread(target=_build, args=(build, _catalogue), daemon=True)
        build.thread.start()
        build.thread.join(timeout=PATIENCE)
    return build


def _build(build: IndexBuild, catalogue: Catalogue) -> None:
    def progress(_label: str, done: int, total: int) -> None:
        build.done, build.total = done, total

    try:
        build.ready = TextIndex.build(catalogue, progress=progress)
    except (OSError, UserError) as fault:
        build.fault = str(fault)


def show_in_browse(query: Query) -> None:
    """Set the rows that Browse shows when it is opened next."""
    st.session_state["browse"] = st.session_state["browse_last"] = query
    st.session_state["browse_version"] = st.session_state.get("browse_version", 0) + 1


def remember_browse(query: Query) -> None:
    """Keep what the widgets of Browse ask for, so that the page shows it again when the user comes back."""
    st.session_state["browse_last"] = query


def return_to_browse() -> None:
    """Show the query that Browse was left with, where the page is opened anew: its widgets forget their values."""
    last = st.session_state.get("browse_last")
    if not st.query_params and last is not None and last != browse_query():
        show_in_browse(last)


def browse_query() -> Query:
    """The rows that another page asked Browse to show; all rows when none did."""
    query = st.session_state.get("browse")
    return query if isinstance(query, Query) else Query()


def switch_to(page: str) -> None:
    """Switch to another page, by its title in the navigation."""
    st.switch_page(st.session_state["pages"][page])


def page_link(page: str, label: str, params: Mapping[str, list[str]] | None = None) -> None:
    """A link to a page.

    Args:
        page: its title in the navigation.
        label: the text of the link; not of a data set.
        params: the query parameters of its address.
    """
    st.page_link(st.session_state["pages"][page], label=label, query_params=params)


def arrived(page: str) -> dict[str, list[str]] | None:
    """The query parameters of the page's address where the user opened a link; None where the page wrote them itself.

    A page that keeps its address up to date calls `show_address` in each run.
    """
    params = {name: st.query_params.get_all(name) for name in st.query_params}
    return params if params and params != st.session_state.get(f"address of {page}") else None


def show_address(page: str, params: Mapping[str, list[str]]) -> None:
    """Let the page's address say what it shows, so that it can be sent to somebody."""
    address = {name: list(values) for name, values in params.items()}
    st.session_state[f"address of {page}"] = address
    if address != {name: st.query_params.get_all(name) for name in st.query_params}:
        st.query_params.from_dict(address)


def row_annotations(run: RunFolder) -> dict[str, Annotation]:
    """The user's notes and tags by row id; read again when the file changes. Ends the page when it is damaged."""
    return _read_again(run, run.annotations_path, user_annotations.read_annotations)


def tag_counts(run: RunFolder) -> dict[str, int]:
    """How many rows have each of the user's tags."""
    return _read_again(run, run.annotations_path, _count_tags)


def _count_tags(run: RunFolder) -> dict[str, int]:
    return user_annotations.tag_counts(row_annotations(run))


def overrides(run: RunFolder) -> dict[str, Override]:
    """The decisions by hand by row id; read again when the file changes. Ends the page when it is damaged."""
    return _read_again(run, run.overrides_path, _read_overrides)


def _read_overrides(run: RunFolder) -> dict[str, Override]:
    return read_overrides(run.overrides_path)


def last_action(run: RunFolder) -> BulkAction | None:
    """The action on many rows that can be undone."""
    return _read_again(run, run.last_action_path, bulk_actions.last_action)


def _read_again(run: RunFolder, file: Path, read: Callable[[RunFolder], _Content]) -> _Content:
    """What `read` makes of a file of the run; cached until the file changes. Ends the page when it is damaged."""
    try:
        content: _Content = _read_file(str(run.path), read.__name__, _stamp(file), read)
    except UserError as fault:
        stop_page(str(fault))
    return content


@st.cache_resource(max_entries=8, show_spinner=False)
def _read_file(path: str, name: str, stamp: str, _read: Callable[[RunFolder], Any]) -> Any:
    del name, stamp
    return _read(RunFolder.open(path))


def _stamp(path: Path) -> str:
    """Changes when the file does; every write replaces it by a new one."""
    file = path.stat() if path.is_file() else None
    return f"{file.st_ino}:{file.st_mtime_ns}:{file.st_size}" if file else "-"


def previews(catalogue: Catalogue, positions: list[int]) -> dict[int, tuple[str, str]]:
    """The first words of prompt and answer by position, from the search index or, without one, from the texts."""
    index = TextIndex.open(catalogue.run)
    if index is not None:
        return index.previews(positions)
    texts = catalogue.texts(positions)
    return {position: (row["prompt"] or "", row["answer"] or "") for position, row in texts.items()}


def threshold_effect(
    run: RunFolder, stage: str, threshold: float, lengths: TokenLengths | None
) -> queries.ThresholdEffect:
    """The effect of another threshold of a stage; cached, since a slider passes the same values again.

    Args:
        run: the run folder.
        stage: the name of a stage with a threshold.
        threshold: the new threshold.
        lengths: the rows' lengths in tokens; None: in words.
    """
    try:
        return _threshold_effect(
            str(run.path), run_version(run), stage, threshold, lengths is not None, lengths, catalogue(run)
        )
    except UserError as fault:
        stop_page(str(fault))


@st.cache_data(max_entries=200, show_spinner="Deciding again with this threshold")
def _threshold_effect(
    path: str,
    version: str,
    stage: str,
    threshold: float,
    in_tokens: bool,  # noqa: FBT001 - part of the cache key, since `_lengths` is not
    _lengths: TokenLengths | None,
    _catalogue: Catalogue,
) -> queries.ThresholdEffect:
    del in_tokens
    replays = _threshold_replays(path, version)
    return queries.threshold_effect(_catalogue, replays, stage, threshold, None if _lengths is None else _lengths.total)


@st.cache_resource(max_entries=1, show_spinner=False)
def _threshold_replays(path: str, version: str) -> ThresholdReplays:
    """Replays of the run. Its own thresholds are replayed at once, so that another one waits for nothing to load."""
    del version
    replays = ThresholdReplays.open(RunFolder.open(path))
    replays.replay({})
    return replays


def length_summary(catalogue: Catalogue, column: str) -> tuple[tuple[float, float], pl.DataFrame]:
    """Median lengths before and after curation, and the histogram of lengths; cached, since all rows are counted.

    Args:
        catalogue: the rows of the run.
        column: `prompt_words` or `answer_words`.
    """
    run = catalogue.run
    return _length_summary(str(run.path), run_version(run), column, catalogue)


@st.cache_resource(max_entries=2, show_spinner=False)
def _length_summary(
    path: str, version: str, column: str, _catalogue: Catalogue
) -> tuple[tuple[float, float], pl.DataFrame]:
    del path, version
    return row_lengths.median_lengths(_catalogue.frame, column), row_lengths.length_histogram(_catalogue.frame, column)


def warnings(run: RunFolder) -> list[str]:
    """What a person should know of the run; cached, since it counts all rows."""
    return _warnings(str(run.path), run_version(run))


@st.cache_resource(max_entries=1, show_spinner=False)
def _warnings(path: str, version: str) -> list[str]:
    del version
    return funnel.warnings(RunFolder.open(path))


def score_histogram(run: RunFolder, stage: str, threshold: float) -> pl.DataFrame:
    """The stored pairs of a stage by similarity; cached, since a slider passes the same values again."""
    return _score_histogram(str(run.path), run_version(run), stage, threshold)


@st.cache_resource(max_entries=50, show_spinner=False)
def _score_histogram(path: str, version: str, stage: str, threshold: float) -> pl.DataFrame:
    del version
    return pairs.score_histogram(RunFolder.open(path), stage, threshold=threshold)


def reached_pairs(run: RunFolder, stage: str, threshold: float) -> pairs.ReachedPairs:
    """How many stored pairs of a duplicate stage reach a threshold; cached like their histogram."""
    return _reached_pairs(str(run.path), run_version(run), stage, threshold)


@st.cache_resource(max_entries=50, show_spinner=False)
def _reached_pairs(path: str, version: str, stage: str, threshold: float) -> pairs.ReachedPairs:
    del version
    return pairs.reached_pairs(RunFolder.open(path), stage, threshold)


def borderline(run: RunFolder, stage: str, threshold: float, most: int, *, guarded: bool = False) -> pl.DataFrame:
    """The pairs nearest to a threshold; cached while the user labels them.

    Args:
        run: the run folder.
        stage: the name of a stage with a threshold.
        threshold: the threshold.
        most: how many pairs.
        guarded: of the guarded pairs instead, which no threshold decides about.
    """
    return _borderline(str(run.path), run_version(run), stage, threshold, most, guarded)


@st.cache_resource(max_entries=50, show_spinner=False)
def _borderline(
    path: str,
    version: str,
    stage: str,
    threshold: float,
    most: int,
    guarded: bool,  # noqa: FBT001 - part of the cache key
) -> pl.DataFrame:
    del version
    return pairs.borderline(RunFolder.open(path), stage, threshold, most=most, guarded=guarded)


@dataclass
class TokenCount:
    """The rows' lengths in tokens while a thread counts them; `fault` says why they cannot be counted."""

    rows: int = 0
    done: int = 0
    ready: TokenLengths | None = None
    fault: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the count is ready or has failed."""
        return self.ready is not None or self.fault is not None


def token_lengths(run: RunFolder) -> TokenCount:
    """The lengths of the run's rows in tokens of its base model: stored, or being counted once by a thread.

    The tokens of many rows are counted when the user asks for it (`ask_for_tokens`): that takes minutes of both cores.
    """
    rows = catalogue(run)
    if len(rows) > COUNTED_AT_ONCE and not st.session_state.get(_ASKED):
        ready = _stored_lengths(str(run.path), run_version(run))
        return TokenCount(len(rows), ready=ready, fault=None if ready else WORDS_ONLY)
    return _token_lengths(str(run.path), run_version(run), _catalogue=rows)


def needs_tokens(recipe: Recipe) -> bool:
    """Whether a section of the recipe speaks of tokens of a base model, so that pages should count in them, too."""
    return bool({"model", "training", "balance"} & recipe.model_fields_set)


def ask_for_tokens() -> None:
    """Let `token_lengths` count, however many rows there are."""
    st.session_state[_ASKED] = True


@st.cache_resource(max_entries=1, show_spinner=False)
def _stored_lengths(path: str, version: str) -> TokenLengths | None:
    del version
    return stored_lengths(RunFolder.open(path))


@st.cache_resource(max_entries=1, show_spinner=False)
def _token_lengths(path: str, version: str, _catalogue: Catalogue) -> TokenCount:
    del path, version
    count = TokenCount(rows=len(_catalogue), ready=stored_lengths(_catalogue.run))
    if not needs_tokens(_catalogue.run.recipe):
        count.fault = "Words are counted, since no section of the recipe needs the tokens of a base model."
    if not count.finished:
        thread = threading.Thread(target=_count, args=(count, _catalogue.run), daemon=True)
        thread.start()
        thread.join(timeout=PATIENCE)
    return count


def _count(count: TokenCount, run: RunFolder) -> None:
    def progress(_label: str, done: int, total: int) -> None:
        count.done, count.rows = done, total

    try:
        count.ready = count_lengths(run, progress=progress)
        if count.ready is None:
            count.fault = f"No tokenizer of {run.recipe.model.name} is on this machine, so words are counted."
    except (OSError, UserError, PolarsError) as fault:
        count.fault = f"Tokens could not be counted: {fault}"


@st.cache_resource
def chat_rounds() -> dict[str, ChatRound]:
    """Prompts that are being answered, by conversation; they survive a rerun and a reload of the browser."""
    return {}


def engine(run: RunFolder) -> Engine:
    """The engine of all trained arms and the base, loaded once for all browser tabs."""
    arms = trained_arms(run.path)
    stamps = tuple((arm, _touched(folder)) for arm, folder in arms.items())
    return _engine(str(run.path), stamps)


def _touched(adapter: Path | None) -> int:
    return 0 if adapter is None else (adapter.parent / RESULT_FILE).stat().st_mtime_ns


@st.cache_resource(max_entries=1, show_spinner="Loading the model and its adapters")
def _engine(path: str, stamps: tuple[tuple[str, int], ...]) -> Engine:
    del stamps
    run = RunFolder.open(path)
    gc.unfreeze()  # an engine that this one replaces may be garbage by now
    try:
        # Arms of equal weights are no fault of the run: pages say so where somebody wants to compare them.
        return open_engine(run.path, run.recipe, same_weights=True)
    finally:
        freeze()


@st.cache_resource(max_entries=4, show_spinner="Connecting to the server")
def endpoint(arms: tuple[tuple[str, tuple[str, str]], ...]) -> Engine:
    """An engine over models of an OpenAI-compatible server: each arm with its (url, model). Asks for fingerprints."""
    from siftune.training.inference.openai_engine import OpenAIEngine, ServedModel

    engine = OpenAIEngine({arm: ServedModel(url, model) for arm, (url, model) in arms})
    for arm in engine.arms:
        # Now, and not when the first answer ends: a stop would have to wait for it.
        engine.fingerprint(arm)
    return engine


def row_embeddings(run: RunFolder) -> RowEmbeddings | None:
    """The run's embeddings; None where it has none, or their encoder is not on this machine."""
    return _row_embeddings(str(run.path), run_version(run), _catalogue=catalogue(run))


@st.cache_resource(max_entries=1, show_spinner="Reading the embeddings of this run")
def _row_embeddings(path: str, version: str, _catalogue: Catalogue) -> RowEmbeddings | None:
    del path, version
    return RowEmbeddings.open(_catalogue)


def prepare_row_embeddings(run: RunFolder) -> None:
    """Load the encoder in a thread, once, before the user asks for the rows nearest to an answer."""
    _prepare_row_embeddings(str(run.path), run_version(run), _catalogue=catalogue(run))


@st.cache_resource(max_entries=1, show_spinner=False)
def _prepare_row_embeddings(path: str, version: str, _catalogue: Catalogue) -> threading.Thread:
    def load() -> None:
        embeddings = _row_embeddings(path, version, _catalogue=_catalogue)
        if embeddings is not None:
            embeddings.store.encoder.encode(["a text"])
            freeze()

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def mask(run: RunFolder, row_id: str) -> list[tuple[str, bool]]:
    """The tokens of a row and whether each is trained. Raises `UserError` when no arm holds the row."""
    return _mask(str(run.path), row_id)


@st.cache_data(max_entries=50, show_spinner="Reading the tokenizer")
def _mask(path: str, row_id: str) -> list[tuple[str, bool]]:
    from siftune.training.mask_viewer import row_tokens

    return row_tokens(RunFolder.open(path), row_id)


def preload() -> None:
    """Read the run's rows before the first browser connects, so that no page or slider waits for it.

    Faults are reported on the page.
    """
    try:
        run = RunFolder.open(Path(os.environ.get(RUN_VARIABLE, ".")))
        if run.rows_path.is_file():
            replays = threading.Thread(target=_prepare_replays, args=(run,), daemon=True)
            replays.start()
            rows = _catalogue(str(run.path), run_version(run))
            rows.examples([0])  # checks the checksum of the texts, once
            for column in ("prompt_words", "answer_words"):
                _, histogram = length_summary(rows, column)
            with charts.unchecked():
                charts.lengths(histogram, title="").to_dict()  # Altair reads its schema when it makes its first chart
            inspect.stack()  # Streamlit asks for it at its first element: half a second where many modules are loaded
            _warnings(str(run.path), run_version(run))
            TextIndex.open(run)  # checks its checksum, once
            replays.join()
    except (UserError, OSError, PolarsError):
        return


def _prepare_replays(run: RunFolder) -> None:
    """Have replays ready when the user moves the first slider."""
    with suppress(UserError, OSError, PolarsError):
        _threshold_replays(str(run.path), run_version(run))
        clopper_pearson(1, 2)  # imports what the precision of labels takes


def freeze() -> None:
    """Exempt all objects that exist now from garbage collection.

    Streamlit collects garbage after every run of a page. Once torch and transformers are imported that takes a quarter
    of a second each time, during which no thread runs: answers stop.
    """
    gc.collect()
    gc.freeze()
