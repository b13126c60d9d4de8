"""The MindSpore backend, on mindone and MindSpore."""
