"""Answers of language models, kept on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from siftune.curation.atomic_files import write_json
from siftune.curation.cache_folder import cache_folder


class AnswerCache:
    """Answers on disk by the hash of everything that was asked, so that a run which was cut off asks nothing twice.

    Args:
        folder: where they are kept; the folder of everything that siftune keeps between runs unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder() / "model_answers"

    def get(self, question: object) -> str | None:
        """The answer to a question (any JSON document), or None."""
        path = self._path(question)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            answer, digest = document["answer"], document["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: it is asked again
        return answer if isinstance(answer, str) and _sha256(answer) == digest else None

    def put(self, question: object, answer: str) -> None:
        """Keep an answer."""
        write_json({"answer": answer, "sha256": _sha256(answer)}, self._path(question))

    def _path(self, question: object) -> Path:
        digest = _sha256(json.dumps(question, sort_keys=True))
        return self._folder / digest[:2] / f"{digest}.json"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
