"""How alike texts are: what the measures are made of."""
