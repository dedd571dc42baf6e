"""The server's process: Streamlit's own command line, with everything imported before the first browser comes.

Streamlit runs `main.py` only when a browser connects; a second of imports would then stand between the user and the
first page.
"""

from __future__ import annotations

import pandas as pd  # noqa: F401 - what charts and tables are handed over as
from streamlit.web.cli import main

import app.views.browse
import app.views.chat
import app.views.decisions
import app.views.overview
import app.views.prompts
import app.views.thresholds
import app.views.training
import app.views.verdict  # noqa: F401

if __name__ == "__main__":
    main()
