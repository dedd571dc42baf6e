"""Row checks: what is wrong with a row by itself."""
