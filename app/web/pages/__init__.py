"""One module for each page: it draws, and asks `siftune.app.web.queries` and the library for what it draws.

`PAGES` is the list of them, in the order of the navigation. To add a page, write its module, with a function that draws
it, and name it here.
"""

from __future__ import annotations

from collections.abc import Callable

from siftune.app.web.pages import browse, chat, decisions, overview, prompts, thresholds, training, verdict
from siftune.app.web.pages.map import row_map

#: Title in the navigation and the function that draws the page; the function's name is the page's address, and the
#: first page is the one that opens.
PAGES: dict[str, Callable[[], None]] = {
    "Overview": overview.overview,
    "Browse": browse.browse,
    "Map": row_map,
    "Decisions": decisions.decisions,
    "Thresholds": thresholds.thresholds,
    "Training": training.training,
    "Chat": chat.chat,
    "Prompts": prompts.prompts,
    "Verdict": verdict.verdict,
}
