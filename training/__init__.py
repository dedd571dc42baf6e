"""Train the arms of a run under one budget, evaluate them, and test whether curation helped."""
