"""The server's process: Streamlit's own command line, with everything imported and the run opened beforehand.

Streamlit runs `streamlit_app.py` only when a browser connects; imports and the rows of a large run would then stand
between the user and the first page.
"""

from __future__ import annotations

import logging

# The caches below are made before there is a runtime, which is meant: no need to tell the user.
for _name in ("streamlit.runtime.caching.cache_data_api", "streamlit.runtime.scriptrunner_utils.script_run_context"):
    logging.getLogger(_name).addFilter(lambda told: "No runtime" not in told.msg and "ScriptRunContext" not in told.msg)

import pandas as pd  # noqa: E402, F401 - what charts and tables are handed over as
from streamlit.web.cli import main  # noqa: E402

import siftune.app.web.pages.browse  # noqa: E402
import siftune.app.web.pages.chat  # noqa: E402
import siftune.app.web.pages.decisions  # noqa: E402
import siftune.app.web.pages.overview  # noqa: E402
import siftune.app.web.pages.prompts  # noqa: E402
import siftune.app.web.pages.thresholds  # noqa: E402
import siftune.app.web.pages.training  # noqa: E402
import siftune.app.web.pages.verdict  # noqa: E402, F401
from siftune.app.web import state  # noqa: E402

if __name__ == "__main__":
    state.warm()
    state.freeze()
    main()
