"""A cross-encoder of sentence-transformers, asked whether two texts are the same task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from siftune.curation.answer_cache import AnswerCache
from siftune.curation.decontamination.second_opinion import TextPair
from siftune.curation.embeddings.sentence_transformer import find
from siftune.curation.errors import UserError, missing_extra
from siftune.curation.file_hash import file_sha256
from siftune.curation.progress import Progress

_BATCH = 32


class CrossEncoderJudge:
    """Reads both texts together and scores them; scores come from the cache where they are there.

    Args:
        name: A folder or a hub name. Weights are read from safetensors only, and no code of the model is run.
        threshold: The lowest score, in [0, 1], that says the same task.
        cache: Where scores are kept.

    Raises:
        UserError: the model is not to be had, has no safetensors weights, or more than one score.
    """

    def __init__(self, name: str, *, threshold: float, cache: AnswerCache) -> None:
        self._folder, label = find(name)
        self.name = f"the second opinion ({label})"
        self._threshold, self._cache = threshold, cache

    def compare(self, comparisons: Sequence[TextPair], progress: Progress | None) -> list[bool | None]:
        """See `Judge.compare`."""
        questions = [{"model": self.weights, "first": pair.first, "second": pair.second} for pair in comparisons]
        scores = [self._cache.get(question) for question in questions]
        missing = [index for index, score in enumerate(scores) if score is None]
        for start in range(0, len(missing), _BATCH):
            chosen = missing[start : start + _BATCH]
            for index, score in zip(chosen, self._score([comparisons[index] for index in chosen]), strict=True):
                scores[index] = repr(score)
                self._cache.put(questions[index], repr(score))
            if progress is not None:
                progress("asking for a second opinion", start + len(chosen), len(missing))
        return [float(score or "nan") >= self._threshold for score in scores]

    def _score(self, pairs: Sequence[TextPair]) -> list[float]:
        import torch

        # The activation of the model's own configuration may be none: scores are made probabilities here.
        scores = self._model.predict(
            [(pair.first, pair.second) for pair in pairs],
            activation_fn=torch.nn.Sigmoid(),
            batch_size=_BATCH,
            show_progress_bar=False,
        )
        return [float(score) for score in scores]

    @cached_property
    def weights(self) -> str:
        """What the scores depend on: the hashes of the model's files."""
        files = (path for path in self._folder.rglob("*") if path.suffix in {".safetensors", ".json", ".txt"})
        return " ".join(f"{path.relative_to(self._folder)}:{file_sha256(path)}" for path in sorted(files))

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as fault:
            raise missing_extra(fault.name or "sentence-transformers", "semantic") from None
        model = CrossEncoder(
            str(self._folder),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
        if model.num_labels != 1:
            raise UserError(
                f"The cross-encoder {self._folder.name} gives {model.num_labels} scores for a pair. Accepted: one "
                "score that says how alike the two are, as that of cross-encoder/quora-roberta-base."
            )
        return model
