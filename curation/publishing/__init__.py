"""The curated set for others: its card, entries for trainers, the hub."""
