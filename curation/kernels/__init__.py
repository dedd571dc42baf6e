"""The compiled inner loops (numba, cached on disk)."""
