"""The script that Streamlit executes, alone in its folder."""
