"""Tasks: outcomes besides held-out loss, scored for every arm and seed and compared item by item."""
