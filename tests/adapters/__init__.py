"""What the adapters' folders share."""
