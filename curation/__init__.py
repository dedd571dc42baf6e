"""Curate instruction data: measure once, decide many times, explain everything."""
