"""Duplicates: exact, near (MinHash), semantic (embeddings), repeated and conflicting answers."""
