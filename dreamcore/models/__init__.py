"""What a model folder is, and where it comes from."""
