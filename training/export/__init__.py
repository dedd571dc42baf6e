"""Export: an arm's model for other programs, with a check that its predictions are those of the adapter."""
