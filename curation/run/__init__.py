"""What a run leaves in its folder: manifest, measures, ledger, decisions by hand; and what its stages cost."""
