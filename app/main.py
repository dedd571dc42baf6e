"""The app's entry: `streamlit run app/main.py` executes this file for every browser event."""

from __future__ import annotations

import sys
from pathlib import Path

# Streamlit puts this folder first on the module path; `app` and its neighbours are found from the folder above.
HERE = Path(__file__).resolve().parent
sys.path[:] = [
    str(HERE.parent),
    *(entry for entry in sys.path if Path(entry or ".").resolve() not in (HERE, HERE.parent)),
]

import streamlit as st  # noqa: E402
from polars.exceptions import PolarsError  # noqa: E402
from pyarrow import ArrowInvalid  # noqa: E402

from app import plain, state  # noqa: E402
from app.views import browse, chat, decisions, overview, prompts, thresholds, training, verdict  # noqa: E402
from curation.errors import UserError  # noqa: E402

st.set_page_config(page_title="siftune", page_icon=str(HERE / "icon.svg"), layout="wide")
plain.style()

PAGES = {
    "Overview": st.Page(overview.overview, title="Overview", default=True),
    "Browse": st.Page(browse.browse, title="Browse"),
    "Decisions": st.Page(decisions.decisions, title="Decisions"),
    "Thresholds": st.Page(thresholds.thresholds, title="Thresholds"),
    "Training": st.Page(training.training, title="Training"),
    "Chat": st.Page(chat.chat, title="Chat"),
    "Prompts": st.Page(prompts.prompts, title="Prompts"),
    "Verdict": st.Page(verdict.verdict, title="Verdict"),
}
st.session_state["pages"] = PAGES
page = st.navigation(list(PAGES.values()), position="top")
state.open_run()
try:
    page.run()
except UserError as fault:
    plain.draw(plain.problem(str(fault)))
except (OSError, PolarsError, ArrowInvalid) as fault:
    plain.draw(plain.problem(f"A file of this run cannot be read; curate again to write it anew. {fault}"))
