"""The app's entry: `streamlit run app/web/streamlit_app.py` executes this file for every browser event."""

from __future__ import annotations

import sys
from pathlib import Path

# Streamlit puts this folder first on the module path, where its files could be taken for other packages.
HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

import streamlit as st  # noqa: E402
from polars.exceptions import PolarsError  # noqa: E402
from pyarrow import ArrowInvalid  # noqa: E402

from siftune.app.web import markup, state  # noqa: E402
from siftune.app.web.pages import browse, chat, decisions, overview, prompts, thresholds, training, verdict  # noqa: E402
from siftune.curation.errors import UserError  # noqa: E402

st.set_page_config(page_title="siftune", page_icon=str(HERE / "icon.svg"), layout="wide")
markup.style()

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
    markup.draw(markup.problem(str(fault)))
except (OSError, PolarsError, ArrowInvalid) as fault:
    markup.draw(markup.problem(f"A file of this run cannot be read; curate again to write it anew. {fault}"))
