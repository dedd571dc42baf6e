"""Builders of the embedded default data set."""
