"""The training loop's own arithmetic and records."""
