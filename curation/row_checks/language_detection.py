"""Which language a text is in, by lingua (optional: `pip install 'siftune[language]'`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from siftune.curation.errors import UserError, did_you_mean, missing_extra


@dataclass(frozen=True)
class DetectedLanguage:
    """The most probable language (ISO 639-1, lower case) and its confidence in [0, 1]; empty when there is none."""

    code: str
    confidence: float


def detect(texts: Sequence[str], *, accepted: Sequence[str], confidence: float) -> list[DetectedLanguage]:
    """The language of each text, among all that lingua knows.

    lingua's fast mode takes some short English texts for Latin (0.8 % of real rows); its accurate mode makes an eighth
    of these errors, but is slower and takes a gigabyte of memory. It is used only where the fast mode gives a language
    that is not accepted.

    Args:
        texts: The texts.
        accepted: ISO 639-1 codes in lower case.
        confidence: In [0, 1]; the fast mode's result is checked when it is at least this sure.

    Raises:
        UserError: lingua is not installed.
    """
    detected = _detect(texts, accurate=False)
    doubtful = [
        index
        for index, language in enumerate(detected)
        if language.code not in accepted and language.confidence >= confidence
    ]
    if doubtful:
        checked = _detect([texts[index] for index in doubtful], accurate=True)
        for index, language in zip(doubtful, checked, strict=True):
            detected[index] = language
    return detected


def check_codes(codes: Sequence[str]) -> None:
    """Refuse codes that lingua does not know.

    Raises:
        UserError: lingua does not know one of `codes`, or is not installed.
    """
    supported = sorted(language.iso_code_639_1.name.lower() for language in _lingua().Language.all())
    for code in codes:
        if code.lower() not in supported:
            hint = did_you_mean(code, supported)
            raise UserError(f"checks.languages: no language {code!r}.{hint} Accepted: {', '.join(supported)}.")


def _detect(texts: Sequence[str], *, accurate: bool) -> list[DetectedLanguage]:
    return [
        _most_probable(values)
        for values in _detector(accurate=accurate).compute_language_confidence_values_in_parallel(list(texts))
    ]


@functools.cache
def _detector(*, accurate: bool) -> Any:
    builder = _lingua().LanguageDetectorBuilder.from_all_languages()
    return builder.build() if accurate else builder.with_low_accuracy_mode().build()


def _lingua() -> Any:
    try:
        import lingua
    except ImportError:
        raise missing_extra("lingua-language-detector", "language") from None
    return lingua


def _most_probable(values: Sequence[Any]) -> DetectedLanguage:
    if not values or values[0].value <= 0:
        return DetectedLanguage("", 0.0)
    return DetectedLanguage(values[0].language.iso_code_639_1.name.lower(), float(values[0].value))
