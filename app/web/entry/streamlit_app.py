"""The app's entry: `streamlit run app/web/entry/streamlit_app.py` executes this file for every browser event.

It must stay alone in this folder. Streamlit puts the folder of its script first on the module path, where our `state`
or `charts` would be found in place of a package of that name; and it takes a folder `pages` beside the script for an
app of the older kind: until the first visit has called `st.navigation`, it shows a sidebar of our modules and runs
`pages/browse.py` itself at the address /browse, which draws nothing.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from polars.exceptions import PolarsError
from pyarrow import ArrowInvalid

from siftune.app.web import markup, state
from siftune.app.web.pages import PAGES
from siftune.curation.errors import UserError

ICON = Path(markup.__file__).with_name("icon.svg")

st.set_page_config(page_title="siftune", page_icon=str(ICON), layout="wide")
markup.style()

pages = {
    title: st.Page(draw_page, title=title, default=position == 0)
    for position, (title, draw_page) in enumerate(PAGES.items())
}
st.session_state["pages"] = pages
page = st.navigation(list(pages.values()), position="top")
state.open_run()
try:
    page.run()
except UserError as fault:
    markup.draw(markup.notice(str(fault)))
except (OSError, PolarsError, ArrowInvalid) as fault:
    markup.draw(markup.notice(f"A file of this run cannot be read. Curate again to write it anew. {fault}"))
