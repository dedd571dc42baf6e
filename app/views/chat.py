"""Placeholder."""


def chat() -> None:
    """Draw the page."""
