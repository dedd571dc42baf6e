"""Choosing a part of the curated training rows: by coverage, by examples of one's own task, by a score."""
