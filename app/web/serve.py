"""The server's process: Streamlit's own command line, with everything imported and the run opened beforehand.

Streamlit runs `streamlit_app.py` only when a browser connects; imports and the rows of a large run would then stand
between the user and the first page.
"""

from __future__ import annotations

import logging

# The caches below are filled before Streamlit has a runtime, on purpose: its warnings about that are dropped.
for _name in ("streamlit.runtime.caching.cache_data_api", "streamlit.runtime.scriptrunner_utils.script_run_context"):
    logging.getLogger(_name).addFilter(
        lambda record: "No runtime" not in record.msg and "ScriptRunContext" not in record.msg
    )

import pandas as pd  # noqa: E402, F401 - charts and tables are handed to Streamlit as pandas frames
from streamlit.web.cli import main  # noqa: E402

import siftune.app.web.pages  # noqa: E402, F401 - imports every page
from siftune.app.web import state  # noqa: E402

if __name__ == "__main__":
    state.preload()
    state.freeze()
    main()
