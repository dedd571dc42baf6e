"""The model that gives a second opinion, as a recipe asks for it."""

from __future__ import annotations

from pathlib import Path

from siftune.curation.answer_cache import AnswerCache
from siftune.curation.chat_endpoint import ChatEndpoint
from siftune.curation.decontamination.chat_judge import ChatJudge
from siftune.curation.decontamination.cross_encoder_judge import CrossEncoderJudge
from siftune.curation.decontamination.second_opinion import Judge
from siftune.curation.recipe.sections import SecondOpinion


def judge_weights(settings: SecondOpinion, *, base: Path) -> str | None:
    """The hashes of a cross-encoder's files; None where a server is asked. Raises `UserError` like `open_judge`."""
    judge = None if settings.cross_encoder is None else open_judge(settings, base=base)
    return judge.weights if isinstance(judge, CrossEncoderJudge) else None


def open_judge(settings: SecondOpinion, *, base: Path) -> Judge:
    """The model of `verify`; a folder is relative to `base`. Raises `UserError` when it is not to be had."""
    cache = AnswerCache()
    if settings.cross_encoder is not None:
        beside = base / settings.cross_encoder
        name = str(beside) if beside.is_dir() else settings.cross_encoder
        return CrossEncoderJudge(name, threshold=settings.threshold, cache=cache)
    endpoint = ChatEndpoint(
        settings.endpoint or "",
        settings.model or "",
        setting="contamination.verify",
        key_variable=settings.key_variable,
        timeout=settings.timeout,
        cache=cache,
    )
    return ChatJudge(endpoint, settings.model or "")
