"""Balance over instruction lengths."""
