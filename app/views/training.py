"""Placeholder."""


def training() -> None:
    """Draw the page."""
