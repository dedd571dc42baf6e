"""Contamination: rows that hold or rephrase an item of a benchmark."""
