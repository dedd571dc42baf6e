"""Train the arms of a run under one budget and say honestly whether curation helped."""
