"""Sources in, examples out: every input row becomes an example, or is quarantined with its file, row and reason."""
