"""Characters that cannot be seen or that reorder others, spelled out in text of unknown origin."""

from __future__ import annotations

import re

#: Control characters (terminal sequences begin with one) and those that reorder or hide text (Unicode TR 36, TR 9).
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    """`text` with characters that cannot be seen, or that reorder others, spelled out as `⟨U+202E⟩`."""
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text.replace("\r\n", "\n"))
