"""One module a measure: who resembles whom, what resembles a benchmark, what looks odd."""
