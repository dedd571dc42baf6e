"""One module a format: rows of a file in, messages out."""
