"""What each command but `train` does, over the rooms below."""
