"""What the rows are about: topics and a map from the embeddings of their prompts, and one number for diversity."""
