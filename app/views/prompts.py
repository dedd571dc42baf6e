"""Placeholder."""


def prompts() -> None:
    """Draw the page."""
