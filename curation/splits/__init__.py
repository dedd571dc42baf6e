"""Training and held-out rows that do not leak into each other, and the certificate that says so."""
