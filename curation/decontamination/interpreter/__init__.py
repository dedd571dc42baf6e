"""Follows small programs of strangers without running them."""
