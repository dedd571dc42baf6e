"""Export: an arm's model for other programs, and the proof that it still answers as the adapter does."""
