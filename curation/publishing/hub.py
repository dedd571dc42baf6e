"""Pushing the curated set of a run to the Hugging Face hub.

The set is private unless the user says otherwise, nothing that siftune did not push is overwritten, and all files
arrive in one commit. The token is that of `hf auth login` or HF_TOKEN; it is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from siftune.curation.errors import UserError
from siftune.curation.ingest.source_location import HUB
from siftune.curation.publishing.dataset_card import published_splits, text
from siftune.curation.publishing.trainer_entries import LLAMA_FACTORY_FILE, llama_factory_entries
from siftune.curation.run.folder import RunFolder
from siftune.curation.split_names import HELD_OUT, TRAIN

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The tag in the card by which a set is known as one of siftune.
_TAG = "siftune"
_CARD = "README.md"
#: owner/name as the hub has them: `-` and `.` neither first nor last nor twice in a row, at most 96 characters.
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)


@dataclass(frozen=True)
class HubUpload:
    """What would be pushed.

    Attributes:
        repository: owner/name.
        card: the text of README.md, for the hub.
        files: name on the hub to content: a file of the run, or bytes.
        version: of siftune, for the message of the commit.
    """

    repository: str
    card: str
    files: dict[str, Path | bytes]
    version: str

    def sizes(self) -> dict[str, int]:
        """Name of each file to its bytes."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


def prepare_upload(run: RunFolder, target: str) -> HubUpload:
    """What `push` would write; without a network.

    Args:
        run: a finished run.
        target: `hf://owner/name`.

    Raises:
        UserError: the target is no name of the hub, the run is not finished, or its curated set is not whole.
    """
    repository = target.removeprefix(HUB)
    if not target.startswith(HUB) or not _REPOSITORY.fullmatch(repository):
        raise UserError(
            f"{target} is no place to push to. Write {HUB}OWNER/NAME, with letters, digits, '-', '_' and '.' in both."
        )
    manifest = run.manifest
    if not manifest.finished_counts().kept:
        raise UserError(f"{run.path} keeps no rows, so there is nothing to push.")
    splits = published_splits(manifest)
    card = text(manifest, run.recipe, hub=repository)
    files: dict[str, Path | bytes] = {
        _CARD: card.encode(),
        LLAMA_FACTORY_FILE: llama_factory_entries(manifest.recipe_name, splits, hub=repository).encode(),
    }
    files |= {run.curated(split).name: run.curated(split) for split in splits}
    missing = [str(file) for file in files.values() if isinstance(file, Path) and not file.is_file()]
    if missing:
        raise UserError(f"{', '.join(missing)} is missing. Write it again with: siftune curate {run.recipe_path}")
    return HubUpload(repository, card, files, manifest.siftune.version)


def push(upload: HubUpload, *, public: bool = False) -> str:
    """Make the repository where there is none, and write the files in one commit.

    Args:
        upload: of `prepare_upload`.
        public: whether everybody may read the set. One that exists keeps its visibility.

    Returns:
        The address of the data set.

    Raises:
        UserError: there is no token, the hub cannot be reached or refuses, the repository holds what siftune did not
            push, or is not as visible as `public` says.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if get_token() is None:
        raise UserError("There is no token for the Hugging Face hub. Log in with `hf auth login`, or set HF_TOKEN.")
    api = HfApi(library_name="siftune", library_version=upload.version)
    with _hub_errors(upload.repository):
        stale = _stale_files(api, upload, public=public)
        if stale is None:
            api.create_repo(upload.repository, repo_type="dataset", private=not public)
        operations = [CommitOperationAdd(name, content) for name, content in upload.files.items()]
        api.create_commit(
            upload.repository,
            [*operations, *(CommitOperationDelete(name) for name in stale or [])],
            commit_message=f"Curated by siftune {upload.version}",
            repo_type="dataset",
        )
    return f"{api.endpoint}/datasets/{upload.repository}"


def _stale_files(api: HfApi, upload: HubUpload, *, public: bool) -> list[str] | None:
    """Splits of an earlier push that the set has no more; None where there is no repository yet."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        existing = api.dataset_info(upload.repository)
    except RepositoryNotFoundError:
        return None
    where = f"{HUB}{upload.repository}"
    if not existing.private and not public:
        raise UserError(
            f"{where} exists and is public: everybody can read what is pushed there. If that is meant, add --public; "
            "else give another name."
        )
    if existing.private and public:
        raise UserError(f"{where} exists and is private. Make it public in its settings, or push without --public.")
    names = {file.rfilename for file in existing.siblings or []} - {".gitattributes"}
    if names and _TAG not in (existing.tags or []):
        shown = ", ".join(sorted(names)[:3])
        raise UserError(
            f"{where} holds files that siftune did not push ({shown}); they are left as they are. Give another name."
        )
    splits = {f"{split}.parquet" for split in (TRAIN, *HELD_OUT)}
    return sorted(names & splits - set(upload.files))


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """What the hub or the network refuses, as one sentence without the token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as fault:
        status = fault.response.status_code if isinstance(fault, HfHubHTTPError) else None
        reason = " ".join(str(fault).split()) or type(fault).__name__
        if token := get_token():
            reason = reason.replace(token, "…")
        advice = "Check the network and try again"
        if status in (401, 403):
            advice = f"The token must be valid and may write to {repository.split('/')[0]}: log in with `hf auth login`"
        raise UserError(f"{HUB}{repository} cannot be pushed to. {advice}. The answer was: {reason[:300]}") from None
