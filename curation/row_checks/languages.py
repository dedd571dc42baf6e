"""Which language a text is in, by lingua (optional: `pip install 'siftune[language]'`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from siftune.curation.errors import UserError, did_you_mean, missing_extra


@dataclass(frozen=True)
class Detected:
    """The most probable language (ISO 639-1, lower case) and its confidence in [0, 1]; empty when there is none."""

    code: str
    confidence: float


def detect(texts: Sequence[str], *, wanted: Sequence[str], confidence: float) -> list[Detected]:
    """The language of each text, among all that lingua knows.

    lingua's fast mode takes some short English texts for Latin (0.8 % of real rows); its accurate mode is right eight
    times as often, but slower and a gigabyte large. It is asked only where the fast one is confidently not `wanted`.

    Raises:
        UserError: lingua is not installed.
    """
    found = _detect(texts, accurate=False)
    doubtful = [place for place, item in enumerate(found) if item.code not in wanted and item.confidence >= confidence]
    if doubtful:
        second = _detect([texts[place] for place in doubtful], accurate=True)
        for place, item in zip(doubtful, second, strict=True):
            found[place] = item
    return found


def check_codes(codes: Sequence[str]) -> None:
    """Raise `UserError` for a code that lingua does not know, or when lingua is not installed."""
    known = sorted(language.iso_code_639_1.name.lower() for language in _lingua().Language.all())
    for code in codes:
        if code.lower() not in known:
            hint = did_you_mean(code, known)
            raise UserError(f"checks.languages: no language {code!r}.{hint} Accepted: {', '.join(known)}.")


def _detect(texts: Sequence[str], *, accurate: bool) -> list[Detected]:
    return [
        _best(values)
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


def _best(values: Sequence[Any]) -> Detected:
    if not values or values[0].value <= 0:
        return Detected("", 0.0)
    return Detected(values[0].language.iso_code_639_1.name.lower(), float(values[0].value))
