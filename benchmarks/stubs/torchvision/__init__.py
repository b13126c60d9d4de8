"""Stands in for torchvision where it is not installed; see `benchmarks/runner.py`."""
