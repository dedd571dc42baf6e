"""Curate instruction data, fine-tune a small model on the raw and on the curated data, and show whether it helped."""
