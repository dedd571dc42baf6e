"""The command line and the Streamlit app: the only rooms that print or draw."""
