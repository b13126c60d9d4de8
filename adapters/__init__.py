"""Backends: one folder each, the same file names in each; installed as `dreamcore.adapters`."""
